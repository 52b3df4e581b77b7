"""Control packets as Python classes: made, compared, written and read."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp

from mqttcore.codec.codes cimport *
from mqttcore.codec.names cimport check_topic_name, is_shared_filter
from mqttcore.codec.properties cimport PLACE_WILL, take_properties, write_properties
from mqttcore.codec.status cimport *
from mqttcore.codec.views cimport (
    ack_properties,
    ack_view,
    check_flags,
    decode_ack,
    decode_server_publish,
    has_reason,
    publish_view,
)
from mqttcore.codec.wire cimport bytes_left, cursor_t, take_binary, take_text, take_u8, take_u16
from mqttcore.codec.writer cimport (
    write_binary,
    write_bytes,
    write_text,
    write_u8,
    write_u16,
    writer_close,
    writer_open,
    writer_packet,
    writer_t,
)

from mqttcore.constants import ConnectReturnCode, PacketType, PropertyId
from mqttcore.errors import ProtocolError

cdef enum:
    VERSION_3_1 = 3
    VERSION_3_1_1 = 4
    VERSION_5 = 5

cdef enum:
    CONNECT_RESERVED = 0x01
    CONNECT_CLEAN_START = 0x02
    CONNECT_WILL = 0x04
    CONNECT_WILL_RETAIN = 0x20
    CONNECT_PASSWORD = 0x40
    CONNECT_USER_NAME = 0x80

cdef enum:
    OPTION_QOS = 0x03
    OPTION_NO_LOCAL = 0x04
    OPTION_RETAIN_AS_PUBLISHED = 0x08
    OPTION_RESERVED = 0xC0

cdef object AUTHENTICATION_METHOD = PropertyId.AUTHENTICATION_METHOD
cdef object AUTHENTICATION_DATA = PropertyId.AUTHENTICATION_DATA
cdef frozenset SECRETS = frozenset({AUTHENTICATION_DATA})


# --- return codes below MQTT 5 ----------------------------------------------------------------------------------------

# MQTT 5 has no other names for 3.1.1's codes 1 to 5, so decoding goes by this table; everything else that MQTT 5 can
# refuse for is mapped to the nearest of them by the one below.
cdef uint8_t[6] RETURN_CODE_REASONS = [
    RC_SUCCESS,
    RC_UNSUPPORTED_PROTOCOL_VERSION,
    RC_CLIENT_IDENTIFIER_NOT_VALID,
    RC_SERVER_UNAVAILABLE,
    RC_BAD_USER_NAME_OR_PASSWORD,
    RC_NOT_AUTHORIZED,
]

cdef dict RETURN_CODES = {
    RC_SUCCESS: ConnectReturnCode.ACCEPTED,
    RC_UNSUPPORTED_PROTOCOL_VERSION: ConnectReturnCode.UNACCEPTABLE_PROTOCOL_VERSION,
    RC_CLIENT_IDENTIFIER_NOT_VALID: ConnectReturnCode.IDENTIFIER_REJECTED,
    RC_BAD_USER_NAME_OR_PASSWORD: ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD,
    RC_BAD_AUTHENTICATION_METHOD: ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD,
    RC_NOT_AUTHORIZED: ConnectReturnCode.NOT_AUTHORIZED,
    RC_BANNED: ConnectReturnCode.NOT_AUTHORIZED,
    RC_TOPIC_NAME_INVALID: ConnectReturnCode.NOT_AUTHORIZED,
    RC_PACKET_TOO_LARGE: ConnectReturnCode.NOT_AUTHORIZED,
    RC_PAYLOAD_FORMAT_INVALID: ConnectReturnCode.NOT_AUTHORIZED,
    RC_RETAIN_NOT_SUPPORTED: ConnectReturnCode.NOT_AUTHORIZED,
    RC_QOS_NOT_SUPPORTED: ConnectReturnCode.NOT_AUTHORIZED,
}

# what is not in the table may pass: the server cannot serve the client now
cdef uint8_t[256] RETURN_CODE_OF


cdef int fill_return_codes() except -1:
    cdef int reason_code
    for reason_code in range(256):
        RETURN_CODE_OF[reason_code] = RETURN_CODES.get(reason_code, ConnectReturnCode.SERVER_UNAVAILABLE)
    return 0


fill_return_codes()


cdef uint8_t return_code_of(uint8_t reason_code) noexcept nogil:
    return RETURN_CODE_OF[reason_code]


def connect_return_code(int reason_code):
    """Return the CONNACK return code of 3.1 and 3.1.1 that says what an MQTT 5 reason code says.

    Codes without a counterpart become SERVER_UNAVAILABLE, or NOT_AUTHORIZED where trying again is of no use. Whether a
    CONNACK is sent at all is the connection's decision (v3 [MQTT-3.2.2-6]). Raises ValueError outside 0 to 255.
    """
    if not 0 <= reason_code <= 255:
        raise ValueError("reason_code must be 0 to 255")
    return ConnectReturnCode(RETURN_CODE_OF[reason_code])


# --- arguments --------------------------------------------------------------------------------------------------------

cdef uint16_t checked(object value, uint16_t limit, str what) except? 0xFFFF:
    if not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not 0 <= value <= limit:
        raise ValueError(f"{what} must be 0 to {limit}")
    return value


cdef int check_version(int version) except -1:
    if not VERSION_3_1 <= version <= VERSION_5:
        raise ValueError("version must be 3, 4 or 5")
    return 0


cdef int write_packet_id(writer_t* out, uint16_t packet_id) except -1:
    if packet_id == 0:
        raise ValueError("packet_id must be 1 to 65535")
    return write_u16(out, packet_id)


cdef int write_topic(writer_t* out, str topic, str what) except -1:
    cdef bytes encoded
    write_text(out, topic, what)
    encoded = topic.encode()
    if check_topic_name(encoded, PyBytes_GET_SIZE(encoded)) != ST_OK:
        raise ValueError(f"{what} is empty or holds a wildcard")
    return 0


cdef int check_reason(uint8_t packet_type, uint8_t reason_code) except -1:
    if not has_reason(packet_type, reason_code):
        raise ValueError(f"reason code 0x{reason_code:02X} does not exist in {PacketType(packet_type).name}")
    return 0


# Reason code and properties at the end of a packet, both left out when they say nothing (§3.4.2.1, §3.14.2.1, §3.15.2.1).
cdef int write_reason(writer_t* out, uint8_t packet_type, uint8_t reason_code, dict properties) except -1:
    check_reason(packet_type, reason_code)
    if properties:
        write_u8(out, reason_code)
        return write_properties(out, properties, packet_type)
    if reason_code != RC_SUCCESS:
        return write_u8(out, reason_code)
    return 0


cdef dict shown(dict properties):
    if SECRETS.isdisjoint(properties):
        return properties
    return {key: "***" if key in SECRETS else value for key, value in properties.items()}


# --- classes ----------------------------------------------------------------------------------------------------------

cdef class Packet:
    """Base of all control packets; not made by itself."""

    _fields = ()

    cdef int write(self, writer_t* out, int version) except -1:
        raise TypeError("Packet is abstract")

    cdef bytes encode_for(self, int version):
        cdef writer_t out
        cdef int first
        writer_open(&out)
        try:
            first = self.write(&out, version)
            return writer_packet(&out, <uint8_t>first)
        finally:
            writer_close(&out)

    def encode(self, int version):
        """Return the whole packet as bytes for *version* (3, 4 or 5).

        Below 5 there are no properties and few reason codes on the wire: what cannot be said is left out. Raises
        ValueError and TypeError for fields that cannot be written. CONNECT goes by its own protocol_version.
        """
        check_version(version)
        return self.encode_for(version)

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    __hash__ = None

    def __repr__(self):
        return described(self, self._fields)


# Repr of a packet or one of its parts, without its secrets.
cdef str described(object self, tuple fields):
    cdef list parts = []
    for name in fields:
        value = getattr(self, name)
        if name == "password" and value is not None:
            value = "***"
        elif name == "properties":
            value = shown(value)
        parts.append(f"{name}={value!r}")
    return f"{type(self).__name__}({', '.join(parts)})"


@cython.final
cdef class Will:
    """The message that a server publishes when a client is gone (MQTT 5 §3.1.2.5)."""

    def __init__(self, str topic not None, bytes payload not None=b"", *, qos=0, bint retain=False, dict properties=None):
        self.topic = topic
        self.payload = payload
        self.qos = <uint8_t>checked(qos, 2, "qos")
        self.retain = retain
        self.properties = {} if properties is None else properties

    def __eq__(self, other):
        cdef Will will
        if type(other) is not Will:
            return NotImplemented
        will = other
        return (self.topic == will.topic and self.payload == will.payload and self.qos == will.qos
                and self.retain == will.retain and self.properties == will.properties)

    __hash__ = None

    def __repr__(self):
        return described(self, ("topic", "payload", "qos", "retain", "properties"))


@cython.final
cdef class Connect(Packet):
    """CONNECT (MQTT 5 §3.1)."""

    packet_type = PacketType.CONNECT
    _fields = ("client_id", "protocol_version", "clean_start", "keep_alive_s", "user_name", "password", "will",
               "properties")

    def __init__(self, str client_id not None="", *, protocol_version=5, bint clean_start=True, keep_alive_s=60,
                 str user_name=None, bytes password=None, Will will=None, dict properties=None):
        self.client_id = client_id
        self.protocol_version = <uint8_t>checked(protocol_version, 255, "protocol_version")
        check_version(self.protocol_version)
        self.clean_start = clean_start
        self.keep_alive_s = checked(keep_alive_s, 0xFFFF, "keep_alive_s")
        self.user_name = user_name
        self.password = password
        self.will = will
        self.properties = {} if properties is None else properties

    @property
    def protocol_name(self):
        """`MQIsdp` for 3.1, `MQTT` for what came later."""
        return "MQIsdp" if self.protocol_version == VERSION_3_1 else "MQTT"

    cdef int write(self, writer_t* out, int version) except -1:
        cdef uint8_t flags = 0
        cdef Will will = self.will
        version = self.protocol_version
        if self.clean_start:
            flags |= CONNECT_CLEAN_START
        if will is not None:
            flags |= CONNECT_WILL | will.qos << 3
            if will.retain:
                flags |= CONNECT_WILL_RETAIN
        if self.user_name is not None:
            flags |= CONNECT_USER_NAME
        if self.password is not None:
            if self.user_name is None and version < VERSION_5:
                raise ValueError("a password needs a user name below MQTT 5")      # v3 [MQTT-3.1.2-22]
            flags |= CONNECT_PASSWORD
        write_text(out, self.protocol_name, "protocol_name")
        write_u8(out, <uint8_t>version)
        write_u8(out, flags)
        write_u16(out, self.keep_alive_s)
        if version == VERSION_5:
            if AUTHENTICATION_DATA in self.properties and AUTHENTICATION_METHOD not in self.properties:
                raise ValueError("AUTHENTICATION_DATA needs AUTHENTICATION_METHOD")
            write_properties(out, self.properties, PT_CONNECT)
        write_text(out, self.client_id, "client_id")
        if will is not None:
            if version == VERSION_5:
                write_properties(out, will.properties, PLACE_WILL)
            write_topic(out, will.topic, "will topic")
            write_binary(out, will.payload, "will payload")
        if self.user_name is not None:
            write_text(out, self.user_name, "user_name")
        if self.password is not None:
            write_binary(out, self.password, "password")
        return PT_CONNECT << 4


@cython.final
cdef class ConnAck(Packet):
    """CONNACK (MQTT 5 §3.2). reason_code is MQTT 5's in every version; below 5 the wire has its return code."""

    packet_type = PacketType.CONNACK
    _fields = ("session_present", "reason_code", "properties")

    def __init__(self, bint session_present=False, reason_code=0, dict properties=None):
        self.session_present = session_present
        self.reason_code = <uint8_t>checked(reason_code, 255, "reason_code")
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        if self.session_present and self.reason_code != RC_SUCCESS:
            raise ValueError("session_present needs reason code 0")                # [MQTT-3.2.2-6]
        check_reason(PT_CONNACK, self.reason_code)
        # 3.1 has no Session Present: its byte is reserved
        write_u8(out, self.session_present and version != VERSION_3_1)
        if version == VERSION_5:
            write_u8(out, self.reason_code)
            write_properties(out, self.properties, PT_CONNACK)
        else:
            write_u8(out, return_code_of(self.reason_code))
        return PT_CONNACK << 4


