# Inline readers and writers of the wire's primitive types (MQTT 5 §1.5). No allocation, no Python.
#
# get_* and put_* trust the caller, who has checked the length. take_* read at a cursor and check it themselves.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from mqttcore.codec.status cimport ST_NUL, ST_OK, ST_TRUNCATED, ST_UTF8, ST_VARINT

cdef enum:
    MAX_VARINT = 268435455          # four bytes of seven bits
    MAX_VARINT_SIZE = 4


# --- integers ---------------------------------------------------------------------------------------------------------

cdef inline uint16_t get_u16(const uint8_t* at) noexcept nogil:
    return <uint16_t>((at[0] << 8) | at[1])


cdef inline uint32_t get_u32(const uint8_t* at) noexcept nogil:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef inline void put_u16(uint8_t* at, uint16_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value


cdef inline void put_u32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 24)
    at[1] = <uint8_t>(value >> 16)
    at[2] = <uint8_t>(value >> 8)
    at[3] = <uint8_t>value


# --- variable byte integers (§1.5.5) ----------------------------------------------------------------------------------

# Bytes that *value* (at most MAX_VARINT) takes: 1 to 4.
cdef inline int varint_size(uint32_t value) noexcept nogil:
    return 1 + (value > 127) + (value > 16383) + (value > 2097151)


# Writes *value* (at most MAX_VARINT); returns the bytes written.
cdef inline int put_varint(uint8_t* at, uint32_t value) noexcept nogil:
    cdef int used = 0
    while value > 127:
        at[used] = <uint8_t>(value | 0x80)
        value >>= 7
        used += 1
    at[used] = <uint8_t>value
    return used + 1


# Reads from at most *size* bytes. Returns the bytes used, 0: incomplete, -1: malformed, that is not minimal or more
# than four bytes [MQTT-1.5.5-1]. *value* is set only when bytes were used.
cdef inline int read_varint(const uint8_t* at, Py_ssize_t size, uint32_t* value) noexcept nogil:
    cdef uint32_t result
    cdef int used
    if size < 1:
        return 0
    result = at[0]
    if result < 0x80:
        value[0] = result
        return 1
    result &= 0x7F
    for used in range(1, MAX_VARINT_SIZE):
        if used >= size:
            return 0
        result |= <uint32_t>(at[used] & 0x7F) << (7 * used)
        if at[used] < 0x80:
            if at[used] == 0:
                return -1
            value[0] = result
            return used + 1
    return -1


# --- text (§1.5.4) ----------------------------------------------------------------------------------------------------

cdef enum:
    ASCII_WORD = 8

cdef inline uint64_t load_u64(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


# Non-zero when a byte of *word* is 0. Exact only while no byte is above 0x80, which callers test together with it.
cdef inline uint64_t zero_bytes(uint64_t word) noexcept nogil:
    return (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL


# ST_OK, ST_UTF8 [MQTT-1.5.4-1] or ST_NUL [MQTT-1.5.4-2]. Plain ASCII goes eight bytes at a time.
cdef inline int utf8_status(const uint8_t* text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef uint64_t word
    cdef uint8_t lead, second
    while i < size:
        if i + ASCII_WORD <= size:
            word = load_u64(text + i)
            if ((word & 0x8080808080808080ULL) | zero_bytes(word)) == 0:
                i += ASCII_WORD
                continue
        lead = text[i]
        if lead < 0x80:
            if lead == 0:
                return ST_NUL
            i += 1
        elif lead < 0xE0:
            # C0 and C1 would be overlong, 80..BF is no lead
            if lead < 0xC2 or i + 1 >= size or (text[i + 1] & 0xC0) != 0x80:
                return ST_UTF8
            i += 2
        elif lead < 0xF0:
            if i + 2 >= size or (text[i + 1] & 0xC0) != 0x80 or (text[i + 2] & 0xC0) != 0x80:
                return ST_UTF8
            second = text[i + 1]
            # overlong below U+0800; ED A0..BF are the surrogates
            if (lead == 0xE0 and second < 0xA0) or (lead == 0xED and second > 0x9F):
                return ST_UTF8
            i += 3
        else:
            if (lead > 0xF4 or i + 3 >= size or (text[i + 1] & 0xC0) != 0x80 or (text[i + 2] & 0xC0) != 0x80
                    or (text[i + 3] & 0xC0) != 0x80):
                return ST_UTF8
            second = text[i + 1]
            # overlong below U+10000; nothing above U+10FFFF
            if (lead == 0xF0 and second < 0x90) or (lead == 0xF4 and second > 0x8F):
                return ST_UTF8
            i += 4
    return ST_OK


# --- a cursor that checks ---------------------------------------------------------------------------------------------

cdef struct cursor_t:
    const uint8_t* at               # next byte
    const uint8_t* end              # behind the last byte


cdef inline Py_ssize_t bytes_left(cursor_t* cursor) noexcept nogil:
    return cursor.end - cursor.at


cdef inline int take_u8(cursor_t* cursor, uint8_t* value) noexcept nogil:
    if bytes_left(cursor) < 1:
        return ST_TRUNCATED
    value[0] = cursor.at[0]
    cursor.at += 1
    return ST_OK


cdef inline int take_u16(cursor_t* cursor, uint16_t* value) noexcept nogil:
    if bytes_left(cursor) < 2:
        return ST_TRUNCATED
    value[0] = get_u16(cursor.at)
    cursor.at += 2
    return ST_OK


cdef inline int take_u32(cursor_t* cursor, uint32_t* value) noexcept nogil:
    if bytes_left(cursor) < 4:
        return ST_TRUNCATED
    value[0] = get_u32(cursor.at)
    cursor.at += 4
    return ST_OK


cdef inline int take_varint(cursor_t* cursor, uint32_t* value) noexcept nogil:
    cdef int used = read_varint(cursor.at, bytes_left(cursor), value)
    if used <= 0:
        return ST_TRUNCATED if used == 0 else ST_VARINT
    cursor.at += used
    return ST_OK


# Binary Data (§1.5.6): two bytes of length, then the bytes; *data* points into the cursor's bytes.
cdef inline int take_binary(cursor_t* cursor, const uint8_t** data, uint32_t* size) noexcept nogil:
    cdef uint32_t length
    if bytes_left(cursor) < 2:
        return ST_TRUNCATED
    length = get_u16(cursor.at)
    if bytes_left(cursor) < 2 + <Py_ssize_t>length:
        return ST_TRUNCATED
    data[0] = cursor.at + 2
    size[0] = length
    cursor.at += 2 + length
    return ST_OK


# UTF-8 Encoded String (§1.5.4), checked.
cdef inline int take_text(cursor_t* cursor, const uint8_t** text, uint32_t* size) noexcept nogil:
    cdef int status = take_binary(cursor, text, size)
    if status != ST_OK:
        return status
    return utf8_status(text[0], size[0])
