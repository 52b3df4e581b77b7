"""Control packets as Python classes: made, compared, written and read."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t

from mqttcore.codec.codes cimport *
from mqttcore.codec.names cimport check_topic_name
from mqttcore.codec.properties cimport PLACE_WILL, write_properties
from mqttcore.codec.status cimport ST_OK
from mqttcore.codec.views cimport has_reason
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

cdef object AUTHENTICATION_METHOD = PropertyId.AUTHENTICATION_METHOD
cdef object AUTHENTICATION_DATA = PropertyId.AUTHENTICATION_DATA
cdef frozenset SECRETS = frozenset({AUTHENTICATION_DATA})


# --- return codes below MQTT 5 ----------------------------------------------------------------------------------------

# MQTT 5 has no other names for 3.1.1's codes 1 to 5, so decoding goes by this table; everything else that MQTT 5 can
# refuse for is mapped to the nearest of them by the one below.
cdef uint8_t[LAST_RETURN_CODE + 1] RETURN_CODE_REASONS = [
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


cdef uint8_t reason_of(uint8_t return_code) noexcept nogil:
    return RETURN_CODE_REASONS[return_code]


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