@cython.final
cdef class Publish(Packet):
    """PUBLISH (MQTT 5 §3.3)."""

    packet_type = PacketType.PUBLISH
    _fields = ("topic", "payload", "qos", "retain", "dup", "packet_id", "properties")

    def __init__(self, str topic not None, bytes payload not None=b"", *, qos=0, bint retain=False, bint dup=False,
                 packet_id=0, dict properties=None):
        self.topic = topic
        self.payload = payload
        self.qos = <uint8_t>checked(qos, 2, "qos")
        self.retain = retain
        self.dup = dup
        self.packet_id = checked(packet_id, 0xFFFF, "packet_id")
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        if not self.topic and version == VERSION_5 and PropertyId.TOPIC_ALIAS in self.properties:
            write_u16(out, 0)
        else:
            write_topic(out, self.topic, "topic")
        if self.qos:
            write_packet_id(out, self.packet_id)
        elif self.packet_id:
            raise ValueError("packet_id must be 0 at QoS 0")                       # [MQTT-2.2.1-2]
        elif self.dup:
            raise ValueError("dup needs QoS 1 or 2")                               # [MQTT-3.3.1-2]
        if version == VERSION_5:
            write_properties(out, self.properties, PT_PUBLISH)
        write_bytes(out, <const uint8_t*>PyBytes_AS_STRING(self.payload), PyBytes_GET_SIZE(self.payload))
        return PT_PUBLISH << 4 | self.dup << 3 | self.qos << 1 | self.retain


