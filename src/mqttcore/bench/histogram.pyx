"""Distribution of latencies at constant memory and a few instructions a value."""

from libc.stdint cimport uint64_t
from libc.string cimport memset


cdef class Histogram:
    """Counts of non-negative integers (nanoseconds here), exact below 64 and to 1/64 above."""

    def add(self, int64_t value):
        """Count *value*; negative ones count as 0."""
        self.note(value)

    def clear(self):
        """Forget everything."""
        memset(self.counts, 0, sizeof(self.counts))

    @property
    def count(self):
        """How many values were counted."""
        cdef uint64_t total = 0
        for i in range(BUCKETS):
            total += self.counts[i]
        return total

    def percentile(self, double share):
        """Return the smallest bucket's middle below or in which *share* (0 < share <= 1) of all values lie; 0 if empty."""
        cdef uint64_t passed = 0
        cdef int i, shift
        cdef double wanted = share * self.count
        if not 0 < share <= 1:
            raise ValueError("share is not in 0 … 1")
        for i in range(BUCKETS):
            passed += self.counts[i]
            if passed and passed >= wanted:
                if i < FINE:
                    return i
                shift = (i >> FINE_BITS) - 1
                return (<uint64_t>(FINE + (i & (FINE - 1))) << shift) + ((<uint64_t>1 << shift) >> 1)
        return 0
