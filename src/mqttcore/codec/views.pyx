"""PUBLISH and its acknowledgements in place."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from mqttcore.codec.codes cimport *
from mqttcore.codec.properties cimport check_properties, property_t, read_property
from mqttcore.codec.status cimport (
    ST_OK,
    ST_PACKET_ID_ZERO,
    ST_PUBLISH_DUP,
    ST_PUBLISH_QOS,
    ST_REASON_CODE,
    ST_RESERVED_FLAGS,
    ST_SUBSCRIPTION_ID_FROM_CLIENT,
    ST_TOPIC_EMPTY,
    ST_TRAILING_BYTES,
    ST_TRUNCATED,
    ST_VARINT,
)
from mqttcore.codec.wire cimport cursor_t, get_u16, read_varint

# Reason codes of each packet (§2.4, table 2-6).
cdef dict REASON_CODES = {
    PT_CONNACK: (
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A,
        0x9B, 0x9C, 0x9D, 0x9F),
    PT_PUBACK: (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99),
    PT_PUBREC: (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99),
    PT_PUBREL: (0x00, 0x92),
    PT_PUBCOMP: (0x00, 0x92),
    PT_SUBACK: (0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2),
    PT_UNSUBACK: (0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91),
    PT_DISCONNECT: (
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
        0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2),
    PT_AUTH: (0x00, 0x18, 0x19),
}

# bit per packet type
cdef uint16_t PACKETS_WITH_REASON[256]


cdef int fill_reasons() except -1:
    for packet_type, reason_codes in REASON_CODES.items():
        for reason_code in reason_codes:
            PACKETS_WITH_REASON[<int>reason_code] |= <uint16_t>(1 << <int>packet_type)
    return 0


fill_reasons()


cdef bint has_reason(uint8_t packet_type, uint8_t reason_code) noexcept nogil:
    return PACKETS_WITH_REASON[reason_code] >> packet_type & 1


cdef int check_flags(uint8_t packet_type, uint8_t flags, int version) noexcept nogil:
    cdef uint8_t expected = 0
    if packet_type == PT_PUBREL or packet_type == PT_SUBSCRIBE or packet_type == PT_UNSUBSCRIBE:
        expected = 2
        if version == 3:
            flags &= 0x07
    return ST_OK if flags == expected else ST_RESERVED_FLAGS


# Walks the block of a PUBLISH and notes what the engine needs of it.
cdef int walk_publish_properties(publish_view* view, bint from_client) noexcept nogil:
    cdef cursor_t cursor
    cdef property_t found
    cdef uint32_t start
    cdef int status
    cursor.at = view.props
    cursor.end = view.props + view.props_size
    found.seen = 0
    while cursor.at < cursor.end:
        start = <uint32_t>(cursor.at - view.props)
        status = read_property(&cursor, PT_PUBLISH, &found)
        if status != ST_OK:
            return status
        if found.id == PROP_MESSAGE_EXPIRY_INTERVAL:
            view.expiry_s = found.number
            view.expiry_at = start + 2
        elif found.id == PROP_TOPIC_ALIAS:
            view.topic_alias = <uint16_t>found.number
            view.alias_at = start + 1
        elif found.id == PROP_PAYLOAD_FORMAT_INDICATOR:
            view.is_utf8 = <uint8_t>found.number
        elif found.id == PROP_SUBSCRIPTION_IDENTIFIER and from_client:
            return ST_SUBSCRIPTION_ID_FROM_CLIENT
    return ST_OK


cdef inline int publish_in_place(uint8_t flags, const uint8_t* body, Py_ssize_t size, int version, bint from_client,
                                 publish_view* view) noexcept nogil:
    cdef uint8_t qos = flags >> 1 & 3
    cdef Py_ssize_t offset
    cdef uint32_t block_size
    cdef int used, status
    if qos == 3:
        return ST_PUBLISH_QOS
    if size < 2:
        return ST_TRUNCATED
    view.qos = qos
    view.retain = flags & 1
    view.dup = flags >> 3 & 1
    view.topic_size = get_u16(body)
    view.topic = body + 2
    offset = 2 + <Py_ssize_t>view.topic_size
    view.packet_id = 0
    if qos:
        if offset + 2 > size:
            return ST_TRUNCATED
        view.packet_id = get_u16(body + offset)
        if view.packet_id == 0:
            return ST_PACKET_ID_ZERO
        offset += 2
    else:
        if offset > size:
            return ST_TRUNCATED
        if view.dup:
            return ST_PUBLISH_DUP
    view.props = NULL
    view.props_size = 0
    view.expiry_s = 0
    view.expiry_at = 0
    view.alias_at = 0
    view.topic_alias = 0
    view.is_utf8 = 0
    if version == 5:
        block_size = 0
        used = read_varint(body + offset, size - offset, &block_size)
        if used <= 0:
            return ST_TRUNCATED if used == 0 else ST_VARINT
        offset += used
        if block_size:
            if block_size > size - offset:
                return ST_TRUNCATED
            view.props = body + offset
            view.props_size = block_size
            offset += block_size
            status = walk_publish_properties(view, from_client)
            if status != ST_OK:
                return status
    if view.topic_size == 0 and view.topic_alias == 0:
        return ST_TOPIC_EMPTY
    view.payload = body + offset
    view.payload_size = <uint32_t>(size - offset)
    return ST_OK


cdef int decode_publish(uint8_t flags, const uint8_t* body, Py_ssize_t size, int version, publish_view* view) noexcept nogil:
    return publish_in_place(flags, body, size, version, True, view)


cdef int decode_server_publish(uint8_t flags, const uint8_t* body, Py_ssize_t size, int version,
                               publish_view* view) noexcept nogil:
    return publish_in_place(flags, body, size, version, False, view)


cdef Py_ssize_t ack_properties(const uint8_t* body, Py_ssize_t size, const uint8_t** block) noexcept nogil:
    cdef uint32_t block_size = 0
    cdef int used
    block[0] = NULL
    if size < 4:
        return 0
    used = read_varint(body + 3, size - 3, &block_size)
    block[0] = body + 3 + used
    return block_size


cdef int decode_ack(uint8_t packet_type, uint8_t flags, const uint8_t* body, Py_ssize_t size, int version,
                    ack_view* view) noexcept nogil:
    cdef uint32_t block_size = 0
    cdef int used
    cdef int status = check_flags(packet_type, flags, version)
    if status != ST_OK:
        return status
    if size < 2:
        return ST_TRUNCATED
    view.packet_id = get_u16(body)
    view.reason_code = RC_SUCCESS
    if view.packet_id == 0:
        return ST_PACKET_ID_ZERO
    if size == 2:
        return ST_OK
    if version != 5:
        return ST_TRAILING_BYTES
    view.reason_code = body[2]
    if not has_reason(packet_type, view.reason_code):
        return ST_REASON_CODE
    if size == 3:
        return ST_OK
    used = read_varint(body + 3, size - 3, &block_size)
    if used <= 0:
        return ST_TRUNCATED if used == 0 else ST_VARINT
    if block_size != size - 3 - used:
        return ST_TRUNCATED if block_size > size - 3 - used else ST_TRAILING_BYTES
    if block_size == 0:
        return ST_OK
    return check_properties(body + 3 + used, block_size, packet_type)