cdef class Ack(Packet):
    """What PUBACK, PUBREC, PUBREL and PUBCOMP share; not made by itself."""

    _fields = ("packet_id", "reason_code", "properties")

    def __init__(self, packet_id, reason_code=0, dict properties=None):
        self.packet_id = checked(packet_id, 0xFFFF, "packet_id")
        self.reason_code = <uint8_t>checked(reason_code, 255, "reason_code")
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        if self.first == 0:
            raise TypeError("Ack is abstract")
        write_packet_id(out, self.packet_id)
        if version == VERSION_5:
            write_reason(out, self.first >> 4, self.reason_code, self.properties)
        return self.first


@cython.final
cdef class PubAck(Ack):
    """PUBACK (MQTT 5 §3.4)."""

    packet_type = PacketType.PUBACK

    def __cinit__(self):
        self.first = PT_PUBACK << 4


@cython.final
cdef class PubRec(Ack):
    """PUBREC (MQTT 5 §3.5)."""

    packet_type = PacketType.PUBREC

    def __cinit__(self):
        self.first = PT_PUBREC << 4


@cython.final
cdef class PubRel(Ack):
    """PUBREL (MQTT 5 §3.6)."""

    packet_type = PacketType.PUBREL

    def __cinit__(self):
        self.first = PT_PUBREL << 4 | 2       # [MQTT-3.6.1-1]


