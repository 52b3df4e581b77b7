"""Rings of queued messages; queue.pxd describes them."""

from cpython.ref cimport Py_XDECREF, Py_XINCREF
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from mqttcore.engine.message cimport msg_ref, msg_unref, stored_ref, stored_unref
from mqttcore.engine.subscriber cimport subids_ref, subids_unref

cdef enum:
    FIRST_CAPACITY = 8
    KEPT_CAPACITY = 64        # an empty ring larger than this gives its memory back


cdef int grow(queue_t* q) except -1:
    # realloc() moves pages, not bytes, when the ring is large; then only what was wrapped around is copied.
    cdef uint32_t old = q.mask + 1 if q.ring != NULL else 0
    cdef uint32_t capacity = old * 2 if old else FIRST_CAPACITY
    cdef entry_t* ring = <entry_t*>realloc(q.ring, capacity * sizeof(entry_t))
    if ring == NULL:
        raise MemoryError
    if q.head:
        memcpy(ring + old, ring, q.head * sizeof(entry_t))
    q.ring = ring
    q.mask = capacity - 1
    return 0


cdef entry_t* push(queue_t* q) except NULL:
    cdef entry_t* entry
    if q.ring == NULL or q.count == q.mask + 1:
        grow(q)
    entry = queue_at(q, q.count)
    memset(entry, 0, sizeof(entry_t))
    return entry


cdef entry_t* queue_push(queue_t* q, msg_t* m, subids_t* ids, PyObject* group, uint8_t qos, uint8_t retain,
                         int64_t now_ms) except NULL:
    cdef entry_t* entry = push(q)
    cdef int64_t size = msg_bytes(m)
    entry.message = msg_ref(m)
    entry.subids = subids_ref(ids)
    Py_XINCREF(group)
    entry.group = group
    entry.since_ms = now_ms
    entry.qos = qos
    entry.retain = retain
    if q.resident == q.count:
        q.resident += 1
        q.resident_bytes += size
    q.count += 1
    q.bytes += size
    return entry


cdef entry_t* queue_push_stored(queue_t* q, stored_t* stored) except NULL:
    cdef entry_t* entry = push(q)
    entry.stored = stored_ref(stored)
    q.count += 1
    q.bytes += stored.bytes
    return entry


cdef void queue_page_out(queue_t* q) noexcept:
    cdef entry_t* entry = queue_at(q, q.count - 1)
    if entry.message == NULL:
        return
    if q.resident == q.count:
        q.resident -= 1
        q.resident_bytes -= entry_bytes(entry)
    msg_unref(entry.message)
    entry.message = NULL


cdef void queue_page_in(queue_t* q, msg_t* m) noexcept:
    cdef entry_t* entry = queue_at(q, q.resident)
    if m != NULL and entry.message == NULL:
        entry.message = msg_ref(m)
    q.resident += 1
    q.resident_bytes += entry_bytes(entry)


cdef void entry_release(queue_t* q, entry_t* entry) noexcept:
    q.bytes -= entry_bytes(entry)
    if entry.message != NULL:
        msg_unref(entry.message)
    stored_unref(entry.stored)
    subids_unref(entry.subids)
    Py_XDECREF(entry.group)


cdef void queue_pop(queue_t* q) noexcept:
    cdef entry_t* entry = queue_head(q)
    if q.resident:
        q.resident -= 1
        q.resident_bytes -= entry_bytes(entry)
    entry_release(q, entry)
    q.head = (q.head + 1) & q.mask
    q.count -= 1
    shrink(q)


cdef void shrink(queue_t* q) noexcept:
    if q.count == 0 and q.mask + 1 > KEPT_CAPACITY:
        free(q.ring)
        q.ring = NULL
        q.head = q.mask = 0


cdef int queue_move(queue_t* source, bint is_newest, queue_t* target, bint to_front) except -1:
    cdef entry_t* entry
    cdef int64_t size
    cdef bint is_resident
    push(target)                  # makes room; what it may raise leaves both queues as they are
    entry = queue_at(source, source.count - 1 if is_newest else 0)
    size = entry_bytes(entry)
    is_resident = entry.message != NULL or entry.doom
    if to_front:
        target.head = (target.head - 1) & target.mask
        target.ring[target.head] = entry[0]
        if not is_resident:
            target.resident = 0   # the others come behind it
            target.resident_bytes = 0
    else:
        queue_at(target, target.count)[0] = entry[0]
        is_resident = is_resident and target.resident == target.count
    if is_resident:
        target.resident += 1
        target.resident_bytes += size
    target.count += 1
    target.bytes += size
    if source.resident and (not is_newest or source.resident == source.count):
        source.resident -= 1
        source.resident_bytes -= size
    if not is_newest:
        source.head = (source.head + 1) & source.mask
    source.count -= 1
    source.bytes -= size
    shrink(source)
    return 0


cdef void queue_sweep(queue_t* q) noexcept:
    cdef uint32_t i, kept = 0, resident = 0
    cdef entry_t* entry
    for i in range(q.count):
        entry = queue_at(q, i)
        if entry.doom:
            if i < q.resident:
                q.resident_bytes -= entry_bytes(entry)
            entry_release(q, entry)
            continue
        resident += i < q.resident
        if kept != i:
            queue_at(q, kept)[0] = entry[0]
        kept += 1
    q.count = kept
    q.resident = resident


cdef void queue_clear(queue_t* q) noexcept:
    cdef uint32_t i
    for i in range(q.count):
        entry_release(q, queue_at(q, i))
    free(q.ring)
    memset(q, 0, sizeof(queue_t))
