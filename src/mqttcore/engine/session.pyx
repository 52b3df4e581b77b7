"""Sessions: in-flight windows, queues and resends of one client id."""

from cpython.ref cimport PyObject, Py_XDECREF, Py_XINCREF
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from mqttcore.codec.codes cimport PT_PUBREL
from mqttcore.engine.core cimport (
    DROP_EXPIRED,
    DROP_LOST,
    DROP_NOT_AUTHORIZED,
    DROP_QUEUE_FULL,
    DROP_SESSION_ENDED,
    DROP_SLOW_READER,
    DROP_TOO_LARGE,
    DROP_TOTAL_FULL,
    GIVEN_AWAY,
)
from mqttcore.engine.events cimport EVENT_MESSAGE_DROPPED
from mqttcore.engine.journal cimport Journal
from mqttcore.engine.levels cimport hash_bytes
from mqttcore.engine.message cimport (
    TRACED_TOPIC, Message, Publisher, msg_bytes, msg_ref, msg_unref, msg_view, pub_keep, stored_ref, stored_unref,
)
from mqttcore.engine.mount cimport is_within
from mqttcore.engine.permissions cimport MAY_SUBSCRIBE, VERDICT_QOS
from mqttcore.engine.queue cimport (
    entry_bytes, entry_t, queue_at, queue_clear, queue_head, queue_move, queue_page_in, queue_page_out, queue_pop, queue_push,
    queue_t,
)
from mqttcore.engine.share cimport ShareGroup
from mqttcore.engine.subscriber cimport AWAY, HEARD, KIND_SESSION, UNHEARD, subids_ref, subids_unref
from mqttcore.engine.window cimport (
    AWAIT_OLD_PUBREL,
    AWAIT_PUBACK,
    AWAIT_PUBCOMP,
    AWAIT_PUBREC,
    AWAIT_PUBREL,
    window_add,
    window_clear,
    window_find,
    window_hold,
    window_in_order,
    window_let_go,
    window_next_id,
    window_remove,
    window_set_state,
)

import array

cdef enum:
    REPLAY_BUDGET = 512       # nodes of the retained tree visited per pump
    PAGE_MESSAGES = 512       # paged in at a time
    CLEAR_AT_ONCE = 1000      # a queue longer than this is emptied in slices when its session ends


cdef class Replay:
    """Retained messages that answer one subscription."""

    def __dealloc__(self):
        subids_unref(self.subids)


