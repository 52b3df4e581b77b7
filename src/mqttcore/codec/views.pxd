# PUBLISH and its acknowledgements in place: nothing is copied, nothing allocated.

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


# A PUBLISH that a client sent. flags: the low four bits of the fixed header's first byte. Checks everything but the
# topic's content: QoS 3, DUP at QoS 0, packet id 0, property multiplicity and place, Response Topic, Subscription
# Identifier (not from a client), an empty topic without alias. Returns a status.
cdef int decode_publish(uint8_t flags, const uint8_t* body, Py_ssize_t size, int version, publish_view* view) noexcept nogil

# A PUBLISH that a server sent: as decode_publish(), but Subscription Identifiers are fine.
cdef int decode_server_publish(uint8_t flags, const uint8_t* body, Py_ssize_t size, int version,
                               publish_view* view) noexcept nogil

# packet_type: PT_PUBACK … PT_PUBCOMP. Also checks the fixed header's reserved flags and the reason code's place.
cdef int decode_ack(uint8_t packet_type, uint8_t flags, const uint8_t* body, Py_ssize_t size, int version,
                    ack_view* view) noexcept nogil

# Where the property block of an acknowledgement that decode_ack() has accepted starts and its size (0: none).
cdef Py_ssize_t ack_properties(const uint8_t* body, Py_ssize_t size, const uint8_t** block) noexcept nogil

# Reserved flags of any packet but PUBLISH [MQTT-2.1.3-1]. MQTT 3.1 knows DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE.
cdef int check_flags(uint8_t packet_type, uint8_t flags, int version) noexcept nogil

# Whether a packet of MQTT 5 has this reason code (§2.4).
cdef bint has_reason(uint8_t packet_type, uint8_t reason_code) noexcept nogil
