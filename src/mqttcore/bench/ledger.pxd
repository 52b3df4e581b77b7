# What arrived: one flow per (subscriber, publisher), one bit per sequence number, so the verdict is exact.

cimport cython
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset


cdef struct flow_t:
    uint64_t* seen          # bit n: message n of the publisher arrived; owned
    uint64_t capacity       # of seen, in bits
    uint64_t next           # highest number that arrived, plus 1
    uint64_t received       # different messages
    uint64_t duplicated     # arrivals of a message that had arrived before
    uint64_t reordered      # first arrivals after a later message of the same publisher


cdef inline int flow_grow(flow_t* flow, uint64_t number) noexcept nogil:
    cdef uint64_t capacity = flow.capacity if flow.capacity else 1024
    cdef uint64_t* seen
    while capacity <= number:
        capacity *= 2
    seen = <uint64_t*>realloc(flow.seen, capacity // 8)
    if seen == NULL:
        return -1
    memset(seen + flow.capacity // 64, 0, (capacity - flow.capacity) // 8)
    flow.seen = seen
    flow.capacity = capacity
    return 0


# 1: the first time that message *number* arrived, 0: it had arrived before, -1: no memory. The caller has checked that
# *number* was ever sent, so that a wrong one can't make this grow without bounds.
cdef inline int flow_note(flow_t* flow, uint64_t number) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << (number & 63)
    if number >= flow.capacity and flow_grow(flow, number) < 0:
        return -1
    if flow.seen[number >> 6] & bit:
        flow.duplicated += 1
        return 0
    flow.seen[number >> 6] |= bit
    flow.received += 1
    if number >= flow.next:
        flow.next = number + 1
    else:
        flow.reordered += 1
    return 1


@cython.final
cdef class Ledger:
    cdef flow_t* flows
    cdef readonly Py_ssize_t flow_count

    cdef flow_t* at(self, Py_ssize_t flow) except NULL
