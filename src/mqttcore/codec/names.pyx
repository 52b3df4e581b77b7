"""Rules for Topic Names and Topic Filters."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp

from mqttcore.codec.status cimport (
    ST_FILTER_EMPTY,
    ST_FILTER_HASH,
    ST_FILTER_PLUS,
    ST_OK,
    ST_SHARE_FILTER,
    ST_SHARE_NAME,
    ST_TOPIC_EMPTY,
    ST_TOPIC_WILDCARD,
    status_error,
)
from mqttcore.codec.wire cimport ASCII_WORD, load_u64, utf8_status, zero_bytes

cdef const char* SHARE_PREFIX = b"$share/"
cdef Py_ssize_t SHARE_PREFIX_SIZE = 7


cdef int check_utf8(const uint8_t* text, Py_ssize_t size) noexcept nogil:
    return utf8_status(text, size)


cdef int check_topic_name(const uint8_t* topic, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef uint64_t word
    if size == 0:
        return ST_TOPIC_EMPTY
    while i + ASCII_WORD <= size:
        word = load_u64(topic + i)
        # ASCII without NUL, '#' and '+'
        if ((word & 0x8080808080808080ULL) | zero_bytes(word) | zero_bytes(word ^ 0x2323232323232323ULL)
                | zero_bytes(word ^ 0x2B2B2B2B2B2B2B2BULL)) != 0:
            break
        i += ASCII_WORD
    while i < size:
        # in UTF-8 no byte of a longer sequence is below 0x80, so bytes are enough to find wildcards
        if topic[i] == c'#' or topic[i] == c'+':
            return ST_TOPIC_WILDCARD
        if topic[i] == 0 or topic[i] >= 0x80:
            break
        i += 1
    if i == size:
        return ST_OK
    if memchr(topic + i, c'#', size - i) != NULL or memchr(topic + i, c'+', size - i) != NULL:
        return ST_TOPIC_WILDCARD
    return utf8_status(topic + i, size - i)


cdef bint is_shared_filter(const uint8_t* topic_filter, Py_ssize_t size) noexcept nogil:
    return size >= SHARE_PREFIX_SIZE and memcmp(topic_filter, SHARE_PREFIX, SHARE_PREFIX_SIZE) == 0


cdef int check_topic_filter(const uint8_t* topic_filter, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i, start = 0
    cdef uint8_t byte
    cdef bint starts_level, ends_level
    cdef int status
    if size == 0:
        return ST_FILTER_EMPTY
    status = utf8_status(topic_filter, size)
    if status != ST_OK:
        return status
    if is_shared_filter(topic_filter, size):
        i = SHARE_PREFIX_SIZE
        while i < size and topic_filter[i] != c'/':
            if topic_filter[i] == c'#' or topic_filter[i] == c'+':
                return ST_SHARE_NAME
            i += 1
        if i == SHARE_PREFIX_SIZE:
            return ST_SHARE_NAME
        start = i + 1
        if start >= size:
            return ST_SHARE_FILTER
    for i in range(start, size):
        byte = topic_filter[i]
        if byte == c'+' or byte == c'#':
            starts_level = i == start or topic_filter[i - 1] == c'/'
            ends_level = i + 1 == size or topic_filter[i + 1] == c'/'
            if byte == c'+':
                if not (starts_level and ends_level):
                    return ST_FILTER_PLUS
            elif not starts_level or i + 1 != size:
                return ST_FILTER_HASH
    return ST_OK


# --- Python face ------------------------------------------------------------------------------------------------------

def require_topic_name(str topic not None):
    """Raise ProtocolError (0x81, 0x82 or 0x90) unless *topic* is a Topic Name (MQTT 5 §4.7)."""
    cdef bytes encoded = topic.encode("utf-8", "surrogatepass")
    cdef int status = check_topic_name(encoded, len(encoded))
    if status != ST_OK:
        raise status_error(status)


def require_topic_filter(str topic_filter not None):
    """Raise ProtocolError (0x81 or 0x8F) unless *topic_filter* is a Topic Filter, shared or not (MQTT 5 §4.7, §4.8.2)."""
    cdef bytes encoded = topic_filter.encode("utf-8", "surrogatepass")
    cdef int status = check_topic_filter(encoded, len(encoded))
    if status != ST_OK:
        raise status_error(status)
