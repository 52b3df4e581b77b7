# Messages that wait for a session: a ring, oldest first.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t

from mqttcore.engine.message cimport msg_t
from mqttcore.engine.topics cimport subids_t


cdef struct entry_t:
    msg_t* message            # owned reference
    subids_t* subids          # owned reference; NULL: none
    PyObject* group           # owned reference on a ShareGroup; NULL: not shared
    int64_t since_ms          # when it was queued
    uint8_t qos               # of the delivery
    uint8_t retain            # session.IS_RETAINED and IS_DIRECT of the delivery


cdef struct queue_t:
    entry_t* ring
    uint32_t mask             # capacity - 1, when ring
    uint32_t head
    uint32_t count
    int64_t bytes             # held by the messages; a message that waits in n queues counts in each


# Takes over no reference: it adds its own.
cdef int queue_push(queue_t* q, msg_t* m, subids_t* ids, PyObject* group, uint8_t qos, uint8_t retain,
                    int64_t now_ms) except -1
# The oldest entry; borrowed until the queue changes. Only when count.
cdef inline entry_t* queue_head(queue_t* q) noexcept:
    return &q.ring[q.head]
# Removes the oldest entry and gives back what it holds.
cdef void queue_pop(queue_t* q) noexcept
cdef void queue_clear(queue_t* q) noexcept
