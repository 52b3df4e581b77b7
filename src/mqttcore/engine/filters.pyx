"""How Topic Filters lie to topics and to each other; filters.pxd describes it."""

from libc.string cimport memcmp

from mqttcore.codec.names cimport is_shared_filter
from mqttcore.engine.levels cimport is_level, level_end

cdef enum:
    SHARE_PREFIX = 7          # bytes of `$share/`


cdef inline bint is_wild(uint8_t first) noexcept nogil:
    return first == c"+" or first == c"#"


cdef inline bint is_rest(const uint8_t* p, const uint8_t* end) noexcept nogil:
    # Whether `/#` is all that is left: then the filter matches what is above it, too.
    return end - p == 2 and p[0] == c"/" and p[1] == c"#"


cdef bint filter_matches(const uint8_t* topic_filter, Py_ssize_t filter_size,
                         const uint8_t* topic, Py_ssize_t topic_size) noexcept nogil:
    cdef const uint8_t* p = topic_filter
    cdef const uint8_t* end = topic_filter + filter_size
    cdef const uint8_t* t = topic
    cdef const uint8_t* topic_end = topic + topic_size
    if topic_size and filter_size and topic[0] == c"$" and is_wild(topic_filter[0]):
        return False
    while p < end:
        if p[0] == c"#":
            return True
        if p[0] == c"+":
            t = level_end(t, topic_end)
        elif t == topic_end:
            return is_rest(p, end)
        elif p[0] != t[0]:
            return False
        else:
            t += 1
        p += 1
    return t == topic_end


cdef bint filter_covers(const uint8_t* wide, Py_ssize_t wide_size,
                        const uint8_t* narrow, Py_ssize_t narrow_size) noexcept nogil:
    cdef const uint8_t* wide_end = wide + wide_size
    cdef const uint8_t* narrow_end = narrow + narrow_size
    cdef const uint8_t* w
    cdef const uint8_t* n
    if narrow_size and wide_size and narrow[0] == c"$" and is_wild(wide[0]):
        return False
    while True:
        w = level_end(wide, wide_end)
        n = level_end(narrow, narrow_end)
        if is_level(wide, w - wide, c"#"):
            return True
        if is_level(narrow, n - narrow, c"#"):
            return False
        if not is_level(wide, w - wide, c"+") and (w - wide != n - narrow or memcmp(wide, narrow, w - wide) != 0):
            return False
        if n == narrow_end:
            return w == wide_end or is_rest(w, wide_end)
        if w == wide_end:
            return False
        wide = w + 1
        narrow = n + 1


cdef bint filters_meet(const uint8_t* one, Py_ssize_t one_size,
                       const uint8_t* other, Py_ssize_t other_size) noexcept nogil:
    cdef const uint8_t* one_end = one + one_size
    cdef const uint8_t* other_end = other + other_size
    cdef const uint8_t* a
    cdef const uint8_t* b
    if one_size and other_size and (
        (one[0] == c"$" and is_wild(other[0])) or (other[0] == c"$" and is_wild(one[0]))
    ):
        return False
    while True:
        a = level_end(one, one_end)
        b = level_end(other, other_end)
        if is_level(one, a - one, c"#") or is_level(other, b - other, c"#"):
            return True
        if (
            not is_level(one, a - one, c"+") and not is_level(other, b - other, c"+")
            and (a - one != b - other or memcmp(one, other, a - one) != 0)
        ):
            return False
        if a == one_end:
            return b == other_end or is_rest(b, other_end)
        if b == other_end:
            return is_rest(a, one_end)
        one = a + 1
        other = b + 1


cdef Py_ssize_t share_prefix_size(const uint8_t* topic_filter, Py_ssize_t size) noexcept nogil:
    cdef const uint8_t* end = topic_filter + size
    if not is_shared_filter(topic_filter, size):
        return 0
    return min(size, level_end(topic_filter + SHARE_PREFIX, end) + 1 - topic_filter)
