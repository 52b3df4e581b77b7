# What a connection holds back until the store is as far: a ring, in the order in which it is to leave.

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef struct held_t:
    uint64_t batch            # leaves when this one is safe
    PyObject* packet          # bytes of a whole packet, owned; NULL: made of what follows
    uint16_t packet_id
    uint8_t first             # PUBACK … PUBCOMP with flags; PUBLISH: the message of the slot of packet_id
    uint8_t reason_code


cdef struct holds_t:
    held_t* ring
    uint32_t mask             # capacity - 1, when ring
    uint32_t head
    uint32_t count


cdef int holds_push(holds_t* holds, uint64_t batch, bytes packet, uint8_t first, uint16_t packet_id,
                    uint8_t reason_code) except -1
cdef inline held_t* holds_head(holds_t* holds) noexcept:
    return &holds.ring[holds.head]
# Takes the first one off. Its packet stays owned by who took it.
cdef held_t holds_pop(holds_t* holds) noexcept
cdef void holds_clear(holds_t* holds) noexcept
