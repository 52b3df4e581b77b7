"""The one table of faults: status to reason code, clause and text."""

from libc.stdint cimport uint8_t

from mqttcore.codec.codes cimport (
    RC_MALFORMED_PACKET,
    RC_PACKET_TOO_LARGE,
    RC_PROTOCOL_ERROR,
    RC_TOPIC_ALIAS_INVALID,
    RC_TOPIC_FILTER_INVALID,
    RC_TOPIC_NAME_INVALID,
    RC_UNSUPPORTED_PROTOCOL_VERSION,
)

from mqttcore.errors import MalformedPacket, PacketTooLarge, ProtocolError

# Clauses are those of MQTT 5 where it has one; "v3" marks statements of 3.1.1 that MQTT 5 lacks.
cdef dict FAULTS = {
    ST_TRUNCATED: (RC_MALFORMED_PACKET, "§4.13.1", "a field goes past the end of the packet"),
    ST_TRAILING_BYTES: (RC_MALFORMED_PACKET, "§4.13.1", "bytes behind the last field of the packet"),
    ST_VARINT: (RC_MALFORMED_PACKET, "MQTT-1.5.5-1", "variable byte integer is not minimal or too long"),
    ST_RESERVED_TYPE: (RC_MALFORMED_PACKET, "§2.1.2", "packet type 0 is reserved"),
    ST_RESERVED_FLAGS: (RC_MALFORMED_PACKET, "MQTT-2.1.3-1", "reserved flags of the fixed header"),
    ST_PACKET_TOO_LARGE: (RC_PACKET_TOO_LARGE, "MQTT-3.2.2-15", "packet is larger than the maximum packet size"),
    ST_NOT_IN_VERSION: (RC_PROTOCOL_ERROR, "§2.1.2", "AUTH needs MQTT 5"),
    ST_NOT_FROM_CLIENT: (RC_PROTOCOL_ERROR, "§2.1.2", "a client sent a packet that only servers send"),
    ST_NOT_FROM_SERVER: (RC_PROTOCOL_ERROR, "§2.1.2", "a server sent a packet that only clients send"),
    ST_UTF8: (RC_MALFORMED_PACKET, "MQTT-1.5.4-1", "ill-formed UTF-8"),
    ST_NUL: (RC_MALFORMED_PACKET, "MQTT-1.5.4-2", "U+0000 in a string"),
    ST_TOPIC_EMPTY: (RC_PROTOCOL_ERROR, "MQTT-4.7.3-1", "empty topic name"),
    ST_TOPIC_WILDCARD: (RC_TOPIC_NAME_INVALID, "MQTT-3.3.2-2", "wildcard in a topic name"),
    ST_FILTER_EMPTY: (RC_TOPIC_FILTER_INVALID, "MQTT-4.7.3-1", "empty topic filter"),
    ST_FILTER_HASH: (RC_TOPIC_FILTER_INVALID, "MQTT-4.7.1-1", "# is not alone on the last level"),
    ST_FILTER_PLUS: (RC_TOPIC_FILTER_INVALID, "MQTT-4.7.1-2", "+ is not alone on its level"),
    ST_SHARE_NAME: (RC_TOPIC_FILTER_INVALID, "MQTT-4.8.2-1", "share name is empty or holds a wildcard"),
    ST_SHARE_FILTER: (RC_TOPIC_FILTER_INVALID, "MQTT-4.8.2-2", "no topic filter behind the share name"),
    ST_PACKET_ID_ZERO: (RC_PROTOCOL_ERROR, "MQTT-2.2.1-3", "packet identifier 0"),
    ST_REASON_CODE: (RC_PROTOCOL_ERROR, "§2.4", "reason code that this packet does not have"),
    ST_PROTOCOL_NAME: (RC_UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-1", "unknown protocol name"),
    ST_PROTOCOL_VERSION: (RC_UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-2", "unsupported protocol version"),
    ST_CONNECT_RESERVED_FLAG: (RC_MALFORMED_PACKET, "MQTT-3.1.2-3", "reserved connect flag is set"),
    ST_WILL_QOS: (RC_MALFORMED_PACKET, "MQTT-3.1.2-12", "will QoS 3"),
    ST_WILL_QOS_WITHOUT_WILL: (RC_MALFORMED_PACKET, "MQTT-3.1.2-11", "will QoS without will"),
    ST_WILL_RETAIN_WITHOUT_WILL: (RC_MALFORMED_PACKET, "MQTT-3.1.2-13", "will retain without will"),
    ST_PASSWORD_WITHOUT_USER_NAME: (RC_PROTOCOL_ERROR, "v3 MQTT-3.1.2-22", "password without user name"),
    ST_AUTHENTICATION_DATA_ALONE: (
        RC_PROTOCOL_ERROR, "§3.1.2.11.10", "authentication data without authentication method"),
    ST_CONNACK_FLAGS: (RC_MALFORMED_PACKET, "MQTT-3.2.2-1", "reserved connect acknowledge flags"),
    ST_SESSION_PRESENT: (RC_PROTOCOL_ERROR, "MQTT-3.2.2-6", "session present on a refused connection"),
    ST_PUBLISH_QOS: (RC_MALFORMED_PACKET, "MQTT-3.3.1-4", "QoS 3"),
    ST_PUBLISH_DUP: (RC_MALFORMED_PACKET, "MQTT-3.3.1-2", "DUP at QoS 0"),
    ST_SUBSCRIPTION_ID_FROM_CLIENT: (
        RC_PROTOCOL_ERROR, "MQTT-3.3.4-6", "subscription identifier in a PUBLISH of a client"),
    ST_RESPONSE_TOPIC: (RC_PROTOCOL_ERROR, "MQTT-3.3.2-14", "response topic is no topic name"),
    ST_NO_FILTERS: (RC_PROTOCOL_ERROR, "MQTT-3.8.3-2", "SUBSCRIBE without topic filter"),
    ST_NO_FILTERS_TO_REMOVE: (RC_PROTOCOL_ERROR, "MQTT-3.10.3-2", "UNSUBSCRIBE without topic filter"),
    ST_SUBSCRIPTION_RESERVED: (RC_MALFORMED_PACKET, "MQTT-3.8.3-5", "reserved bits of the subscription options"),
    ST_SUBSCRIPTION_QOS: (RC_PROTOCOL_ERROR, "§3.8.3.1", "requested QoS 3"),
    ST_RETAIN_HANDLING: (RC_PROTOCOL_ERROR, "§3.8.3.1", "retain handling 3"),
    ST_SHARED_NO_LOCAL: (RC_PROTOCOL_ERROR, "MQTT-3.8.3-4", "no local on a shared subscription"),
    ST_NO_REASON_CODES: (RC_PROTOCOL_ERROR, "§3.9.3", "acknowledgement without reason code"),
    ST_SESSION_EXPIRY_FROM_SERVER: (
        RC_PROTOCOL_ERROR, "MQTT-3.14.2-2", "session expiry interval in a DISCONNECT of a server"),
    ST_AUTHENTICATION_METHOD: (RC_PROTOCOL_ERROR, "§3.15.2.2.2", "AUTH without authentication method"),
    ST_PROPERTY_UNKNOWN: (RC_MALFORMED_PACKET, "§2.2.2.2", "unknown property identifier"),
    ST_PROPERTY_PLACE: (RC_MALFORMED_PACKET, "§2.2.2.2", "property is not allowed in this packet"),
    ST_PROPERTY_REPEATED: (RC_PROTOCOL_ERROR, "§2.2.2.2", "property may be given only once"),
    ST_PROPERTY_NOT_BOOLEAN: (RC_PROTOCOL_ERROR, "§2.2.2.2", "property value is neither 0 nor 1"),
    ST_RECEIVE_MAXIMUM_ZERO: (RC_PROTOCOL_ERROR, "§3.1.2.11.3", "receive maximum 0"),
    ST_MAXIMUM_PACKET_SIZE_ZERO: (RC_PROTOCOL_ERROR, "§3.1.2.11.4", "maximum packet size 0"),
    ST_SUBSCRIPTION_ID_ZERO: (RC_PROTOCOL_ERROR, "§3.8.2.1.2", "subscription identifier 0"),
    ST_TOPIC_ALIAS_ZERO: (RC_TOPIC_ALIAS_INVALID, "MQTT-3.3.2-8", "topic alias 0"),
}

cdef uint8_t REASONS[ST_COUNT]


cdef int fill_reasons() except -1:
    cdef int status
    REASONS[ST_OK] = 0
    for status in range(1, ST_COUNT):
        REASONS[status] = FAULTS[status][0]
    return 0


fill_reasons()


cdef uint8_t status_reason(int status) noexcept nogil:
    return REASONS[status]


cdef object status_error(int status):
    reason_code, clause, text = FAULTS[status]
    if reason_code == RC_MALFORMED_PACKET:
        return MalformedPacket(reason_code, clause, text)
    if reason_code == RC_PACKET_TOO_LARGE:
        return PacketTooLarge(reason_code, clause, text)
    return ProtocolError(reason_code, clause, text)
