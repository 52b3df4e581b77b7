"""Rings of what is held back; holds.pxd describes them."""

from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cdef enum:
    FIRST_CAPACITY = 8


cdef int grow(holds_t* holds) except -1:
    cdef uint32_t capacity = (holds.mask + 1) * 2 if holds.ring != NULL else FIRST_CAPACITY
    cdef held_t* ring = <held_t*>malloc(capacity * sizeof(held_t))
    cdef uint32_t i
    if ring == NULL:
        raise MemoryError
    for i in range(holds.count):
        ring[i] = holds.ring[(holds.head + i) & holds.mask]
    free(holds.ring)
    holds.ring = ring
    holds.mask = capacity - 1
    holds.head = 0
    return 0


cdef int holds_push(holds_t* holds, uint64_t batch, bytes packet, uint8_t first, uint16_t packet_id,
                    uint8_t reason_code) except -1:
    cdef held_t* held
    if holds.ring == NULL or holds.count == holds.mask + 1:
        grow(holds)
    held = &holds.ring[(holds.head + holds.count) & holds.mask]
    held.batch = batch
    held.packet = NULL
    if packet is not None:
        Py_INCREF(packet)
        held.packet = <PyObject*>packet
    held.packet_id = packet_id
    held.first = first
    held.reason_code = reason_code
    holds.count += 1
    return 0


cdef held_t holds_pop(holds_t* holds) noexcept:
    cdef held_t held = holds.ring[holds.head]
    holds.head = (holds.head + 1) & holds.mask
    holds.count -= 1
    if holds.count == 0 and holds.mask + 1 > FIRST_CAPACITY:      # an idle connection holds none
        free(holds.ring)
        memset(holds, 0, sizeof(holds_t))
    return held


cdef void holds_clear(holds_t* holds) noexcept:
    cdef uint32_t i
    for i in range(holds.count):
        Py_XDECREF(holds.ring[(holds.head + i) & holds.mask].packet)
    free(holds.ring)
    memset(holds, 0, sizeof(holds_t))
