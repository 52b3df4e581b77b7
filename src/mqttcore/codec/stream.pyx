"""Streams of packets: one packet at a time, or whatever the network gave."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from mqttcore.codec.codes cimport *
from mqttcore.codec.packets cimport Connect, Packet
from mqttcore.codec.reader cimport decode_body
from mqttcore.codec.status cimport (
    ST_NOT_FROM_CLIENT,
    ST_NOT_FROM_SERVER,
    ST_PACKET_TOO_LARGE,
    ST_SESSION_EXPIRY_FROM_SERVER,
    ST_SUBSCRIPTION_ID_FROM_CLIENT,
    ST_VARINT,
    status_error,
)
from mqttcore.codec.wire cimport MAX_VARINT, read_varint

from mqttcore.constants import PropertyId

cdef enum:
    LARGEST_PACKET = 1 + 4 + MAX_VARINT

cdef enum:
    SENDER_ANY = 0
    SENDER_CLIENT
    SENDER_SERVER

# bit per packet type
cdef enum:
    ONLY_SERVERS = (1 << PT_CONNACK) | (1 << PT_SUBACK) | (1 << PT_UNSUBACK) | (1 << PT_PINGRESP)
    ONLY_CLIENTS = (1 << PT_CONNECT) | (1 << PT_SUBSCRIBE) | (1 << PT_UNSUBSCRIBE) | (1 << PT_PINGREQ)

cdef object SUBSCRIPTION_IDENTIFIER = PropertyId.SUBSCRIPTION_IDENTIFIER
cdef object SESSION_EXPIRY_INTERVAL = PropertyId.SESSION_EXPIRY_INTERVAL


cdef int sender_of(str sender) except -1:
    if sender is None:
        return SENDER_ANY
    if sender == "client":
        return SENDER_CLIENT
    if sender == "server":
        return SENDER_SERVER
    raise ValueError("sender must be 'client', 'server' or None")


cdef int check_version(int version) except -1:
    if not 3 <= version <= 5:
        raise ValueError("version must be 3, 4 or 5")
    return 0


cdef Py_ssize_t check_limit(Py_ssize_t limit) except -1:
    if limit < 2:
        raise ValueError("maximum_packet_size_bytes must be at least 2")
    return limit


# The whole size of the packet at *at*: fixed header and body. 0: its header is not complete yet. Raises ProtocolError.
# *body_at* is set to the offset of the body.
cdef Py_ssize_t packet_size(const uint8_t* at, Py_ssize_t size, Py_ssize_t limit, Py_ssize_t* body_at) except -1:
    cdef uint32_t body = 0
    cdef int used
    if size < 2:
        return 0
    used = read_varint(at + 1, size - 1, &body)
    if used < 0:
        raise status_error(ST_VARINT)
    if used == 0:
        return 0
    body_at[0] = 1 + used
    if 1 + used + <Py_ssize_t>body > limit:
        raise status_error(ST_PACKET_TOO_LARGE)
    return 1 + used + <Py_ssize_t>body


# What may come from where (§2.1.2).
cdef int check_sender_type(uint8_t packet_type, int sender) except -1:
    if sender == SENDER_CLIENT and ONLY_SERVERS >> packet_type & 1:
        raise status_error(ST_NOT_FROM_CLIENT)
    if sender == SENDER_SERVER and ONLY_CLIENTS >> packet_type & 1:
        raise status_error(ST_NOT_FROM_SERVER)
    return 0


cdef int check_sender_properties(uint8_t packet_type, object packet, int sender) except -1:
    if packet_type == PT_PUBLISH:
        if sender == SENDER_CLIENT and SUBSCRIPTION_IDENTIFIER in packet.properties:
            raise status_error(ST_SUBSCRIPTION_ID_FROM_CLIENT)                     # [MQTT-3.3.4-6]
    elif packet_type == PT_DISCONNECT:
        if sender == SENDER_SERVER and SESSION_EXPIRY_INTERVAL in packet.properties:
            raise status_error(ST_SESSION_EXPIRY_FROM_SERVER)                      # [MQTT-3.14.2-2]
    return 0


cdef object packet_at(const uint8_t* at, Py_ssize_t size, Py_ssize_t body_at, int version, int sender):
    cdef uint8_t packet_type = at[0] >> 4
    check_sender_type(packet_type, sender)
    packet = decode_body(at[0], at + body_at, size - body_at, version)
    if sender != SENDER_ANY:
        check_sender_properties(packet_type, packet, sender)
    return packet


def decode(data, int version, *, Py_ssize_t maximum_packet_size_bytes=LARGEST_PACKET, str sender=None):
    """Return the first packet of *data* and the bytes it took; (None, 0) while it is not complete.

    data: bytes-like. version: 3, 4 or 5; a CONNECT brings its own. maximum_packet_size_bytes counts the fixed header.
    sender: `client` or `server` makes sure that this side may send the packet. Raises ProtocolError.
    """
    cdef Py_buffer view
    cdef Py_ssize_t size, body_at = 0
    cdef int side = sender_of(sender)
    check_version(version)
    check_limit(maximum_packet_size_bytes)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        size = packet_size(<const uint8_t*>view.buf, view.len, maximum_packet_size_bytes, &body_at)
        if size == 0 or size > view.len:
            return None, 0
        return packet_at(<const uint8_t*>view.buf, size, body_at, version, side), size
    finally:
        PyBuffer_Release(&view)


def encode(Packet packet not None, int version):
    """Return *packet* as bytes for *version*; see Packet.encode."""
    return packet.encode(version)


@cython.final
cdef class Decoder:
    """Packets out of a byte stream that is cut anywhere.

    Keeps the rest of a torn packet, never more than one: its declared size is checked before its body is kept. A CONNECT
    sets the version. After a fault every further feed() raises it again.
    """

    cdef bytearray rest                     # start of a torn packet
    cdef Py_ssize_t wanted                  # size that the torn packet has; 0: not known yet
    cdef Py_ssize_t limit
    cdef int protocol_version
    cdef int side
    cdef object fault                       # the ProtocolError that ended the stream, or None
    cdef readonly list decoded

    def __init__(self, int version=4, *, Py_ssize_t maximum_packet_size_bytes=LARGEST_PACKET, str sender=None):
        check_version(version)
        self.protocol_version = version
        self.limit = check_limit(maximum_packet_size_bytes)
        self.side = sender_of(sender)
        self.rest = bytearray()
        self.decoded = []

    @property
    def version(self):
        """Version that packets are decoded as: 3, 4 or 5. Set by a CONNECT; a client sets it itself."""
        return self.protocol_version

    @version.setter
    def version(self, int version):
        check_version(version)
        self.protocol_version = version

    @property
    def rest_size_bytes(self):
        """Bytes kept of a torn packet."""
        return PyByteArray_GET_SIZE(self.rest)

    def feed(self, data):
        """Return the packets that *data* (bytes-like) completes, oldest first.

        Raises ProtocolError; packets in front of the fault are in `decoded` then.
        """
        cdef Py_buffer view
        if self.fault is not None:
            raise self.fault
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.decoded = []
            self.take(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        return self.decoded

    cdef int take(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t used = 0
        try:
            if PyByteArray_GET_SIZE(self.rest):
                used = self.complete(data, size)
            if PyByteArray_GET_SIZE(self.rest) == 0:
                used += self.take_whole(data + used, size - used)
                self.keep(data + used, size - used)
        except Exception as error:
            self.fault = error
            self.rest = bytearray()
            raise
        return 0

    # Whole packets in place; returns the bytes they took.
    cdef Py_ssize_t take_whole(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t used = 0
        cdef Py_ssize_t whole, body_at = 0
        while used < size:
            whole = packet_size(data + used, size - used, self.limit, &body_at)
            self.wanted = whole
            if whole == 0 or whole > size - used:
                break
            self.take_packet(data + used, whole, body_at)
            used += whole
        return used

    # Adds to the torn packet what it lacks and no more; returns the bytes taken.
    cdef Py_ssize_t complete(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t used = 0
        cdef Py_ssize_t part, body_at = 0
        cdef bytearray rest = self.rest
        # the header comes byte by byte, so that nothing behind it is kept before the size is known
        while self.wanted == 0 and used < size:
            rest.append(data[used])
            used += 1
            self.wanted = packet_size(<const uint8_t*>PyByteArray_AS_STRING(rest), PyByteArray_GET_SIZE(rest), self.limit, &body_at)
        if self.wanted == 0:
            return used
        part = min(self.wanted - PyByteArray_GET_SIZE(rest), size - used)
        rest += data[used:used + part]
        used += part
        if PyByteArray_GET_SIZE(rest) == self.wanted:
            packet_size(<const uint8_t*>PyByteArray_AS_STRING(rest), PyByteArray_GET_SIZE(rest), self.limit, &body_at)
            self.take_packet(<const uint8_t*>PyByteArray_AS_STRING(rest), PyByteArray_GET_SIZE(rest), body_at)
            self.rest = bytearray()
            self.wanted = 0
        return used

    cdef int keep(self, const uint8_t* data, Py_ssize_t size) except -1:
        if size:
            self.rest += data[:size]
        return 0

    cdef int take_packet(self, const uint8_t* at, Py_ssize_t size, Py_ssize_t body_at) except -1:
        packet = packet_at(at, size, body_at, self.protocol_version, self.side)
        if type(packet) is Connect:
            self.protocol_version = (<Connect>packet).protocol_version
        self.decoded.append(packet)
        return 0
