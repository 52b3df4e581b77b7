"""Rings of queued messages; queue.pxd describes them."""

from cpython.ref cimport Py_XDECREF, Py_XINCREF
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from mqttcore.engine.message cimport msg_bytes, msg_ref, msg_unref
from mqttcore.engine.subscriber cimport subids_ref, subids_unref

cdef enum:
    FIRST_CAPACITY = 8
    KEPT_CAPACITY = 64        # an empty ring larger than this gives its memory back


cdef int grow(queue_t* q) except -1:
    cdef uint32_t cap = (q.mask + 1) * 2 if q.ring != NULL else FIRST_CAPACITY
    cdef entry_t* ring = <entry_t*>malloc(cap * sizeof(entry_t))
    cdef uint32_t i
    if ring == NULL:
        raise MemoryError
    for i in range(q.count):
        ring[i] = q.ring[(q.head + i) & q.mask]
    free(q.ring)
    q.ring = ring
    q.mask = cap - 1
    q.head = 0
    return 0


cdef int queue_push(queue_t* q, msg_t* m, subids_t* ids, PyObject* group, uint8_t qos, uint8_t retain,
                    int64_t now_ms) except -1:
    cdef entry_t* entry
    if q.ring == NULL or q.count == q.mask + 1:
        grow(q)
    entry = &q.ring[(q.head + q.count) & q.mask]
    entry.message = msg_ref(m)
    entry.subids = subids_ref(ids)
    Py_XINCREF(group)
    entry.group = group
    entry.since_ms = now_ms
    entry.qos = qos
    entry.retain = retain
    q.count += 1
    q.bytes += msg_bytes(m)
    return 0


cdef void entry_release(queue_t* q, entry_t* entry) noexcept:
    q.bytes -= msg_bytes(entry.message)
    msg_unref(entry.message)
    subids_unref(entry.subids)
    Py_XDECREF(entry.group)


cdef void queue_pop(queue_t* q) noexcept:
    entry_release(q, &q.ring[q.head])
    q.head = (q.head + 1) & q.mask
    q.count -= 1
    if q.count == 0 and q.mask + 1 > KEPT_CAPACITY:
        free(q.ring)
        q.ring = NULL
        q.head = q.mask = 0


cdef void queue_clear(queue_t* q) noexcept:
    cdef uint32_t i
    for i in range(q.count):
        entry_release(q, &q.ring[(q.head + i) & q.mask])
    free(q.ring)
    memset(q, 0, sizeof(queue_t))
