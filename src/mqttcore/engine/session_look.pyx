"""What waits for a client and what is on its way to it, a page at a time, read without touching anything.

    kept back  ->  queue of QoS 1 and 2  ->  queue of QoS 0        the parts, in this order
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint16_t, uint32_t
from libc.stdlib cimport free

from mqttcore.engine.message cimport Message, msg_bytes, msg_t, stored_t
from mqttcore.engine.queue cimport IS_RETAINED, entry_bytes, entry_t, queue_at, queue_t
from mqttcore.engine.session cimport Session
from mqttcore.engine.window cimport (
    AWAIT_PUBACK, AWAIT_PUBREC, slot_t, window_find, window_in_order, window_t,
)


cdef enum:
    PART_KEPT_BACK = 0
    PART_QUEUE = 1
    PART_QUEUE_QOS0 = 2
    PARTS = 3


cdef queue_t* part_of(Session session, int part) noexcept:
    if part == PART_KEPT_BACK:
        return session.kept_back
    return &session.queue if part == PART_QUEUE else &session.queue_qos0


cdef uint32_t same_ms(queue_t* q, uint32_t index) noexcept:
    """Return how many entries from *index* on came in the same millisecond as it did."""
    cdef int64_t since_ms = queue_at(q, index).since_ms
    cdef uint32_t end = index + 1
    while end < q.count and queue_at(q, end).since_ms == since_ms:
        end += 1
    return end - index


cdef uint32_t place_of(queue_t* q, int64_t since_ms, uint32_t left) noexcept:
    """Return where to go on: at the last *left* entries of that millisecond, or at what came after it."""
    cdef uint32_t index = 0, count
    while index < q.count and queue_at(q, index).since_ms < since_ms:
        index += 1
    if index < q.count and queue_at(q, index).since_ms == since_ms:
        count = same_ms(q, index)
        index += count - min(left, count)
    return index


def queued_from(
    Session session not None, tuple place, Py_ssize_t limit, int64_t stored_bytes_maximum=INT64_MAX
) -> tuple:
    """Return (rows, place of the next page).

    place: three numbers; None at the beginning and at the end. A row is (part, since_ms, qos, retain, Message or key, bytes,
    expires_ms): part 0 is kept back, 1 of QoS 1 and 2, 2 of QoS 0; since_ms: when it was queued, on the engine's clock;
    qos and retain: of the delivery; key: of a message that is in the store only; bytes: what it counts to limits;
    expires_ms: on the engine's clock, 0: never. What is to be dropped without being sent is left out. Messages that are
    in the store only, but for the first, end the page when they would be more than stored_bytes_maximum.

    A queue moves at its ends: what was shown and went, and what came behind, put no page out of step. Looks at every
    entry before the place.
    """
    cdef list rows = []
    cdef queue_t* q
    cdef entry_t* entry
    cdef msg_t* m
    cdef uint32_t index, left = 0
    cdef int part = 0
    cdef int64_t since_ms = INT64_MIN         # what was restored may be from before the engine's clock began
    cdef int64_t stored_bytes = 0
    if place is not None:
        part, since_ms, left = place
    while 0 <= part < PARTS:
        q = part_of(session, part)
        index = place_of(q, since_ms, left) if q != NULL else 0
        while True:
            q = part_of(session, part)        # making the row before may have run a finalizer that changed the session
            if q == NULL or index >= q.count:
                break
            entry = queue_at(q, index)
            if not entry.doom:
                m = entry.message if entry.message != NULL else entry.stored.message
                if m == NULL:
                    stored_bytes += entry_bytes(entry)
                if len(rows) >= limit or (
                    m == NULL and stored_bytes > stored_bytes_maximum and stored_bytes > entry_bytes(entry)
                ):
                    return rows, (part, entry.since_ms, same_ms(q, index))
                rows.append((
                    part, entry.since_ms, entry.qos, entry.retain & IS_RETAINED != 0,
                    entry.stored.key if m == NULL else Message.new(m), entry_bytes(entry),
                    m.expires_ms if m != NULL else entry.stored.expires_ms,
                ))
            index += 1
        part += 1
        since_ms = INT64_MIN
        left = 0
    return rows, None


def in_flight_from(Session session not None, int64_t after, Py_ssize_t limit) -> tuple:
    """Return (rows, after of the next page or None at the end) of what was sent and is not completed, in that order.

    after: -1 at first. A row is (packet id, `PUBACK`, `PUBREC` or `PUBCOMP`: what is awaited, retain, Message or None,
    bytes, expires_ms); there is no message any more when PUBCOMP is awaited.
    """
    cdef list rows = []
    cdef window_t* window = &session.sent
    cdef slot_t* slot
    cdef uint32_t index, last = 0
    cdef uint32_t count = window.count
    cdef uint16_t* ids = window_in_order(window)
    try:
        for index in range(count):
            slot = window_find(window, ids[index])
            if slot == NULL:                  # as above
                continue
            # Differences, not values, are compared: numbers wrap.
            if after >= 0 and slot.seq - <uint32_t>after - 1 > 0x7FFFFFFF:
                continue
            if len(rows) >= limit:
                return rows, last
            last = slot.seq
            rows.append(in_flight_row(slot))
        return rows, None
    finally:
        free(ids)


cdef tuple in_flight_row(slot_t* slot):
    cdef msg_t* m = slot.message
    cdef stored_t* stored = slot.stored
    cdef str awaited
    cdef int64_t size = 0, expires_ms = 0
    if m == NULL and stored != NULL:
        m = stored.message
    if slot.state == AWAIT_PUBACK:
        awaited = "PUBACK"
    else:
        awaited = "PUBREC" if slot.state == AWAIT_PUBREC else "PUBCOMP"
    if m != NULL:
        size, expires_ms = msg_bytes(m), m.expires_ms
    elif stored != NULL:
        size, expires_ms = stored.bytes, stored.expires_ms
    return (
        slot.packet_id, awaited, slot.retain & IS_RETAINED != 0, None if m == NULL else Message.new(m), size, expires_ms,
    )


def awaiting_release_ids(Session session not None) -> list:
    """Return the packet ids of QoS 2 messages that came from the client and wait for PUBREL, sorted; 65535 at most."""
    cdef window_t* window = &session.received
    cdef uint32_t index
    if window.slots == NULL:
        return []
    return sorted([
        window.slots[index].packet_id for index in range(window.mask + 1) if window.slots[index].packet_id
    ])
