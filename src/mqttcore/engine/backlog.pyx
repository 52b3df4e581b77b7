"""Messages that wait for a client: room for one more, what is dropped for it, and what is in the store alone."""

from cpython.ref cimport PyObject
from libc.stdlib cimport free

from mqttcore.engine.core cimport (
    DROP_EXPIRED,
    DROP_LOST,
    DROP_NOT_AUTHORIZED,
    DROP_QUEUE_FULL,
    DROP_SLOW_READER,
    DROP_TOTAL_FULL,
    GIVEN_AWAY,
)
from mqttcore.engine.journal cimport Journal
from mqttcore.engine.message cimport TRACED_TOPIC, Message, msg_bytes, msg_ref, msg_t, msg_unref, pub_keep, stored_ref
from mqttcore.engine.queue cimport (
    IS_DIRECT, queue_at, queue_clear, queue_head, queue_page_in, queue_page_out, queue_pop, queue_push,
)
from mqttcore.engine.share cimport ShareGroup

import array

cdef enum:
    PAGE_MESSAGES = 512       # paged in at a time


cdef class Backlog(SessionRecord):
    """Base of Session: its queues and their bounds."""

    def __dealloc__(self):
        queue_clear(&self.queue)
        queue_clear(&self.queue_qos0)
        if self.kept_back != NULL:
            queue_clear(self.kept_back)
            free(self.kept_back)

    @property
    def queued(self) -> int:
        """Messages waiting to be sent."""
        return self.queue.count + self.queue_qos0.count + self.kept_back_count()

    @property
    def queued_bytes_held(self) -> int:
        """Bytes of the messages waiting to be sent."""
        return self.queue.bytes + self.queue_qos0.bytes + (self.kept_back.bytes if self.kept_back != NULL else 0)

    cdef bint has_queued(self) noexcept:
        return self.queue.count or self.queue_qos0.count or self.kept_back_count()

    cdef int64_t kept_back_count(self) noexcept:
        return self.kept_back.count if self.kept_back != NULL else 0

    cdef int64_t oldest_ms(self) noexcept:
        # When the oldest message in the queues came; only when there is one.
        cdef queue_t* oldest = self.oldest_queue()
        if oldest == NULL:
            return queue_head(&self.queue_qos0).since_ms
        if self.queue_qos0.count == 0:
            return queue_head(oldest).since_ms
        return min(queue_head(oldest).since_ms, queue_head(&self.queue_qos0).since_ms)

    cdef queue_t* oldest_queue(self) noexcept:
        if self.kept_back != NULL and self.kept_back.count and (
            self.queue.count == 0 or queue_head(self.kept_back).since_ms <= queue_head(&self.queue).since_ms
        ):
            return self.kept_back
        return &self.queue if self.queue.count else NULL

    cdef bint is_too_old(self, entry_t* entry) noexcept:
        cdef int64_t expires_ms = entry.message.expires_ms if entry.message != NULL else entry.stored.expires_ms
        return (expires_ms and expires_ms <= self.core.now_ms) or (
            self.core.limits.queued_age_maximum_ms != 0
            and self.core.now_ms - entry.since_ms >= self.core.limits.queued_age_maximum_ms
        )

    cdef bint is_congested(self, uint32_t n) noexcept:
        return (
            <int64_t>self.queue.count * n > <int64_t>self.queued_messages_maximum() * (n - 1)
            or self.queue.bytes * n > self.queued_bytes_maximum() * (n - 1)
        )

    cdef bint is_over_limit(self, int64_t size) noexcept:
        # Whether one more message of this size is too much for the queues.
        cdef int64_t count = <int64_t>self.queue.count + self.queue_qos0.count
        size += self.queue.bytes + self.queue_qos0.bytes
        if self.kept_back != NULL:
            count += self.kept_back.count
            size += self.kept_back.bytes
        return count >= <int64_t>self.queued_messages_maximum() or size > self.queued_bytes_maximum()

    cdef uint32_t queued_messages_maximum(self) noexcept:
        cdef uint32_t maximum = self.core.limits.queued_messages_maximum
        return maximum if self.rights is None else min(maximum, self.rights.queued_messages_maximum)

    cdef int64_t queued_bytes_maximum(self) noexcept:
        cdef int64_t maximum = self.core.limits.queued_bytes_maximum
        return maximum if self.rights is None else min(maximum, self.rights.queued_bytes_maximum)

    # --- in and out -----------------------------------------------------------------------------------------------

    cdef int enqueue(self, pub_t* pub, uint8_t qos, uint8_t retain, target_t* target, subids_t* ids) except -1:
        cdef int64_t before_bytes, before_count
        cdef int64_t bytes_maximum = self.queued_bytes_maximum()
        cdef int64_t size
        cdef queue_t* oldest
        cdef entry_t* entry
        cdef msg_t* m
        if self.has_ended:
            return 0
        if self.core.is_memory_full:
            self.core.congested = <PyObject*>self
        m = pub_keep(pub)
        size = msg_bytes(m)
        if size > bytes_maximum:
            self.count_drop(DROP_QUEUE_FULL if qos else DROP_SLOW_READER, 1, pub)     # nothing makes room for it
            return 0
        if size > self.core.limits.queued_total_bytes_maximum:
            self.count_drop(DROP_TOTAL_FULL, 1, pub)
            return 0
        # Nobody may ever come for them: what is too old goes when something new arrives.
        while True:
            oldest = self.oldest_queue()
            if oldest == NULL or not self.is_too_old(queue_head(oldest)):
                break
            self.drop_head_of(oldest, DROP_EXPIRED)
        # Room is made by dropping QoS 0 first, then by the policy (DESIGN §4).
        while self.is_over_limit(size):
            if self.queue_qos0.count:
                self.drop_head_of(&self.queue_qos0, DROP_SLOW_READER)
            elif qos == 0:
                self.count_drop(DROP_SLOW_READER, 1, pub)
                return 0
            elif self.core.limits.queue_drop_newest or self.oldest_queue() == NULL:
                self.count_drop(DROP_QUEUE_FULL, 1, pub)
                return 0
            else:
                self.drop_head_of(self.oldest_queue(), DROP_QUEUE_FULL)
        while self.core.counters.queued_bytes + size > self.core.limits.queued_total_bytes_maximum:
            if not self.core.drop_oldest():
                self.count_drop(DROP_TOTAL_FULL, 1, pub)  # what is there goes by itself: it is of sessions that ended
                return 0
        before_bytes = self.queue.bytes + self.queue_qos0.bytes
        before_count = <int64_t>self.queue.count + self.queue_qos0.count
        entry = queue_push(
            &self.queue_qos0 if qos == 0 else &self.queue, m, ids, target.group, qos, retain, self.core.now_ms
        )
        self.queue_bytes(before_bytes, before_count)
        if before_count == 0 and not self.is_ranked:
            self.core.queue_began(self)
        if qos and self.number:
            self.keep_entry(entry)
        if self.traced | (pub.traced & TRACED_TOPIC):
            self.core.tracer.queued(self, pub, qos)
        if qos and self.link is not None and not self.is_stalled and self.is_congested(4):
            self.core.congested = <PyObject*>self
        return 0

    cdef void queue_bytes(self, int64_t before_bytes, int64_t before_count) noexcept:
        self.core.counters.queued += <int64_t>self.queue.count + self.queue_qos0.count - before_count
        self.core.counters.queued_bytes += self.queue.bytes + self.queue_qos0.bytes - before_bytes

    cdef int drop_head(self, int reason) except -1:
        cdef queue_t* oldest = self.oldest_queue()
        if oldest != NULL and queue_head(oldest).since_ms == self.oldest_ms():
            return self.drop_head_of(oldest, reason)
        return self.drop_head_of(&self.queue_qos0, reason)

    cdef int pop_head(self, queue_t* queue) except -1:
        cdef int64_t before_bytes = queue.bytes
        cdef entry_t* entry = queue_head(queue)
        self.forget(entry.key, entry.stored)
        queue_pop(queue)
        self.core.counters.queued -= 1
        self.core.counters.queued_bytes += queue.bytes - before_bytes
        if queue == self.kept_back:
            self.core.counters.kept_back -= 1
        return 0

    cdef int drop_head_of(self, queue_t* queue, int reason) except -1:
        cdef entry_t* entry = queue_head(queue)
        cdef msg_t* m = entry.message if entry.message == NULL else msg_ref(entry.message)
        self.pop_head(queue)
        self.count_drop_of(reason, m)
        if m != NULL:
            msg_unref(m)
        return 0

    # --- in the store ---------------------------------------------------------------------------------------------

    cdef int keep_entry(self, entry_t* entry) except -1:
        cdef Journal journal = self.core.journal
        if journal is None:
            return 0
        entry.stored = stored_ref(journal.store(entry.message))
        entry.key = journal.put_entry(
            self.number, entry.stored.key, entry.since_ms, 0, 0, entry.qos, entry.retain, entry.subids,
            (<ShareGroup>entry.group).whole_filter() if entry.group != NULL else None,
        )
        if (
            self.queue.resident < self.queue.count
            or self.queue.count > self.core.limits.queued_resident_messages
            or self.queue.resident_bytes > self.core.limits.queued_resident_bytes
        ):
            queue_page_out(&self.queue)
            self.core.counters.paged_out += 1
        return 0

    cdef int page_ahead(self, queue_t* queue) except -1:
        # Asks for what is in the store alone before the last of what is in memory is sent.
        if (
            queue.resident < queue.count and queue.resident <= self.core.limits.queued_resident_messages // 2
            and not self.is_paging and self.core.journal is not None
        ):
            self.is_paging = True
            self.core.journal.paging.append(self)
        return 0

    cdef bytes page_keys(self):
        cdef uint32_t index = self.queue.resident
        cdef int64_t size = self.queue.resident_bytes
        cdef entry_t* entry
        keys = set()
        while index < self.queue.count and len(keys) < PAGE_MESSAGES and index < self.core.limits.queued_resident_messages:
            entry = queue_at(&self.queue, index)
            if entry.message == NULL and entry.stored.message == NULL:
                size += entry.stored.bytes
                if keys and size > self.core.limits.queued_resident_bytes:
                    break
                keys.add(entry.stored.key)
            index += 1
        return array.array("Q", sorted(keys)).tobytes()

    cdef bint page_in(self, dict messages) except -1:
        cdef entry_t* entry
        cdef Message message
        cdef msg_t* m
        cdef object group
        self.is_paging = False
        while self.queue.resident < self.queue.count and self.queue.resident < self.core.limits.queued_resident_messages:
            entry = queue_at(&self.queue, self.queue.resident)
            m = entry.message if entry.message != NULL else entry.stored.message
            if m == NULL:
                if entry.stored.key not in messages:
                    break                     # not asked for
                message = messages[entry.stored.key]
                if message is None:
                    if self.core.journal.is_unsafe(entry.stored.key):
                        return False
                else:
                    m = message.ref
                    m.stored = entry.stored
                    entry.stored.message = m
                    if self.core.tracer.subjects:         # the store does not know who watches
                        m.traced = self.core.tracer.trace_of(m.data, m.topic_size)
            group = None
            if m == NULL:
                entry.doom = 1 + DROP_LOST
            elif entry.message == NULL and not entry.retain & IS_DIRECT and self.readable_qos(m.data, m.topic_size) < 0:
                # Rights were taken away while it was out of sight. Another member may have what was shared.
                group = <object>entry.group if entry.group != NULL else None
                entry.doom = 1 + (DROP_NOT_AUTHORIZED if group is None else GIVEN_AWAY)
            self.core.counters.paged_in += m != NULL and entry.message == NULL
            queue_page_in(&self.queue, m)
            if group is not None:
                msg_ref(m)                    # the queue may be another one when it was given away
                try:
                    if not self.core.redistribute(m, group, self):
                        self.count_drop_of(DROP_NOT_AUTHORIZED, m)
                finally:
                    msg_unref(m)
        return True
