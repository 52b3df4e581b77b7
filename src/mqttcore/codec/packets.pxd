# Control packets: C views for the packet path, Python classes for everything else.
#
# Every decoder here gets a whole body (the bytes behind the fixed header) whose size was checked before it was buffered.
# They return a status: 0, or a code that `status_reason` and `status_error` understand. No decoder keeps a pointer.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from mqttcore.codec.names cimport check_topic_filter, check_topic_name, check_utf8, is_shared_filter
from mqttcore.codec.properties cimport encode_properties_block
from mqttcore.codec.reader cimport decode_body
from mqttcore.codec.status cimport status_error, status_reason
from mqttcore.codec.views cimport ack_view, decode_ack, decode_publish, decode_server_publish, publish_view
from mqttcore.codec.writer cimport writer_t


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

cdef enum:
    LAST_RETURN_CODE = 5

# The CONNACK return code of 3.1 and 3.1.1 for a reason code of MQTT 5 (0 to 5).
cdef uint8_t return_code_of(uint8_t reason_code) noexcept nogil


# The reverse for a return code up to LAST_RETURN_CODE.
cdef uint8_t reason_of(uint8_t return_code) noexcept nogil


# Base of all packets. Fields are set when a packet is made and do not change; dicts and lists are not copied, so whoever
# passes one in gives it away. Nothing but types is checked before encode().
cdef class Packet:
    # Writes variable header and payload; returns the fixed header's first byte. ValueError, TypeError: not encodable.
    cdef int write(self, writer_t* out, int version) except -1
    # The whole packet.
    cdef bytes encode_for(self, int version)


cdef class Will:
    cdef readonly str topic                 # a checked Topic Name when decoded
    cdef readonly bytes payload
    cdef readonly uint8_t qos
    cdef readonly bint retain
    cdef readonly dict properties


cdef class Connect(Packet):
    cdef readonly uint8_t protocol_version  # 3, 4 or 5
    cdef readonly bint clean_start          # Clean Session below 5
    cdef readonly uint16_t keep_alive_s
    cdef readonly str client_id             # may be empty
    cdef readonly str user_name             # or None
    cdef readonly bytes password            # or None
    cdef readonly Will will                 # or None
    cdef readonly dict properties


cdef class ConnAck(Packet):
    cdef readonly bint session_present
    cdef readonly uint8_t reason_code       # of MQTT 5 in every version
    cdef readonly dict properties


cdef class Publish(Packet):
    cdef readonly str topic                 # empty: the alias in properties stands for it
    cdef readonly bytes payload
    cdef readonly uint8_t qos
    cdef readonly bint retain
    cdef readonly bint dup
    cdef readonly uint16_t packet_id        # 0 at QoS 0
    cdef readonly dict properties


# PUBACK, PUBREC, PUBREL and PUBCOMP.
cdef class Ack(Packet):
    cdef readonly uint16_t packet_id
    cdef readonly uint8_t reason_code
    cdef readonly dict properties
    cdef uint8_t first                      # the fixed header's first byte


cdef class PubAck(Ack):
    pass


cdef class PubRec(Ack):
    pass


cdef class PubRel(Ack):
    pass


cdef class PubComp(Ack):
    pass


cdef class Subscription:
    cdef readonly str topic_filter          # UTF-8 checked, syntax not
    cdef readonly uint8_t options           # the byte of §3.8.3.1; below 5 the QoS alone


cdef class Subscribe(Packet):
    cdef readonly uint16_t packet_id
    cdef readonly list subscriptions        # of Subscription, not empty when decoded
    cdef readonly dict properties


cdef class SubAck(Packet):
    cdef readonly uint16_t packet_id
    cdef readonly list reason_codes         # of int, one per filter
    cdef readonly dict properties


cdef class Unsubscribe(Packet):
    cdef readonly uint16_t packet_id
    cdef readonly list topic_filters        # of str, UTF-8 checked, syntax not
    cdef readonly dict properties


cdef class UnsubAck(Packet):
    cdef readonly uint16_t packet_id
    cdef readonly list reason_codes         # of int, one per filter; empty below 5
    cdef readonly dict properties


cdef class PingReq(Packet):
    pass


cdef class PingResp(Packet):
    pass


cdef class Disconnect(Packet):
    cdef readonly uint8_t reason_code
    cdef readonly dict properties


cdef class Auth(Packet):
    cdef readonly uint8_t reason_code
    cdef readonly dict properties
