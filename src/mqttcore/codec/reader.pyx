"""Packets out of bodies: every packet type of every version as its class."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp

from mqttcore.codec.codes cimport *
from mqttcore.codec.names cimport check_topic_name, is_shared_filter
from mqttcore.codec.packets cimport (
    CONNECT_CLEAN_START,
    CONNECT_PASSWORD,
    CONNECT_RESERVED,
    CONNECT_USER_NAME,
    CONNECT_WILL,
    CONNECT_WILL_RETAIN,
    LAST_RETURN_CODE,
    OPTION_NO_LOCAL,
    OPTION_QOS,
    OPTION_RESERVED,
    VERSION_3_1,
    VERSION_3_1_1,
    VERSION_5,
    Ack,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
    reason_of,
)
from mqttcore.codec.properties cimport PLACE_WILL, take_properties
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

from mqttcore.constants import PropertyId
from mqttcore.errors import ProtocolError

cdef object AUTHENTICATION_METHOD = PropertyId.AUTHENTICATION_METHOD
cdef object AUTHENTICATION_DATA = PropertyId.AUTHENTICATION_DATA
cdef object MAXIMUM_PACKET_SIZE = PropertyId.MAXIMUM_PACKET_SIZE


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


cdef Connect read_connect(cursor_t* cursor, Connect packet, int* level):
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
    cdef Connect packet = Connect.__new__(Connect)
    cdef int level = -1
    try:
        return read_connect(cursor, packet, &level)
    except ProtocolError as error:
        if level >= 0:
            error.protocol_version = level
        if packet.properties:
            error.maximum_packet_size = packet.properties.get(MAXIMUM_PACKET_SIZE)
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
        if code > LAST_RETURN_CODE:
            raise status_error(ST_REASON_CODE)
        packet.reason_code = reason_of(code)
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
