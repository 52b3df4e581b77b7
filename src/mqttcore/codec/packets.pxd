# Control packets: C views for the packet path, Python classes for everything else.
#
# Every decoder here gets a whole body (the bytes behind the fixed header) whose size was checked before it was buffered.
# They return a status: 0, or a code that `status_reason` and `raise_status` understand. No decoder keeps a pointer.

from libc.stdint cimport uint8_t, uint16_t, uint32_t


# A PUBLISH in place. Pointers are borrowed from the decoded bytes and live as long as they do.
cdef struct publish_view:
    const uint8_t* topic          # not yet checked: call check_topic_name() unless these bytes are known
    const uint8_t* props          # MQTT 5 property block without its length; NULL when there is none or it is empty
    const uint8_t* payload
    uint32_t topic_size
    uint32_t props_size
    uint32_t payload_size
    uint32_t expiry_s             # Message Expiry Interval, if expiry_at
    uint32_t expiry_at            # 1 + offset in props of the four value bytes of Message Expiry Interval; 0: absent
    uint32_t alias_at             # 1 + offset in props of the Topic Alias property (3 bytes, with its id); 0: absent
    uint16_t packet_id            # 0 at QoS 0
    uint16_t topic_alias          # 0: absent
    uint8_t qos
    uint8_t retain
    uint8_t dup
    uint8_t is_utf8               # Payload Format Indicator 1


# PUBACK, PUBREC, PUBREL, PUBCOMP in place.
cdef struct ack_view:
    uint16_t packet_id
    uint8_t reason_code


# flags: the low four bits of the fixed header's first byte. Checks everything but the topic's content: QoS 3, DUP at
# QoS 0, packet id 0, property multiplicity and place, Response Topic, Subscription Identifier from a client.
cdef int decode_publish(uint8_t flags, const uint8_t* body, Py_ssize_t size, int version, publish_view* view) noexcept nogil

# packet_type: PT_PUBACK … PT_PUBCOMP. Also checks the fixed header's reserved flags and the reason code's place.
cdef int decode_ack(uint8_t packet_type, uint8_t flags, const uint8_t* body, Py_ssize_t size, int version,
                    ack_view* view) noexcept nogil

# A Topic Name: not empty, valid UTF-8 without U+0000, no wildcard [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2].
cdef int check_topic_name(const uint8_t* topic, Py_ssize_t size) noexcept nogil

# A Topic Filter with or without $share: wildcards alone on their level, `#` last [MQTT-4.7.1-1..2] [MQTT-4.8.2-1..2].
cdef int check_topic_filter(const uint8_t* topic_filter, Py_ssize_t size) noexcept nogil

# MQTT UTF-8 string: well formed, no surrogates, no U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
cdef int check_utf8(const uint8_t* text, Py_ssize_t size) noexcept nogil

# The MQTT 5 reason code of a status, 0 for status 0.
cdef uint8_t status_reason(int status) noexcept nogil

# The ProtocolError of a status that is not 0, as an object (not raised).
cdef object status_error(int status)

# Any packet as its Python class; raises ProtocolError. version: that of the connection (ignored by CONNECT).
cdef object decode_body(uint8_t first, const uint8_t* body, Py_ssize_t size, int version)