@cython.final
cdef class PubComp(Ack):
    """PUBCOMP (MQTT 5 §3.7)."""

    packet_type = PacketType.PUBCOMP

    def __cinit__(self):
        self.first = PT_PUBCOMP << 4


@cython.final
cdef class Subscription:
    """A Topic Filter with its Subscription Options (MQTT 5 §3.8.3.1)."""

    def __init__(self, str topic_filter not None, qos=0, *, bint no_local=False, bint retain_as_published=False,
                 retain_handling=0):
        self.topic_filter = topic_filter
        self.options = <uint8_t>(checked(qos, 2, "qos") | no_local << 2 | retain_as_published << 3
                                 | checked(retain_handling, 2, "retain_handling") << 4)

    @property
    def qos(self):
        """Requested QoS, 0 to 2."""
        return self.options & OPTION_QOS

    @property
    def no_local(self):
        """Whether messages of the subscriber itself are left out."""
        return self.options & OPTION_NO_LOCAL != 0

    @property
    def retain_as_published(self):
        """Whether RETAIN is forwarded as it came."""
        return self.options & OPTION_RETAIN_AS_PUBLISHED != 0

    @property
    def retain_handling(self):
        """When retained messages are sent, 0 to 2: see RetainHandling."""
        return self.options >> 4 & 3

    def __eq__(self, other):
        cdef Subscription subscription
        if type(other) is not Subscription:
            return NotImplemented
        subscription = other
        return self.topic_filter == subscription.topic_filter and self.options == subscription.options

    __hash__ = None

    def __repr__(self):
        return described(self, ("topic_filter", "qos", "no_local", "retain_as_published", "retain_handling"))


@cython.final
cdef class Subscribe(Packet):
    """SUBSCRIBE (MQTT 5 §3.8)."""

    packet_type = PacketType.SUBSCRIBE
    _fields = ("packet_id", "subscriptions", "properties")

    def __init__(self, packet_id, list subscriptions not None, dict properties=None):
        self.packet_id = checked(packet_id, 0xFFFF, "packet_id")
        self.subscriptions = subscriptions
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        cdef Subscription subscription
        if not self.subscriptions:
            raise ValueError("subscriptions must not be empty")                    # [MQTT-3.8.3-2]
        write_packet_id(out, self.packet_id)
        if version == VERSION_5:
            write_properties(out, self.properties, PT_SUBSCRIBE)
        for item in self.subscriptions:
            if type(item) is not Subscription:
                raise TypeError("subscriptions must be a list of Subscription")
            subscription = item
            write_text(out, subscription.topic_filter, "topic_filter")
            write_u8(out, subscription.options if version == VERSION_5 else subscription.options & OPTION_QOS)
        return PT_SUBSCRIBE << 4 | 2


cdef int write_reason_codes(writer_t* out, list reason_codes, uint8_t packet_type, int version) except -1:
    cdef uint8_t reason_code
    if not reason_codes:
        raise ValueError("reason_codes must not be empty")
    for item in reason_codes:
        reason_code = <uint8_t>checked(item, 255, "reason code")
        check_reason(packet_type, reason_code)
        if version != VERSION_5 and reason_code >= RC_UNSPECIFIED_ERROR:
            reason_code = RC_UNSPECIFIED_ERROR                                      # v3 [MQTT-3.9.3-2]
        write_u8(out, reason_code)
    return 0


@cython.final
cdef class SubAck(Packet):
    """SUBACK (MQTT 5 §3.9). Below 5 every reason code of 0x80 and above is written as 0x80."""

    packet_type = PacketType.SUBACK
    _fields = ("packet_id", "reason_codes", "properties")

    def __init__(self, packet_id, list reason_codes not None, dict properties=None):
        self.packet_id = checked(packet_id, 0xFFFF, "packet_id")
        self.reason_codes = reason_codes
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        write_packet_id(out, self.packet_id)
        if version == VERSION_5:
            write_properties(out, self.properties, PT_SUBACK)
        write_reason_codes(out, self.reason_codes, PT_SUBACK, version)
        return PT_SUBACK << 4


