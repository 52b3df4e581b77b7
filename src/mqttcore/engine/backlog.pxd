# Messages that wait for a client: the queues of a session, their bounds, and their pages in the store.
#
# QoS 0 has a queue of its own: it waits only for the connection's buffer, never for the window.
#
# kept_back: what had been queued when the client came back, where a service lets it go in its own time (kept_back.pxd).
#
# Of a long queue of a durable session only the first messages are in memory; the others are paged in as those go.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from mqttcore.engine.message cimport pub_t
from mqttcore.engine.queue cimport entry_t, queue_t
from mqttcore.engine.session_record cimport SessionRecord
from mqttcore.engine.subscriber cimport subids_t, target_t


cdef class Backlog(SessionRecord):
    cdef queue_t queue                # QoS 1 and 2 that wait for the window
    cdef queue_t queue_qos0           # QoS 0 that waits for the connection's buffer
    cdef queue_t* kept_back           # QoS 1 and 2 that wait to be let go; NULL: none, so it is without a connection
    cdef uint8_t is_paging            # asked for messages of its queue
    cdef uint8_t is_ranked            # stands in Engine.ranking
    cdef uint8_t is_stalled           # publishers waited for it in vain: no more until it acknowledges something

    # True while anything waits to be sent, kept back or not.
    cdef bint has_queued(self) noexcept
    cdef int64_t kept_back_count(self) noexcept
    cdef int64_t oldest_ms(self) noexcept
    # Of the queues for QoS 1 and 2, the one whose head came first; NULL: both are empty.
    cdef queue_t* oldest_queue(self) noexcept
    cdef bint is_too_old(self, entry_t* entry) noexcept
    # True when the queue holds more than 1 - 1/n of what it may.
    cdef bint is_congested(self, uint32_t n) noexcept
    cdef bint is_over_limit(self, int64_t size) noexcept
    # Bounds of the queue: the broker's, or the identity's where that is less.
    cdef uint32_t queued_messages_maximum(self) noexcept
    cdef int64_t queued_bytes_maximum(self) noexcept
    cdef int enqueue(self, pub_t* pub, uint8_t qos, uint8_t retain, target_t* target, subids_t* ids) except -1
    cdef void queue_bytes(self, int64_t before_bytes, int64_t before_count) noexcept
    # Drops the oldest message of the queues.
    cdef int drop_head(self, int reason) except -1
    cdef int drop_head_of(self, queue_t* queue, int reason) except -1
    cdef int keep_entry(self, entry_t* entry) except -1
    cdef int page_ahead(self, queue_t* queue) except -1
    # Packed keys of messages that are to be paged in next, b"" for none; page_in() ends it.
    cdef bytes page_keys(self)
    # messages: key -> Message of what the store had. False: the rest is not yet safe, ask again when it is.
    cdef bint page_in(self, dict messages) except -1
