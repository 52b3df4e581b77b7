"""What is kept back of a queue until it is let go; kept_back.pxd says for whom."""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from mqttcore.engine.core cimport DROP_EXPIRED, DROP_NOT_AUTHORIZED, GIVEN_AWAY
from mqttcore.engine.message cimport msg_ref, msg_t, msg_unref
from mqttcore.engine.queue cimport (
    IS_DIRECT, entry_bytes, entry_t, queue_at, queue_clear, queue_head, queue_move, queue_page_out, queue_t,
)


cdef void doom_newest(Backlog session, entry_t* entry, int reason) noexcept:
    # The newest entry of the queue is to be dropped: it need not be in memory for that.
    entry.doom = 1 + reason
    if session.queue.resident == session.queue.count - 1:
        session.queue.resident += 1
        session.queue.resident_bytes += entry_bytes(entry)


cdef int keep_back(Backlog session) except -1:
    take_back(session)
    session.kept_back = <queue_t*>calloc(1, sizeof(queue_t))
    if session.kept_back == NULL:
        raise MemoryError
    session.kept_back[0] = session.queue
    memset(&session.queue, 0, sizeof(queue_t))
    session.core.counters.kept_back += session.kept_back.count
    return 0


cdef int64_t let_go(Backlog session, int64_t count, bint newest_first, int64_t age_maximum_ms) except -1:
    cdef int64_t released = 0
    cdef entry_t* entry
    cdef msg_t* m
    cdef object group
    while released < count and session.kept_back_count():
        queue_move(session.kept_back, newest_first, &session.queue, False)
        session.core.counters.kept_back -= 1
        entry = queue_at(&session.queue, session.queue.count - 1)
        m = entry.message
        if age_maximum_ms and session.core.now_ms - entry.since_ms >= age_maximum_ms or session.is_too_old(entry):
            doom_newest(session, entry, DROP_EXPIRED)
        elif m != NULL and not entry.retain & IS_DIRECT and session.readable_qos(m.data, m.topic_size) < 0:
            # Rights are asked now, not on taking the identity: they may have come only after CONNECT.
            group = <object>entry.group if entry.group != NULL else None
            doom_newest(session, entry, DROP_NOT_AUTHORIZED if group is None else GIVEN_AWAY)
            if group is not None:
                msg_ref(m)                # the queue may be another one when it was given away
                try:
                    if not session.core.redistribute(m, group, session):
                        session.count_drop_of(DROP_NOT_AUTHORIZED, m)
                finally:
                    msg_unref(m)
        else:
            released += 1                 # what is in the store alone is looked at when it comes from there
    if session.kept_back != NULL and session.kept_back.count == 0:
        take_back(session)
    return released


cdef int take_back(Backlog session) except -1:
    cdef queue_t behind
    cdef entry_t* entry
    if session.kept_back == NULL:
        return 0
    memset(&behind, 0, sizeof(queue_t))
    session.core.counters.kept_back -= session.kept_back.count
    if session.kept_back.count:
        # [ let go, not sent | kept back | came since ]; both ends are short.
        while session.queue.count and (
            queue_at(&session.queue, session.queue.count - 1).since_ms > queue_head(session.kept_back).since_ms
        ):
            queue_move(&session.queue, True, &behind, True)
        while session.queue.count:
            queue_move(&session.queue, True, session.kept_back, True)
        while behind.count:
            queue_move(&behind, False, session.kept_back, False)
            entry = queue_at(session.kept_back, session.kept_back.count - 1)
            if session.kept_back.resident < session.kept_back.count and entry.stored != NULL and entry.key:
                queue_page_out(session.kept_back)
        queue_clear(&behind)
        queue_clear(&session.queue)
        session.queue = session.kept_back[0]
    else:
        queue_clear(session.kept_back)
    free(session.kept_back)
    session.kept_back = NULL
    return 0