@cython.final
cdef class Unsubscribe(Packet):
    """UNSUBSCRIBE (MQTT 5 §3.10)."""

    packet_type = PacketType.UNSUBSCRIBE
    _fields = ("packet_id", "topic_filters", "properties")

    def __init__(self, packet_id, list topic_filters not None, dict properties=None):
        self.packet_id = checked(packet_id, 0xFFFF, "packet_id")
        self.topic_filters = topic_filters
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        if not self.topic_filters:
            raise ValueError("topic_filters must not be empty")                    # [MQTT-3.10.3-2]
        write_packet_id(out, self.packet_id)
        if version == VERSION_5:
            write_properties(out, self.properties, PT_UNSUBSCRIBE)
        for topic_filter in self.topic_filters:
            if not isinstance(topic_filter, str):
                raise TypeError("topic_filters must be a list of str")
            write_text(out, topic_filter, "topic_filter")
        return PT_UNSUBSCRIBE << 4 | 2


@cython.final
cdef class UnsubAck(Packet):
    """UNSUBACK (MQTT 5 §3.11). Below 5 the wire has no reason codes."""

    packet_type = PacketType.UNSUBACK
    _fields = ("packet_id", "reason_codes", "properties")

    def __init__(self, packet_id, list reason_codes=None, dict properties=None):
        self.packet_id = checked(packet_id, 0xFFFF, "packet_id")
        self.reason_codes = [] if reason_codes is None else reason_codes
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        write_packet_id(out, self.packet_id)
        if version == VERSION_5:
            write_properties(out, self.properties, PT_UNSUBACK)
            write_reason_codes(out, self.reason_codes, PT_UNSUBACK, version)
        return PT_UNSUBACK << 4


@cython.final
cdef class PingReq(Packet):
    """PINGREQ (MQTT 5 §3.12)."""

    packet_type = PacketType.PINGREQ

    cdef int write(self, writer_t* out, int version) except -1:
        return PT_PINGREQ << 4


@cython.final
cdef class PingResp(Packet):
    """PINGRESP (MQTT 5 §3.13)."""

    packet_type = PacketType.PINGRESP

    cdef int write(self, writer_t* out, int version) except -1:
        return PT_PINGRESP << 4


@cython.final
cdef class Disconnect(Packet):
    """DISCONNECT (MQTT 5 §3.14)."""

    packet_type = PacketType.DISCONNECT
    _fields = ("reason_code", "properties")

    def __init__(self, reason_code=0, dict properties=None):
        self.reason_code = <uint8_t>checked(reason_code, 255, "reason_code")
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        if version == VERSION_5:
            write_reason(out, PT_DISCONNECT, self.reason_code, self.properties)
        return PT_DISCONNECT << 4


@cython.final
cdef class Auth(Packet):
    """AUTH (MQTT 5 §3.15); it exists in no other version."""

    packet_type = PacketType.AUTH
    _fields = ("reason_code", "properties")

    def __init__(self, reason_code=0, dict properties=None):
        self.reason_code = <uint8_t>checked(reason_code, 255, "reason_code")
        self.properties = {} if properties is None else properties

    cdef int write(self, writer_t* out, int version) except -1:
        if version != VERSION_5:
            raise ValueError("AUTH needs MQTT 5")
        if AUTHENTICATION_METHOD not in self.properties and (self.reason_code or self.properties):
            raise ValueError("AUTH needs AUTHENTICATION_METHOD")                   # §3.15.2.2.2
        write_reason(out, PT_AUTH, self.reason_code, self.properties)
        return PT_AUTH << 4


# --- decoding ---------------------------------------------------------------------------------------------------------

cdef inline int need(int status) except -1:
    if status != ST_OK:
        raise status_error(status)
    return 0


cdef inline int need_end(cursor_t* cursor) except -1:
    return need(ST_OK if cursor.at == cursor.end else ST_TRAILING_BYTES)


cdef inline str text_of(const uint8_t* text, Py_ssize_t size):
    return PyUnicode_DecodeUTF8(<const char*>text, size, NULL)


cdef inline bytes bytes_of(const uint8_t* data, Py_ssize_t size):
    return PyBytes_FromStringAndSize(<const char*>data, size)


cdef str need_text(cursor_t* cursor):
    cdef const uint8_t* text = NULL
    cdef uint32_t size = 0
    need(take_text(cursor, &text, &size))
    return text_of(text, size)


cdef bytes need_binary(cursor_t* cursor):
    cdef const uint8_t* data = NULL
    cdef uint32_t size = 0
    need(take_binary(cursor, &data, &size))
    return bytes_of(data, size)


