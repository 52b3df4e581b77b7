# What can be wrong with bytes: one status per kind of fault. Decoders return it; the table in status.pyx explains it.

from libc.stdint cimport uint8_t


cdef enum:
    ST_OK = 0
    # framing
    ST_TRUNCATED                # a field goes past the packet's end
    ST_TRAILING_BYTES           # bytes behind the packet's last field
    ST_VARINT                   # variable byte integer not minimal, or longer than four bytes
    ST_RESERVED_TYPE            # packet type 0
    ST_RESERVED_FLAGS           # reserved bits of the fixed header
    ST_PACKET_TOO_LARGE
    ST_NOT_IN_VERSION           # AUTH before MQTT 5
    ST_NOT_FROM_CLIENT          # a packet that only servers send
    ST_NOT_FROM_SERVER          # a packet that only clients send
    # text
    ST_UTF8
    ST_NUL
    # topics
    ST_TOPIC_EMPTY
    ST_TOPIC_WILDCARD
    ST_FILTER_EMPTY
    ST_FILTER_HASH
    ST_FILTER_PLUS
    ST_SHARE_NAME
    ST_SHARE_FILTER
    # packet identifiers and reason codes
    ST_PACKET_ID_ZERO
    ST_REASON_CODE              # not one of the packet's codes
    # CONNECT, CONNACK
    ST_PROTOCOL_NAME
    ST_PROTOCOL_VERSION
    ST_CONNECT_RESERVED_FLAG
    ST_WILL_QOS
    ST_WILL_QOS_WITHOUT_WILL
    ST_WILL_RETAIN_WITHOUT_WILL
    ST_PASSWORD_WITHOUT_USER_NAME
    ST_AUTHENTICATION_DATA_ALONE
    ST_CONNACK_FLAGS
    ST_SESSION_PRESENT
    # PUBLISH
    ST_PUBLISH_QOS
    ST_PUBLISH_DUP
    ST_SUBSCRIPTION_ID_FROM_CLIENT
    ST_RESPONSE_TOPIC
    # SUBSCRIBE, UNSUBSCRIBE
    ST_NO_FILTERS
    ST_NO_FILTERS_TO_REMOVE
    ST_SUBSCRIPTION_RESERVED
    ST_SUBSCRIPTION_QOS
    ST_RETAIN_HANDLING
    ST_SHARED_NO_LOCAL
    ST_NO_REASON_CODES
    # DISCONNECT, AUTH
    ST_SESSION_EXPIRY_FROM_SERVER
    ST_AUTHENTICATION_METHOD
    # properties
    ST_PROPERTY_UNKNOWN
    ST_PROPERTY_PLACE
    ST_PROPERTY_REPEATED
    ST_PROPERTY_NOT_BOOLEAN
    ST_RECEIVE_MAXIMUM_ZERO
    ST_MAXIMUM_PACKET_SIZE_ZERO
    ST_SUBSCRIPTION_ID_ZERO
    ST_TOPIC_ALIAS_ZERO
    ST_COUNT


# The MQTT 5 reason code of a status, 0 for status 0.
cdef uint8_t status_reason(int status) noexcept nogil

# The ProtocolError of a status that is not 0, as an object (not raised): MalformedPacket for 0x81, PacketTooLarge for 0x95.
cdef object status_error(int status)
