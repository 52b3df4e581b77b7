# Messages that wait for a session: a ring, oldest first.
#
#   [ resident ... | in the store only ... ]
#
# Where there is a store, only the first entries have their messages in memory; the others have a stored_t and are paged
# in as the first ones go (Backlog.page_in).

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.engine.message cimport msg_bytes, msg_t, stored_t
from mqttcore.engine.topics cimport subids_t


cdef enum:
    IS_RETAINED = 0x01        # bits of what entries and slots have in retain: RETAIN of the delivery
    IS_DIRECT = 0x80          # the client was named as its receiver: no subscription has to allow it


cdef struct entry_t:
    msg_t* message            # owned reference; NULL: in the store only
    stored_t* stored          # owned reference; NULL: not in the store
    subids_t* subids          # owned reference; NULL: none
    PyObject* group           # owned reference on a ShareGroup; NULL: not shared
    uint64_t key              # of the entry record; 0: none
    int64_t since_ms          # when it was queued
    uint8_t qos               # of the delivery
    uint8_t retain            # IS_RETAINED and IS_DIRECT of the delivery
    uint8_t doom              # 1 + DROP_* or GIVEN_AWAY: why it is to be dropped without being sent; 0: it is not


cdef struct queue_t:
    entry_t* ring
    uint32_t mask             # capacity - 1, when ring
    uint32_t head
    uint32_t count
    uint32_t resident         # entries from the head on that have their message, or a doom
    int64_t bytes             # of the messages; a message that waits in n queues counts in each
    int64_t resident_bytes    # of those in memory


# Takes over no reference: it adds its own.
cdef entry_t* queue_push(queue_t* q, msg_t* m, subids_t* ids, PyObject* group, uint8_t qos, uint8_t retain,
                         int64_t now_ms) except NULL
# Adds an entry whose message may not be in memory. Only the key, since_ms, qos, retain, subids and group are the caller's
# to fill.
cdef entry_t* queue_push_stored(queue_t* q, stored_t* stored) except NULL
# The newest entry keeps its place in the store only; it has to have one.
cdef void queue_page_out(queue_t* q) noexcept
# Removes the entries that have a doom; stored_unref() and such of theirs are done. Visits all.
cdef void queue_sweep(queue_t* q) noexcept
# The first entry beyond the resident ones gets its message; NULL: the store has none.
cdef void queue_page_in(queue_t* q, msg_t* m) noexcept
# The oldest entry; borrowed until the queue changes. Only when count.
cdef inline entry_t* queue_head(queue_t* q) noexcept:
    return &q.ring[q.head]
cdef inline entry_t* queue_at(queue_t* q, uint32_t index) noexcept:
    return &q.ring[(q.head + index) & q.mask]
cdef inline int64_t entry_bytes(entry_t* entry) noexcept:
    return entry.stored.bytes if entry.stored != NULL else msg_bytes(entry.message)
# Removes the oldest entry and gives back what it holds.
cdef void queue_pop(queue_t* q) noexcept
# Moves one entry, with what it holds: the oldest or newest of a queue that has one, to the front or the end of another.
cdef int queue_move(queue_t* source, bint is_newest, queue_t* target, bint to_front) except -1
cdef void queue_clear(queue_t* q) noexcept