cdef uint16_t need_packet_id(cursor_t* cursor) except 0:
    cdef uint16_t packet_id = 0
    need(take_u16(cursor, &packet_id))
    if packet_id == 0:
        raise status_error(ST_PACKET_ID_ZERO)
    return packet_id


# The version of a CONNECT from its name and level; *level* is set as soon as it is known.
cdef int take_protocol(cursor_t* cursor, int* level) noexcept nogil:
    cdef const uint8_t* name = NULL
    cdef uint32_t size = 0
    cdef uint8_t byte = 0
    cdef bint is_mqtt, is_mqisdp
    cdef int status = take_binary(cursor, &name, &size)
    if status != ST_OK:
        return status
    is_mqtt = size == 4 and memcmp(name, b"MQTT", 4) == 0
    is_mqisdp = size == 6 and memcmp(name, b"MQIsdp", 6) == 0
    if not (is_mqtt or is_mqisdp):
        return ST_PROTOCOL_NAME                                                    # [MQTT-3.1.2-1]
    status = take_u8(cursor, &byte)
    if status != ST_OK:
        return status
    level[0] = byte
    if is_mqtt and (byte == VERSION_3_1_1 or byte == VERSION_5) or is_mqisdp and byte == VERSION_3_1:
        return ST_OK
    return ST_PROTOCOL_VERSION                                                     # [MQTT-3.1.2-2]


cdef int connect_flags_status(uint8_t flags, int version) noexcept nogil:
    cdef uint8_t will_qos = flags >> 3 & 3
    if flags & CONNECT_RESERVED and version != VERSION_3_1:
        return ST_CONNECT_RESERVED_FLAG                                            # [MQTT-3.1.2-3]
    if flags & CONNECT_WILL:
        if will_qos == 3:
            return ST_WILL_QOS                                                     # [MQTT-3.1.2-12]
    elif will_qos:
        return ST_WILL_QOS_WITHOUT_WILL                                            # [MQTT-3.1.2-11]
    elif flags & CONNECT_WILL_RETAIN:
        return ST_WILL_RETAIN_WITHOUT_WILL                                         # [MQTT-3.1.2-13]
    if flags & CONNECT_PASSWORD and not flags & CONNECT_USER_NAME and version != VERSION_5:
        return ST_PASSWORD_WITHOUT_USER_NAME                                       # v3 [MQTT-3.1.2-22]
    return ST_OK


cdef Will take_will(cursor_t* cursor, uint8_t flags, int version):
    cdef Will will = Will.__new__(Will)
    cdef const uint8_t* topic = NULL
    cdef uint32_t size = 0
    will.properties = take_properties(cursor, PLACE_WILL) if version == VERSION_5 else {}
    need(take_binary(cursor, &topic, &size))
    need(check_topic_name(topic, size))
    will.topic = text_of(topic, size)
    will.payload = need_binary(cursor)
    will.qos = flags >> 3 & 3
    will.retain = flags & CONNECT_WILL_RETAIN != 0
    return will


cdef Connect read_connect(cursor_t* cursor, int* level):
    cdef Connect packet = Connect.__new__(Connect)
    cdef uint8_t flags = 0
    cdef int version
    need(take_protocol(cursor, level))
    version = level[0]
    need(take_u8(cursor, &flags))
    need(connect_flags_status(flags, version))
    need(take_u16(cursor, &packet.keep_alive_s))
    packet.protocol_version = <uint8_t>version
    packet.clean_start = flags & CONNECT_CLEAN_START != 0
    if version == VERSION_5:
        packet.properties = take_properties(cursor, PT_CONNECT)
        if AUTHENTICATION_DATA in packet.properties and AUTHENTICATION_METHOD not in packet.properties:
            raise status_error(ST_AUTHENTICATION_DATA_ALONE)
    else:
        packet.properties = {}
    packet.client_id = need_text(cursor)
    if flags & CONNECT_WILL:
        packet.will = take_will(cursor, flags, version)
    # In 3.1 the remaining length goes before these two flags: a flagged field may be missing at the packet's end.
    if flags & CONNECT_USER_NAME and (version != VERSION_3_1 or bytes_left(cursor)):
        packet.user_name = need_text(cursor)
    if flags & CONNECT_PASSWORD and (version != VERSION_3_1 or bytes_left(cursor)):
        packet.password = need_binary(cursor)
    need_end(cursor)
    return packet


cdef Connect decode_connect(cursor_t* cursor):
    cdef int level = -1
    try:
        return read_connect(cursor, &level)
    except ProtocolError as error:
        if level >= 0:
            error.protocol_version = level
        raise