cdef class Session(Subscriber):
    """What the broker keeps for one client id; made by the engine."""

    def __init__(self):
        raise TypeError("Session is made by the engine")

    @staticmethod
    cdef Session new(Core core, str client_id):
        cdef Session self = Session.__new__(Session)
        self.core = core
        self.client_id = client_id
        self.kind = KIND_SESSION
        self.timer.owner = <void*>self
        self.window_size = 1
        return self

    def __dealloc__(self):
        window_clear(&self.sent)
        window_clear(&self.received)
        queue_clear(&self.queue)
        queue_clear(&self.queue_qos0)
        if self.kept_back != NULL:
            queue_clear(self.kept_back)
            free(self.kept_back)
        free(self.resend)
        if self.will != NULL:
            if self.number:
                stored_unref(self.will.stored)
            msg_unref(self.will)

    @property
    def is_clean(self) -> bool:
        """Whether it ends with its connection."""
        return self.is_clean != 0

    @property
    def has_ended(self) -> bool:
        """Whether it is over: no client table knows it."""
        return self.has_ended != 0

    @property
    def mount_point(self) -> str:
        """Prefix of its topics, which its client neither says nor hears; "": none."""
        return "" if self.mount is None else self.mount.decode()

    @property
    def is_connected(self) -> bool:
        """Whether a network connection is attached."""
        return self.link is not None

    @property
    def connection(self):
        """The network connection, or None."""
        return self.link

    @property
    def in_flight(self) -> int:
        """QoS 1 and 2 messages sent and not completed."""
        return self.sent.count

    @property
    def awaiting_release(self) -> int:
        """QoS 2 messages received and not released."""
        return self.received.count

    @property
    def queued(self) -> int:
        """Messages waiting to be sent."""
        return self.queue.count + self.queue_qos0.count + self.kept_back_count()

    @property
    def queued_bytes_held(self) -> int:
        """Bytes of the messages waiting to be sent."""
        return self.queue.bytes + self.queue_qos0.bytes + (self.kept_back.bytes if self.kept_back != NULL else 0)

    @property
    def topic_filters(self) -> tuple:
        """Subscribed Topic Filters, `$share` ones as they were given."""
        return tuple([f.decode() for f in self.subscriptions]) if self.subscriptions is not None else ()

    cdef PyObject* as_publisher(self) except NULL:
        if self.publisher is None:
            name = getattr(self.identity, "name", None)
            self.publisher = Publisher.new(self.client_id, name if isinstance(name, str) else None, self.ordering_key)
        return <PyObject*>self.publisher

    # --- towards the client -------------------------------------------------------------------------------------

    cdef int deliver(self, pub_t* pub, target_t* target) except -1:
        cdef uint8_t qos = target.qos
        cdef int readable
        cdef subids_t* ids = target.subids
        cdef uint8_t retain = 1 if pub.is_replay or (pub.retain and target.retain_as_published) else 0
        cdef Outlet link = self.link
        if self.guards & (GUARD_HOOK | GUARD_MOUNT):
            if self.guards & GUARD_MOUNT and not is_within(self.mount, pub.topic, pub.topic_size):
                self.pass_by(pub, "mount_point")
                return UNHEARD
            if self.guards & GUARD_HOOK and link is not None:
                return self.deliver_asked(pub, target)
        if pub.origin == <void*>self:
            if target.own_qos == 0xFF:
                return self.pass_by(pub, "no_local")              # [MQTT-3.8.3-3]
            qos = target.own_qos
            ids = target.own_subids
        if qos > pub.qos:
            qos = pub.qos
        if target.is_direct:
            retain |= IS_DIRECT
        elif self.guards & GUARD_RULES:
            readable = self.readable_qos(pub.topic, pub.topic_size)
            if readable < qos:
                if readable < 0:
                    self.refuse(pub, target.group != NULL)
                    return UNHEARD
                qos = readable
        if qos == 0:
            if link is not None:
                if self.queue_qos0.count == 0 and link.out.pending < self.core.limits.output_high_water_bytes:
                    if not link.send_publish(pub, 0x30 | (retain & IS_RETAINED), 0, ids):
                        self.count_drop(DROP_TOO_LARGE, 1, pub)
                    return 0
            elif self.is_clean or not self.core.limits.queue_qos0_offline:
                self.pass_by(pub, "away")     # QoS 0 is not kept for who is away (MQTT 5 §4.1)
                return AWAY if pub.qos else HEARD
        elif (
            link is not None
            and self.queue.count == 0
            and self.resend == NULL
            and self.sent.count < self.window_size
            and self.sent.bytes < self.core.limits.in_flight_bytes_maximum
            and link.out.pending < self.core.limits.output_high_water_bytes
        ):
            self.send_new(pub, qos, retain, ids, target.group, self.core.now_ms)
            return 0
        return self.enqueue(pub, qos, retain, target, ids)

    cdef int deliver_asked(self, pub_t* pub, target_t* target) except -1:
        # The hook may do anything, to subscriptions, too: what the target refers to is held meanwhile.
        cdef target_t held = target[0]
        cdef int outcome = UNHEARD
        Py_XINCREF(held.group)
        subids_ref(held.subids)
        subids_ref(held.own_subids)
        try:
            if self.core.authorize_deliver(self, pub, held.group != NULL) and not self.has_ended:
                self.guards &= <uint8_t>~GUARD_HOOK       # it has been asked
                try:
                    outcome = self.deliver(pub, &held)
                finally:
                    self.guards |= GUARD_HOOK
        finally:
            subids_unref(held.subids)
            subids_unref(held.own_subids)
            Py_XDECREF(held.group)
        return outcome

    cdef int send_new(self, pub_t* pub, uint8_t qos, uint8_t retain, subids_t* ids, void* group,
                      int64_t since_ms) except -1:
        cdef uint16_t packet_id = window_next_id(&self.sent)
        cdef slot_t* slot
        cdef bint has_to_wait = qos == 2 and self.number != 0 and self.core.journal is not None
        if not has_to_wait and not self.link.send_publish(
            pub, 0x30 | (qos << 1) | (retain & IS_RETAINED), packet_id, ids
        ):
            self.count_drop(DROP_TOO_LARGE, 1, pub)
            return 0
        pub_keep(pub)
        slot = window_add(&self.sent, packet_id)
        window_hold(&self.sent, slot, pub.kept)
        slot.subids = subids_ref(ids)
        Py_XINCREF(<PyObject*>group)
        slot.group = <PyObject*>group
        slot.retain = retain
        slot.state = AWAIT_PUBACK if qos == 1 else AWAIT_PUBREC
        self.core.counters.in_flight += 1
        if self.number:
            self.keep_slot(slot, since_ms)
            if has_to_wait:
                self.link.hold(0x34, packet_id, 0, None)
        return 1

    cdef void queue_bytes(self, int64_t before_bytes, int64_t before_count) noexcept:
        self.core.counters.queued += <int64_t>self.queue.count + self.queue_qos0.count - before_count
        self.core.counters.queued_bytes += self.queue.bytes + self.queue_qos0.bytes - before_bytes

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

    cdef bint is_over_limit(self, int64_t size) noexcept:
        # Whether one more message of this size is too much for the queues.
        cdef int64_t count = <int64_t>self.queue.count + self.queue_qos0.count
        size += self.queue.bytes + self.queue_qos0.bytes
        if self.kept_back != NULL:
            count += self.kept_back.count
            size += self.kept_back.bytes
        return count >= <int64_t>self.queued_messages_maximum() or size > self.queued_bytes_maximum()

    cdef int drop_head_of(self, queue_t* queue, int reason) except -1:
        cdef int64_t before_bytes = queue.bytes
        cdef entry_t* entry = queue_head(queue)
        cdef msg_t* m = entry.message if entry.message == NULL else msg_ref(entry.message)
        self.forget(entry.key, entry.stored)
        queue_pop(queue)
        self.core.counters.queued -= 1
        self.core.counters.queued_bytes += queue.bytes - before_bytes
        if queue == self.kept_back:
            self.core.counters.kept_back -= 1
        self.count_drop_of(reason, m)
        if m != NULL:
            msg_unref(m)
        return 0

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

    cdef bint has_queued(self) noexcept:
        return self.queue.count or self.queue_qos0.count or self.kept_back_count()

    cdef int drop_head(self, int reason) except -1:
        cdef queue_t* oldest = self.oldest_queue()
        if oldest != NULL and queue_head(oldest).since_ms == self.oldest_ms():
            return self.drop_head_of(oldest, reason)
        return self.drop_head_of(&self.queue_qos0, reason)

    cdef bint is_congested(self, uint32_t n) noexcept:
        return (
            <int64_t>self.queue.count * n > <int64_t>self.queued_messages_maximum() * (n - 1)
            or self.queue.bytes * n > self.queued_bytes_maximum() * (n - 1)
        )

    cdef uint32_t queued_messages_maximum(self) noexcept:
        cdef uint32_t maximum = self.core.limits.queued_messages_maximum
        return maximum if self.rights is None else min(maximum, self.rights.queued_messages_maximum)

    cdef int64_t queued_bytes_maximum(self) noexcept:
        cdef int64_t maximum = self.core.limits.queued_bytes_maximum
        return maximum if self.rights is None else min(maximum, self.rights.queued_bytes_maximum)

    cdef int readable_qos(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef uint8_t verdict
        if self.rights is None:
            return 2
        verdict = self.rights.verdict(MAY_SUBSCRIBE, topic, size, hash_bytes(topic, size, &self.core.topics.tree.key))
        return verdict & VERDICT_QOS if verdict else -1

    cdef bint has_window(self) noexcept:
        return self.sent.count < self.window_size and self.sent.bytes < self.core.limits.in_flight_bytes_maximum

    cdef bint has_backlog(self) noexcept:
        return self.resend != NULL or self.queue_qos0.count or self.queue.count or self.replays is not None

    cdef bint has_paused(self) noexcept:
        return (
            self.replays is not None and self.queue.count == 0 and self.resend == NULL
            and (self.first_replay().qos == 0 or self.has_window())
        )

    cdef int pump(self) except -1:
        cdef Outlet link = self.link
        self.has_acked = False
        if link is None:
            return 0
        # A hook that is asked on the way may end the connection.
        if self.resend != NULL:
            self.pump_resends()
        if self.queue_qos0.count and self.link is link:
            self.pump_queue(&self.queue_qos0)
        if self.queue.count and self.resend == NULL and self.link is link:
            self.pump_queue(&self.queue)
        if self.replays is not None and self.queue.count == 0 and self.resend == NULL and self.link is link:
            self.pump_replays()
        return 0

    cdef int pump_queue(self, queue_t* queue) except -1:
        cdef entry_t* entry
        cdef pub_t pub
        cdef int64_t before_bytes = self.queue.bytes + self.queue_qos0.bytes
        cdef int64_t before_count = <int64_t>self.queue.count + self.queue_qos0.count
        cdef uint32_t high = self.core.limits.output_high_water_bytes
        if self.guards & GUARD_HOOK:
            return self.pump_asked(queue)
        try:
            while queue.count and self.link.out.pending < high:
                entry = queue_head(queue)
                if self.is_too_old(entry):
                    self.forget(entry.key, entry.stored)
                    self.count_drop_of(DROP_EXPIRED, entry.message)       # [MQTT-3.3.2-5]
                elif entry.doom:
                    self.forget(entry.key, entry.stored)
                    self.count_drop_of(entry.doom - 1, entry.message)
                elif entry.message == NULL:
                    break                                 # on its way from the store
                elif entry.qos == 0:
                    msg_view(entry.message, &pub)
                    if not self.link.send_publish(&pub, 0x30 | (entry.retain & IS_RETAINED), 0, entry.subids):
                        self.count_drop(DROP_TOO_LARGE, 1, &pub)
                elif not self.has_window():
                    break
                else:
                    msg_view(entry.message, &pub)
                    if self.send_new(&pub, entry.qos, entry.retain, entry.subids, entry.group, entry.since_ms):
                        self.forget(entry.key, NULL)      # the slot's record stands for it now
                    else:
                        self.forget(entry.key, entry.stored)
                queue_pop(queue)
        finally:
            self.queue_bytes(before_bytes, before_count)
        return self.page_ahead(queue)

    cdef int pump_asked(self, queue_t* queue) except -1:
        # As pump_queue, asking the hook, which may do anything: so what is at the head is looked at again behind it.
        cdef Outlet link = self.link
        cdef entry_t* entry
        cdef msg_t* m
        cdef pub_t pub
        cdef bint is_allowed
        cdef object group
        cdef int64_t before_bytes, before_count
        while self.link is link and queue.count and link.out.pending < self.core.limits.output_high_water_bytes:
            entry = queue_head(queue)
            if entry.doom:
                self.drop_head_of(queue, entry.doom - 1)
                continue
            if entry.message == NULL or entry.qos and not self.has_window():
                break
            m = msg_ref(entry.message)
            group = None
            try:
                msg_view(m, &pub)
                is_allowed = self.is_too_old(entry) or self.core.authorize_deliver(self, &pub, entry.group != NULL)
                if self.link is not link or not queue.count or queue_head(queue).message != m:
                    continue
                entry = queue_head(queue)
                before_bytes = self.queue.bytes + self.queue_qos0.bytes
                before_count = <int64_t>self.queue.count + self.queue_qos0.count
                if self.is_too_old(entry):
                    self.forget(entry.key, entry.stored)
                    self.count_drop(DROP_EXPIRED, 1, &pub)        # [MQTT-3.3.2-5]
                elif not is_allowed:
                    self.forget(entry.key, entry.stored)
                    group = <object>entry.group if entry.group != NULL else None
                else:
                    if entry.qos:
                        if self.send_new(&pub, entry.qos, entry.retain, entry.subids, entry.group, entry.since_ms):
                            self.forget(entry.key, NULL)  # the slot's record stands for it now
                        else:
                            self.forget(entry.key, entry.stored)
                    elif not link.send_publish(&pub, 0x30 | (entry.retain & IS_RETAINED), 0, entry.subids):
                        self.count_drop(DROP_TOO_LARGE, 1, &pub)
                queue_pop(queue)
                self.queue_bytes(before_bytes, before_count)
                if group is not None and not self.core.redistribute(m, group, self):
                    self.count_drop_of(DROP_NOT_AUTHORIZED, m)
            finally:
                msg_unref(m)
        if self.link is link:
            self.page_ahead(queue)
        return 0

    cdef int pump_replays(self) except -1:
        cdef Replay replay
        cdef msg_t* m
        cdef pub_t pub
        cdef int budget = REPLAY_BUDGET
        cdef int readable
        cdef uint8_t qos
        cdef Outlet link = self.link
        cdef bint is_allowed
        while self.replays is not None:
            replay = self.first_replay()
            while (
                budget > 0
                and self.link.out.pending < self.core.limits.output_high_water_bytes
                and (replay.qos == 0 or self.has_window())
            ):
                m = replay.cursor.next(&budget)
                if m == NULL:
                    break
                if m.expires_ms and m.expires_ms <= self.core.now_ms:
                    continue
                if replay.unwanted is not None and m.publisher != NULL and (
                    (<Publisher>m.publisher).client_id == replay.unwanted
                ):
                    continue          # [MQTT-3.8.3-3]
                if self.guards & GUARD_MOUNT and not is_within(self.mount, m.data, m.topic_size):
                    continue
                msg_view(m, &pub)
                if self.core.tracer.subjects:
                    pub.traced |= self.core.tracer.trace_of(pub.topic, pub.topic_size)
                qos = m.qos if m.qos < replay.qos else replay.qos
                if self.guards & GUARD_RULES:
                    readable = self.readable_qos(pub.topic, pub.topic_size)
                    if readable < 0:
                        self.count_drop(DROP_NOT_AUTHORIZED, 1, &pub)
                        continue
                    if readable < qos:
                        qos = readable
                if self.guards & GUARD_HOOK:
                    msg_ref(m)
                    try:
                        is_allowed = self.core.authorize_deliver(self, &pub)
                        if self.link is not link or self.replays is None or self.first_replay() is not replay:
                            return 0
                        if is_allowed and qos:
                            self.send_new(&pub, qos, 1, replay.subids, NULL, self.core.now_ms)
                        elif is_allowed and not link.send_publish(&pub, 0x31, 0, replay.subids):
                            self.count_drop(DROP_TOO_LARGE, 1, &pub)
                    finally:
                        msg_unref(m)
                elif qos:
                    self.send_new(&pub, qos, 1, replay.subids, NULL, self.core.now_ms)
                elif not self.link.send_publish(&pub, 0x31, 0, replay.subids):
                    self.count_drop(DROP_TOO_LARGE, 1, &pub)
            else:
                break                 # no room or no budget: go on at the next pump
            if budget <= 0:
                break
            if replay.repeats:
                replay.repeats -= 1
                replay.cursor.close()
                replay.cursor = self.core.retained.match(
                    <const uint8_t*><char*>replay.topic_filter, len(replay.topic_filter)
                )
            else:
                self.stop_replay(replay.topic_filter)
        return 0

    cdef Replay first_replay(self):
        return <Replay>next(iter(self.replays.values()))

    cdef int start_replay(self, bytes topic_filter, RetainedCursor cursor, uint8_t qos, bint no_local,
                          subids_t* ids) except -1:
        # A filter that is subscribed to again while its messages are on their way gets them once more behind them: counted,
        # so that repeating costs no memory [MQTT-3.8.4-3].
        cdef Replay replay = None
        if self.replays is None:
            self.replays = {}
        else:
            replay = <Replay>self.replays.get(topic_filter)
        if replay is None:
            replay = Replay.__new__(Replay)
            replay.topic_filter = topic_filter
            replay.cursor = cursor
            self.replays[topic_filter] = replay
        else:
            cursor.close()
            replay.repeats += 1
        replay.qos = qos
        replay.unwanted = self.client_id if no_local else None
        subids_unref(replay.subids)
        replay.subids = subids_ref(ids)
        return 0

    cdef int stop_replay(self, bytes topic_filter) except -1:
        cdef Replay replay
        if self.replays is None:
            return 0
        replay = <Replay>self.replays.pop(topic_filter, None)
        if replay is not None:
            replay.cursor.close()
        if not self.replays:
            self.replays = None
        return 0

    cdef bint is_too_old(self, entry_t* entry) noexcept:
        cdef int64_t expires_ms = entry.message.expires_ms if entry.message != NULL else entry.stored.expires_ms
        return (expires_ms and expires_ms <= self.core.now_ms) or (
            self.core.limits.queued_age_maximum_ms != 0
            and self.core.now_ms - entry.since_ms >= self.core.limits.queued_age_maximum_ms
        )

    cdef int pass_by(self, pub_t* pub, str reason) except -1:
        if self.traced | (pub.traced & TRACED_TOPIC):
            self.core.tracer.passed_by(self, pub, reason)
        return 0

    cdef int refuse(self, pub_t* pub, bint is_shared) except -1:
        if is_shared:
            return self.pass_by(pub, "not_authorized")
        self.count_drop(DROP_NOT_AUTHORIZED, 1, pub)
        return 0

    cdef void count_drop_of(self, int reason, msg_t* message) noexcept:
        cdef pub_t pub
        if reason == GIVEN_AWAY:
            return
        if message == NULL:           # in the store alone
            self.count_drop(reason)
        else:
            msg_view(message, &pub)
            self.count_drop(reason, 1, &pub)

    cdef void count_drop(self, int reason, int64_t count=1, pub_t* pub=NULL) noexcept:
        self.dropped += count
        self.core.counters.dropped[reason] += count
        if self.core.events.mask & EVENT_MESSAGE_DROPPED:
            try:
                self.core.events.count_drop(self.client_id, reason, count)
            except MemoryError:
                self.core.events.dropped += 1
        if self.traced or (pub != NULL and pub.traced & TRACED_TOPIC):
            try:
                if pub == NULL:
                    self.core.tracer.dropped(self, reason, count, NULL, 0)
                else:
                    self.core.tracer.dropped(self, reason, count, pub.topic, pub.topic_size)
            except MemoryError:
                self.core.events.dropped += 1

    # --- resuming -----------------------------------------------------------------------------------------------

    cdef int attach(self, Outlet link, uint32_t receive_maximum) except -1:
        self.link = link
        self.traced = link.traced
        self.is_online = True
        self.is_stalled = False
        self.window_size = min(receive_maximum, self.core.limits.in_flight_maximum)
        free(self.resend)
        self.resend = window_in_order(&self.sent)
        self.resend_count = self.sent.count
        self.resend_at = 0
        # Receive Maximum is counted anew on each connection (MQTT 5 §4.9).
        self.received_before = self.received.count
        window_set_state(&self.received, AWAIT_OLD_PUBREL)
        self.core.counters.online += 1
        return 0

    # --- kept back ----------------------------------------------------------------------------------------------

    cdef int keep_back(self) except -1:
        self.take_back()
        self.kept_back = <queue_t*>calloc(1, sizeof(queue_t))
        if self.kept_back == NULL:
            raise MemoryError
        self.kept_back[0] = self.queue
        memset(&self.queue, 0, sizeof(queue_t))
        self.core.counters.kept_back += self.kept_back.count
        return 0

    cdef int64_t kept_back_count(self) noexcept:
        return self.kept_back.count if self.kept_back != NULL else 0

    cdef int64_t let_go(self, int64_t count, bint newest_first, int64_t age_maximum_ms) except -1:
        cdef int64_t released = 0
        cdef entry_t* entry
        cdef msg_t* m
        cdef object group
        while released < count and self.kept_back_count():
            queue_move(self.kept_back, newest_first, &self.queue, False)
            self.core.counters.kept_back -= 1
            entry = queue_at(&self.queue, self.queue.count - 1)
            m = entry.message
            if age_maximum_ms and self.core.now_ms - entry.since_ms >= age_maximum_ms or self.is_too_old(entry):
                self.doom_newest(entry, DROP_EXPIRED)
            elif m != NULL and not entry.retain & IS_DIRECT and self.readable_qos(m.data, m.topic_size) < 0:
                # Rights are asked now, not on taking the identity: they may have come only after CONNECT.
                group = <object>entry.group if entry.group != NULL else None
                self.doom_newest(entry, DROP_NOT_AUTHORIZED if group is None else GIVEN_AWAY)
                if group is not None:
                    msg_ref(m)                # the queue may be another one when it was given away
                    try:
                        if not self.core.redistribute(m, group, self):
                            self.count_drop_of(DROP_NOT_AUTHORIZED, m)
                    finally:
                        msg_unref(m)
            else:
                released += 1                 # what is in the store alone is looked at when it comes from there
        if self.kept_back != NULL and self.kept_back.count == 0:
            self.take_back()
        return released

    cdef void doom_newest(self, entry_t* entry, int reason) noexcept:
        # The newest entry of the queue is to be dropped: it need not be in memory for that.
        entry.doom = 1 + reason
        if self.queue.resident == self.queue.count - 1:
            self.queue.resident += 1
            self.queue.resident_bytes += entry_bytes(entry)

    cdef int take_back(self) except -1:
        cdef queue_t behind
        cdef entry_t* entry
        if self.kept_back == NULL:
            return 0
        memset(&behind, 0, sizeof(queue_t))
        self.core.counters.kept_back -= self.kept_back.count
        if self.kept_back.count:
            # [ let go, not sent | kept back | came since ]; both ends are short.
            while self.queue.count and (
                queue_at(&self.queue, self.queue.count - 1).since_ms > queue_head(self.kept_back).since_ms
            ):
                queue_move(&self.queue, True, &behind, True)
            while self.queue.count:
                queue_move(&self.queue, True, self.kept_back, True)
            while behind.count:
                queue_move(&behind, False, self.kept_back, False)
                entry = queue_at(self.kept_back, self.kept_back.count - 1)
                if self.kept_back.resident < self.kept_back.count and entry.stored != NULL and entry.key:
                    queue_page_out(self.kept_back)
            queue_clear(&behind)
            queue_clear(&self.queue)
            self.queue = self.kept_back[0]
        else:
            queue_clear(self.kept_back)
        free(self.kept_back)
        self.kept_back = NULL
        return 0

    cdef int detach(self) except -1:
        self.take_back()
        if self.core.congested == <PyObject*>self:
            self.core.congested = NULL    # borrowed, and not to be waited for any more
        if self.link is not None:
            self.core.counters.online -= 1
        self.link = None
        self.is_online = False
        free(self.resend)
        self.resend = NULL
        self.resend_count = self.resend_at = 0
        # A subscription's retained messages are not part of the session: the next SUBSCRIBE brings them.
        self.replays = None
        if self.queue_qos0.count and not self.core.limits.queue_qos0_offline:
            self.core.counters.queued -= self.queue_qos0.count
            self.core.counters.queued_bytes -= self.queue_qos0.bytes
            self.count_drop(DROP_SLOW_READER, self.queue_qos0.count)
            queue_clear(&self.queue_qos0)
        return 0

    cdef int pump_resends(self) except -1:
        # Unacknowledged messages in their first order, with their packet ids; never more than the window at a time:
        # what was sent on this connection is resend_at minus what was completed since, and new ids wait for the end.
        cdef slot_t* slot
        cdef uint32_t unsent
        cdef Outlet link = self.link
        while self.resend_at < self.resend_count:
            unsent = self.resend_count - self.resend_at
            slot = window_find(&self.sent, self.resend[self.resend_at])
            if slot != NULL:
                # Ids before resend_at that are still in the table are on their way on this connection.
                if self.sent.count >= unsent and self.sent.count - unsent >= self.window_size:
                    return 0
                if self.link.out.pending >= self.core.limits.output_high_water_bytes:
                    return 0
                self.send_again(slot)
                if self.link is not link:
                    return 0          # a hook was asked
            self.resend_at += 1
        free(self.resend)
        self.resend = NULL
        self.resend_count = self.resend_at = 0
        return 0

    cdef int send_again(self, slot_t* slot) except -1:
        cdef pub_t pub
        if slot.state != AWAIT_PUBACK and slot.key and self.core.journal is not None and self.core.journal.is_unsafe(slot.key):
            return self.link.hold(0x62 if slot.state == AWAIT_PUBCOMP else 0x3C, slot.packet_id, 0, None)
        if slot.state == AWAIT_PUBCOMP:
            return self.link.send_ack(0x62, slot.packet_id, 0)
        if slot.message == NULL:              # the store did not have it any more
            self.count_drop(DROP_LOST)
            return self.finish_slot(slot)
        if self.guards & GUARD_HOOK:
            slot = self.ask_again(slot)
            if slot == NULL:
                return 0
        msg_view(slot.message, &pub)
        if not self.link.send_publish(
            &pub, 0x38 | (2 if slot.state == AWAIT_PUBACK else 4) | (slot.retain & IS_RETAINED), slot.packet_id, slot.subids
        ):
            # The new connection takes smaller packets: as if it had been completed [MQTT-3.1.2-25].
            self.count_drop(DROP_TOO_LARGE, 1, &pub)
            self.finish_slot(slot)
        return 0

    cdef int send_held(self, uint16_t packet_id) except -1:
        cdef slot_t* slot = window_find(&self.sent, packet_id)
        cdef pub_t pub
        if slot == NULL or slot.state != AWAIT_PUBREC or slot.message == NULL:
            return 0
        msg_view(slot.message, &pub)
        if not self.link.send_publish(&pub, 0x34 | (slot.retain & IS_RETAINED), packet_id, slot.subids):
            self.count_drop(DROP_TOO_LARGE, 1, &pub)
            self.finish_slot(slot)
            self.has_acked = True
        return 0

    cdef int finish_slot(self, slot_t* slot) except -1:
        if slot.key:
            self.forget(slot.key, slot.stored)
        window_remove(&self.sent, slot)
        self.core.counters.in_flight -= 1
        return 0

    # --- in the store -------------------------------------------------------------------------------------------

    cdef int forget(self, uint64_t key, stored_t* stored) except -1:
        if (key or stored != NULL) and self.core.journal is not None:
            self.core.journal.forget(key, stored)
        return 0

    cdef int keep(self, bint is_connected) except -1:
        cdef Journal journal = self.core.journal
        cdef uint64_t key, will = 0
        if journal is None:
            return 0
        if self.number == 0:
            self.number = journal.new_number()
            if self.will != NULL:
                stored_ref(journal.store(self.will))
        if self.will != NULL:
            will = self.will.stored.key
        key = journal.put_session(
            self.number, self.session_expiry_s, is_connected, 0 if is_connected else self.expires_ms, will, self.will_delay_s,
            self.will_due_ms, self.client_id.encode(), (self.user_name or "").encode(),
            (self.owner or "").encode(), b"" if self.mount is None else self.mount,
        )
        if self.key:
            journal.delete(self.key)
        self.key = key
        return 0

    cdef int keep_subscription(self, bytes topic_filter, uint8_t options, uint32_t subid) except -1:
        cdef Journal journal = self.core.journal
        if journal is None or self.number == 0:
            return 0
        if self.subscription_keys is None:
            self.subscription_keys = {}
        key = self.subscription_keys.get(topic_filter)
        if key is not None:
            journal.delete(key)
        self.subscription_keys[topic_filter] = journal.put_subscription(self.number, options, subid, topic_filter)
        return 0

    cdef int keep_slot(self, slot_t* slot, int64_t since_ms) except -1:
        cdef Journal journal = self.core.journal
        if journal is None:
            return 0
        slot.stored = stored_ref(journal.store(slot.message))
        slot.key = journal.put_entry(
            self.number, slot.stored.key, since_ms, slot.packet_id, slot.state, 1 if slot.state == AWAIT_PUBACK else 2,
            slot.retain, slot.subids, (<ShareGroup>slot.group).whole_filter() if slot.group != NULL else None,
        )
        return 0

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

    cdef slot_t* ask_again(self, slot_t* slot) except? NULL:
        # The slot to send again, NULL: it is not to be. Slots move while the hook is asked.
        cdef Outlet link = self.link
        cdef uint16_t packet_id = slot.packet_id
        cdef msg_t* m = msg_ref(slot.message)
        # QoS 2 stays with this client whatever becomes of it [MQTT-4.8.2-4] [MQTT-4.8.2-5].
        cdef object group = <object>slot.group if slot.group != NULL and slot.state == AWAIT_PUBACK else None
        cdef pub_t pub
        cdef bint is_allowed
        try:
            msg_view(m, &pub)
            is_allowed = self.core.authorize_deliver(self, &pub, group is not None)
            slot = window_find(&self.sent, packet_id)
            if self.link is not link or slot == NULL or slot.message != m:
                return NULL
            if not is_allowed:
                self.finish_slot(slot)
                if group is not None and not self.core.redistribute(m, group, self):
                    self.count_drop_of(DROP_NOT_AUTHORIZED, m)
                return NULL
        finally:
            msg_unref(m)
        return slot

    # --- from the client ----------------------------------------------------------------------------------------

    cdef bint on_puback(self, uint16_t packet_id) except -1:
        cdef slot_t* slot = window_find(&self.sent, packet_id)
        if slot == NULL or slot.state != AWAIT_PUBACK:
            return False
        self.finish_slot(slot)
        self.has_acked = True
        self.is_stalled = False
        self.acked += 1
        return True

    cdef bint on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1:
        cdef slot_t* slot = window_find(&self.sent, packet_id)
        cdef uint64_t key
        if slot == NULL or (slot.state != AWAIT_PUBREC and slot.state != AWAIT_PUBCOMP):
            # 3.1.1 knows no reason code: a PUBREL lets the client finish.
            if reason_code < 0x80:
                self.link.send_ack(0x62, packet_id, 0x92)
            return False
        if reason_code >= 0x80:
            self.finish_slot(slot)                # the client refused it; the exchange is over (MQTT 5 §4.3.3)
            self.has_acked = True
            self.is_stalled = False
            self.acked += 1
            return True
        if slot.state == AWAIT_PUBREC:
            if slot.key and self.core.journal is not None:
                key = self.core.journal.put_entry(
                    self.number, 0, self.core.now_ms, packet_id, AWAIT_PUBCOMP, 2, 0, NULL, None
                )
                self.core.journal.forget(slot.key, slot.stored)
                slot.key = key
            slot.state = AWAIT_PUBCOMP
            self.sent.seq += 1
            slot.seq = self.sent.seq              # PUBREL goes again in the order of PUBREC [MQTT-4.6.0-4]
            window_let_go(&self.sent, slot)
            self.has_acked = True         # its bytes are free, the packet id is not yet
        if slot.key and self.core.journal is not None and (
            self.core.journal.is_unsafe(slot.key) or self.link.holds.count
        ):
            self.link.hold(<uint8_t>(PT_PUBREL << 4) | 2, packet_id, 0, None)
        else:
            self.link.send_ack(<uint8_t>(PT_PUBREL << 4) | 2, packet_id, 0)
        return True

    cdef bint on_pubcomp(self, uint16_t packet_id) except -1:
        cdef slot_t* slot = window_find(&self.sent, packet_id)
        if slot == NULL or slot.state != AWAIT_PUBCOMP:
            return False
        self.finish_slot(slot)
        self.has_acked = True
        self.is_stalled = False
        self.acked += 1
        return True

    cdef bint begin_receive(self, uint16_t packet_id) except -1:
        cdef slot_t* slot
        if window_find(&self.received, packet_id) != NULL:
            return False
        slot = window_add(&self.received, packet_id)
        slot.state = AWAIT_PUBREL
        self.core.counters.awaiting_release += 1
        if self.number and self.core.journal is not None:
            slot.key = self.core.journal.put_received(self.number, packet_id)
        return True

    cdef bint is_received_unsafe(self, uint16_t packet_id) noexcept:
        cdef slot_t* slot = window_find(&self.received, packet_id)
        return slot != NULL and slot.key and self.core.journal is not None and self.core.journal.is_unsafe(slot.key)

    cdef bint on_pubrel(self, uint16_t packet_id) except -1:
        cdef slot_t* slot = window_find(&self.received, packet_id)
        if slot == NULL:
            return False
        self.received_before -= slot.state == AWAIT_OLD_PUBREL
        self.forget(slot.key, NULL)
        window_remove(&self.received, slot)
        self.core.counters.awaiting_release -= 1
        return True

    # --- its end ------------------------------------------------------------------------------------------------

    cdef int set_will(self, msg_t* will, uint32_t delay_s) except -1:
        cdef msg_t* before = self.will
        self.will = will
        self.will_delay_s = delay_s
        if will != NULL and self.number and self.core.journal is not None:
            stored_ref(self.core.journal.store(will))
        if before != NULL:
            self.release_will(before)
        return 0

    cdef bint knows(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        return self.mount is None or is_within(self.mount, topic, size)

    cdef int set_mount(self, bytes mount) except -1:
        self.mount = mount
        if mount is not None:
            self.guards |= GUARD_MOUNT
        return 0

    cdef int release_will(self, msg_t* will) except -1:
        if self.number and will.stored != NULL:
            self.forget(0, will.stored)
            stored_unref(will.stored)
        msg_unref(will)
        return 0

    cdef int clear(self) except -1:
        cdef entry_t* entry
        cdef uint16_t* ids = window_in_order(&self.sent)
        cdef uint32_t i, count = self.sent.count
        cdef slot_t* slot
        cdef msg_t* m
        cdef object group
        self.has_ended = True
        self.take_back()
        try:
            # What came through a shared subscription and was not begun goes to another member; QoS 2 in flight stays
            # with this client [MQTT-4.8.2-4] [MQTT-4.8.2-5].
            for i in range(count):
                slot = window_find(&self.sent, ids[i])
                if slot.group != NULL and slot.state == AWAIT_PUBACK and slot.message != NULL:
                    m = msg_ref(slot.message)
                    group = <object>slot.group
                    try:
                        if not self.core.redistribute(m, group, self):
                            self.count_drop_of(DROP_SESSION_ENDED, m)
                    finally:
                        msg_unref(m)
                else:
                    if slot.message != NULL:
                        self.count_drop_of(DROP_SESSION_ENDED, slot.message)
                slot = window_find(&self.sent, ids[i])
                self.forget(slot.key, slot.stored)
                window_let_go(&self.sent, slot)
            if self.queue.count > CLEAR_AT_ONCE:
                self.core.bury_queue(&self.queue)         # counted there
            while self.queue.count:
                entry = queue_head(&self.queue)
                if entry.doom:
                    self.count_drop_of(entry.doom - 1, entry.message)
                elif entry.group == NULL or entry.message == NULL or not self.core.redistribute(
                    entry.message, <object>entry.group, self
                ):
                    self.count_drop_of(DROP_SESSION_ENDED, entry.message)
                self.forget(entry.key, entry.stored)
                self.core.counters.queued -= 1
                self.core.counters.queued_bytes -= self.queue.bytes
                queue_pop(&self.queue)
                self.core.counters.queued_bytes += self.queue.bytes
            if self.received.count:
                for i in range(self.received.mask + 1):
                    self.forget(self.received.slots[i].key, NULL)
        finally:
            free(ids)
        self.core.counters.queued -= self.queue.count + self.queue_qos0.count
        self.core.counters.queued_bytes -= self.queue.bytes + self.queue_qos0.bytes
        self.core.counters.in_flight -= self.sent.count
        self.core.counters.awaiting_release -= self.received.count
        queue_clear(&self.queue)
        queue_clear(&self.queue_qos0)
        window_clear(&self.sent)
        window_clear(&self.received)
        free(self.resend)
        self.resend = NULL
        self.replays = None
        self.set_will(NULL, 0)
        return 0
