# Topic levels and their seeded hash, for the trees of subscriptions and of retained messages.
#
# The hash reads 16 bytes a step and mixes them by multiplication. Every operand of a multiplication is blinded by a
# random word of the process, so nobody outside can choose topics that collide (nor null one factor to erase the rest).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(_MSC_VER) && defined(_M_X64)
    #include <intrin.h>
    #endif

    /* Both halves of the 128-bit product, folded by xor. */
    static inline uint64_t mqttcore_fold(uint64_t a, uint64_t b) {
    #if defined(__SIZEOF_INT128__)
        __extension__ typedef unsigned __int128 mqttcore_wide;
        mqttcore_wide product = (mqttcore_wide)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    #elif defined(_MSC_VER) && defined(_M_X64)
        uint64_t high;
        uint64_t low = _umul128(a, b, &high);
        return low ^ high;
    #else
        uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
        uint64_t low = a0 * b0, middle = a1 * b0 + (low >> 32);
        uint64_t cross = a0 * b1 + (uint32_t)middle;
        uint64_t high = a1 * b1 + (middle >> 32) + (cross >> 32);
        return ((cross << 32) | (uint32_t)low) ^ high;
    #endif
    }

    static inline uint64_t mqttcore_load64(const uint8_t* p) {
        uint64_t word;
        memcpy(&word, p, 8);
        return word;
    }

    static inline uint32_t mqttcore_load32(const uint8_t* p) {
        uint32_t word;
        memcpy(&word, p, 4);
        return word;
    }
    """
    uint64_t fold64 "mqttcore_fold"(uint64_t a, uint64_t b) noexcept nogil
    uint64_t load64 "mqttcore_load64"(const uint8_t* p) noexcept nogil
    uint32_t load32 "mqttcore_load32"(const uint8_t* p) noexcept nogil


cdef enum:
    TOPIC_MAXIMUM = 65535         # bytes of a Topic Name or Topic Filter [MQTT-4.7.3-3]


# Random words of one tree, from the operating system.
cdef struct hash_key_t:
    uint64_t seed
    uint64_t left
    uint64_t right


# Hash of *size* bytes. Reads nothing outside them; size 0 is fine.
cdef inline uint64_t hash_bytes(const uint8_t* p, Py_ssize_t size, const hash_key_t* key) noexcept nogil:
    cdef uint64_t mixed = key.seed ^ <uint64_t>size, a, b
    while size > 16:
        mixed = fold64(load64(p) ^ key.left, load64(p + 8) ^ mixed)
        p += 16
        size -= 16
    if size >= 8:
        a = load64(p)
        b = load64(p + size - 8)
    elif size >= 4:
        a = load32(p)
        b = load32(p + size - 4)
    elif size > 0:
        a = p[0] | <uint32_t>p[size >> 1] << 8 | <uint32_t>p[size - 1] << 16
        b = 0
    else:
        a = b = 0
    return fold64(fold64(a ^ key.left, b ^ mixed) ^ key.seed, key.right)


# Where the level that starts at *p* ends: at its `/` or at *end*.
cdef inline const uint8_t* level_end(const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef const uint8_t* slash = <const uint8_t*>memchr(p, c"/", end - p)
    return end if slash == NULL else slash


# Levels of a topic or filter, at most *enough*: the scan stops there.
cdef inline Py_ssize_t count_levels(const uint8_t* p, Py_ssize_t size, Py_ssize_t enough) noexcept nogil:
    cdef const uint8_t* end = p + size
    cdef Py_ssize_t count = 1
    while count < enough:
        p = level_end(p, end)
        if p == end:
            break
        p += 1
        count += 1
    return count


# Whether a level is this one wildcard.
cdef inline bint is_level(const uint8_t* level, Py_ssize_t size, uint8_t wildcard) noexcept nogil:
    return size == 1 and level[0] == wildcard