cdef ConnAck decode_connack(cursor_t* cursor, int version):
    cdef ConnAck packet = ConnAck.__new__(ConnAck)
    cdef uint8_t flags = 0, code = 0
    need(take_u8(cursor, &flags))
    need(take_u8(cursor, &code))
    if version == VERSION_3_1:
        flags = 0                       # reserved there, not to be looked at
    if flags > 1:
        raise status_error(ST_CONNACK_FLAGS)                                       # [MQTT-3.2.2-1]
    packet.session_present = flags
    if version == VERSION_5:
        if not has_reason(PT_CONNACK, code):
            raise status_error(ST_REASON_CODE)
        packet.reason_code = code
        packet.properties = take_properties(cursor, PT_CONNACK)
    else:
        if code >= 6:
            raise status_error(ST_REASON_CODE)
        packet.reason_code = RETURN_CODE_REASONS[code]
        packet.properties = {}
    if flags and code:
        raise status_error(ST_SESSION_PRESENT)                                     # [MQTT-3.2.2-6]
    need_end(cursor)
    return packet


cdef Publish publish_object(uint8_t flags, const uint8_t* body, Py_ssize_t size, int version):
    cdef Publish packet = Publish.__new__(Publish)
    cdef publish_view view
    cdef cursor_t cursor
    need(decode_server_publish(flags, body, size, version, &view))
    if view.topic_size:
        need(check_topic_name(view.topic, view.topic_size))
    packet.topic = text_of(view.topic, view.topic_size)
    packet.payload = bytes_of(view.payload, view.payload_size)
    packet.qos = view.qos
    packet.retain = view.retain
    packet.dup = view.dup
    packet.packet_id = view.packet_id
    if view.props == NULL:
        packet.properties = {}
    else:
        # the length stands between packet identifier (or topic) and block
        cursor.at = view.topic + view.topic_size + (2 if view.qos else 0)
        cursor.end = body + size
        packet.properties = take_properties(&cursor, PT_PUBLISH)
    return packet


cdef Ack ack_object(type cls, uint8_t packet_type, uint8_t flags, const uint8_t* body, Py_ssize_t size, int version):
    cdef Ack packet = cls.__new__(cls)
    cdef ack_view view
    cdef cursor_t cursor
    cdef const uint8_t* block = NULL
    need(decode_ack(packet_type, flags, body, size, version, &view))
    packet.packet_id = view.packet_id
    packet.reason_code = view.reason_code
    if ack_properties(body, size, &block):
        cursor.at = body + 3
        cursor.end = body + size
        packet.properties = take_properties(&cursor, packet_type)
    else:
        packet.properties = {}
    return packet


cdef int options_status(uint8_t options, int version) noexcept nogil:
    if version != VERSION_5:
        return ST_OK if options <= 2 else ST_SUBSCRIPTION_RESERVED                 # v3 [MQTT-3-8.3-4]
    if options & OPTION_RESERVED:
        return ST_SUBSCRIPTION_RESERVED                                            # [MQTT-3.8.3-5]
    if options & OPTION_QOS == 3:
        return ST_SUBSCRIPTION_QOS
    if options >> 4 & 3 == 3:
        return ST_RETAIN_HANDLING
    return ST_OK


cdef Subscribe decode_subscribe(cursor_t* cursor, int version):
    cdef Subscribe packet = Subscribe.__new__(Subscribe)
    cdef Subscription subscription
    cdef const uint8_t* topic_filter = NULL
    cdef uint32_t size = 0
    packet.packet_id = need_packet_id(cursor)
    packet.properties = take_properties(cursor, PT_SUBSCRIBE) if version == VERSION_5 else {}
    packet.subscriptions = []
    if bytes_left(cursor) == 0:
        raise status_error(ST_NO_FILTERS)                                          # [MQTT-3.8.3-2]
    while bytes_left(cursor):
        subscription = Subscription.__new__(Subscription)
        need(take_text(cursor, &topic_filter, &size))
        need(take_u8(cursor, &subscription.options))
        need(options_status(subscription.options, version))
        if subscription.options & OPTION_NO_LOCAL and is_shared_filter(topic_filter, size):
            raise status_error(ST_SHARED_NO_LOCAL)                                 # [MQTT-3.8.3-4]
        subscription.topic_filter = text_of(topic_filter, size)
        packet.subscriptions.append(subscription)
    return packet


cdef Unsubscribe decode_unsubscribe(cursor_t* cursor, int version):
    cdef Unsubscribe packet = Unsubscribe.__new__(Unsubscribe)
    packet.packet_id = need_packet_id(cursor)
    packet.properties = take_properties(cursor, PT_UNSUBSCRIBE) if version == VERSION_5 else {}
    packet.topic_filters = []
    if bytes_left(cursor) == 0:
        raise status_error(ST_NO_FILTERS_TO_REMOVE)                                # [MQTT-3.10.3-2]
    while bytes_left(cursor):
        packet.topic_filters.append(need_text(cursor))
    return packet


