# Latencies in buckets that are at most 1/64 of their value wide: 30 KiB for every time a 64-bit counter can hold.

cimport cython
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil


cdef enum:
    FINE_BITS = 6
    FINE = 64                           # buckets per power of two
    BUCKETS = 3776                      # (64 - FINE_BITS) * FINE + FINE


cdef inline int bucket_of(uint64_t value) noexcept nogil:
    cdef int shift
    if value < FINE:
        return <int>value
    shift = 63 - FINE_BITS - __builtin_clzll(value)
    return ((shift + 1) << FINE_BITS) + <int>((value >> shift) & (FINE - 1))


@cython.final
cdef class Histogram:
    cdef uint64_t counts[BUCKETS]

    cdef inline void note(self, int64_t value) noexcept nogil:
        # Negative times (clocks of two processes) count as 0.
        self.counts[bucket_of(<uint64_t>value if value > 0 else 0)] += 1