# The rest of a SUBACK or UNSUBACK.
cdef list take_reason_codes(cursor_t* cursor, uint8_t packet_type, int version):
    cdef list reason_codes = []
    cdef uint8_t code = 0
    if bytes_left(cursor) == 0:
        raise status_error(ST_NO_REASON_CODES)
    while bytes_left(cursor):
        need(take_u8(cursor, &code))
        # v3 [MQTT-3.9.3-2]: of the failures there is only 0x80
        if not has_reason(packet_type, code) or (version != VERSION_5 and code > RC_UNSPECIFIED_ERROR):
            raise status_error(ST_REASON_CODE)
        reason_codes.append(code)
    return reason_codes


cdef SubAck decode_suback(cursor_t* cursor, int version):
    cdef SubAck packet = SubAck.__new__(SubAck)
    packet.packet_id = need_packet_id(cursor)
    packet.properties = take_properties(cursor, PT_SUBACK) if version == VERSION_5 else {}
    packet.reason_codes = take_reason_codes(cursor, PT_SUBACK, version)
    return packet


cdef UnsubAck decode_unsuback(cursor_t* cursor, int version):
    cdef UnsubAck packet = UnsubAck.__new__(UnsubAck)
    packet.packet_id = need_packet_id(cursor)
    if version == VERSION_5:
        packet.properties = take_properties(cursor, PT_UNSUBACK)
        packet.reason_codes = take_reason_codes(cursor, PT_UNSUBACK, version)
    else:
        packet.properties = {}
        packet.reason_codes = []
        need_end(cursor)
    return packet


# Reason code and properties of DISCONNECT and AUTH, either of which may be missing.
cdef dict take_reason(cursor_t* cursor, uint8_t packet_type, uint8_t* reason_code):
    cdef dict properties
    reason_code[0] = RC_SUCCESS
    if bytes_left(cursor) == 0:
        return {}
    need(take_u8(cursor, reason_code))
    if not has_reason(packet_type, reason_code[0]):
        raise status_error(ST_REASON_CODE)
    if bytes_left(cursor) == 0:
        return {}
    properties = take_properties(cursor, packet_type)
    need_end(cursor)
    return properties


cdef Disconnect decode_disconnect(cursor_t* cursor, int version):
    cdef Disconnect packet = Disconnect.__new__(Disconnect)
    if version != VERSION_5:
        need_end(cursor)
        packet.properties = {}
        return packet
    packet.properties = take_reason(cursor, PT_DISCONNECT, &packet.reason_code)
    return packet


cdef Auth decode_auth(cursor_t* cursor, int version):
    cdef Auth packet = Auth.__new__(Auth)
    cdef bint is_empty = bytes_left(cursor) == 0
    if version != VERSION_5:
        raise status_error(ST_NOT_IN_VERSION)
    packet.properties = take_reason(cursor, PT_AUTH, &packet.reason_code)
    # an AUTH without anything is a form of its own (§3.15.2.1); whether it fits is the connection's question
    if not is_empty and AUTHENTICATION_METHOD not in packet.properties:
        raise status_error(ST_AUTHENTICATION_METHOD)
    return packet


cdef object decode_body(uint8_t first, const uint8_t* body, Py_ssize_t size, int version):
    cdef uint8_t packet_type = first >> 4
    cdef uint8_t flags = first & 0x0F
    cdef cursor_t cursor
    if packet_type == PT_PUBLISH:
        return publish_object(flags, body, size, version)
    if packet_type == 0:
        raise status_error(ST_RESERVED_TYPE)
    need(check_flags(packet_type, flags, version))
    if packet_type == PT_PUBACK:
        return ack_object(PubAck, packet_type, flags, body, size, version)
    if packet_type == PT_PUBREC:
        return ack_object(PubRec, packet_type, flags, body, size, version)
    if packet_type == PT_PUBREL:
        return ack_object(PubRel, packet_type, flags, body, size, version)
    if packet_type == PT_PUBCOMP:
        return ack_object(PubComp, packet_type, flags, body, size, version)

    cursor.at = body
    cursor.end = body + size
    if packet_type == PT_CONNECT:
        return decode_connect(&cursor)
    if packet_type == PT_CONNACK:
        return decode_connack(&cursor, version)
    if packet_type == PT_SUBSCRIBE:
        return decode_subscribe(&cursor, version)
    if packet_type == PT_SUBACK:
        return decode_suback(&cursor, version)
    if packet_type == PT_UNSUBSCRIBE:
        return decode_unsubscribe(&cursor, version)
    if packet_type == PT_UNSUBACK:
        return decode_unsuback(&cursor, version)
    if packet_type == PT_DISCONNECT:
        return decode_disconnect(&cursor, version)
    if packet_type == PT_AUTH:
        return decode_auth(&cursor, version)
    need_end(&cursor)
    return PingReq.__new__(PingReq) if packet_type == PT_PINGREQ else PingResp.__new__(PingResp)
