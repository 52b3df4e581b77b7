"""Sessions: in-flight windows, queues and resends of one client id."""

from cpython.ref cimport PyObject, Py_XINCREF
from libc.stdlib cimport free

from mqttcore.codec.codes cimport PT_PUBREL
from mqttcore.engine.core cimport (
    DROP_EXPIRED,
    DROP_QUEUE_FULL,
    DROP_SESSION_ENDED,
    DROP_SLOW_READER,
    DROP_TOO_LARGE,
    DROP_TOTAL_FULL,
)
from mqttcore.engine.message cimport Publisher, msg_bytes, msg_ref, msg_unref, msg_view, pub_keep
from mqttcore.engine.queue cimport entry_t, queue_clear, queue_head, queue_pop, queue_push
from mqttcore.engine.subscriber cimport KIND_SESSION, subids_ref, subids_unref
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

cdef enum:
    REPLAY_BUDGET = 512       # nodes of the retained tree visited per pump


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
        free(self.resend)
        if self.will != NULL:
            msg_unref(self.will)

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
        return self.queue.count + self.queue_qos0.count

    @property
    def queued_bytes_held(self) -> int:
        """Bytes of the messages waiting to be sent."""
        return self.queue.bytes + self.queue_qos0.bytes

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
        cdef subids_t* ids = target.subids
        cdef uint8_t retain = 1 if pub.is_replay or (pub.retain and target.retain_as_published) else 0
        cdef Outlet link = self.link
        if pub.origin == <void*>self:
            if target.own_qos == 0xFF:
                return 0              # [MQTT-3.8.3-3]
            qos = target.own_qos
            ids = target.own_subids
        if qos > pub.qos:
            qos = pub.qos
        if qos == 0:
            if link is not None:
                if self.queue_qos0.count == 0 and link.out.pending < self.core.limits.output_high_water_bytes:
                    if not link.send_publish(pub, 0x30 | retain, 0, ids):
                        self.count_drop(DROP_TOO_LARGE)
                    return 0
            elif self.is_clean or not self.core.limits.queue_qos0_offline:
                return 0              # QoS 0 is not kept for who is away (MQTT 5 §4.1)
        elif (
            link is not None
            and self.queue.count == 0
            and self.resend == NULL
            and self.sent.count < self.window_size
            and self.sent.bytes < self.core.limits.in_flight_bytes_maximum
            and link.out.pending < self.core.limits.output_high_water_bytes
        ):
            return self.send_new(pub, qos, retain, ids, target.group)
        return self.enqueue(pub, qos, retain, target, ids)

    cdef int send_new(self, pub_t* pub, uint8_t qos, uint8_t retain, subids_t* ids, void* group) except -1:
        # A message that gets a packet id now. The window has room.
        cdef uint16_t packet_id = window_next_id(&self.sent)
        cdef slot_t* slot
        if not self.link.send_publish(pub, 0x30 | (qos << 1) | retain, packet_id, ids):
            self.count_drop(DROP_TOO_LARGE)
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
        return 0

    cdef void queue_bytes(self, int64_t before_bytes, int64_t before_count) noexcept:
        self.core.counters.queued += <int64_t>self.queue.count + self.queue_qos0.count - before_count
        self.core.counters.queued_bytes += self.queue.bytes + self.queue_qos0.bytes - before_bytes

    cdef int enqueue(self, pub_t* pub, uint8_t qos, uint8_t retain, target_t* target, subids_t* ids) except -1:
        cdef int64_t before_bytes = self.queue.bytes + self.queue_qos0.bytes
        cdef int64_t before_count = <int64_t>self.queue.count + self.queue_qos0.count
        cdef int64_t size
        cdef msg_t* m
        if self.has_ended:
            return 0
        m = pub_keep(pub)
        size = msg_bytes(m)
        if size > self.core.limits.queued_bytes_maximum:
            self.count_drop(DROP_QUEUE_FULL if qos else DROP_SLOW_READER)     # nothing makes room for it
            return 0
        if self.core.counters.queued_bytes + size > self.core.limits.queued_total_bytes_maximum:
            self.count_drop(DROP_TOTAL_FULL)
            return 0
        # Nobody may ever come for them: what is too old goes when something new arrives.
        while self.queue.count and self.is_too_old(queue_head(&self.queue)):
            queue_pop(&self.queue)
            self.count_drop(DROP_EXPIRED)
        self.queue_bytes(before_bytes, before_count)
        before_bytes = self.queue.bytes + self.queue_qos0.bytes
        before_count = <int64_t>self.queue.count + self.queue_qos0.count
        # Room is made by dropping QoS 0 first, then by the policy (DESIGN §4).
        while (
            before_count + 1 > self.core.limits.queued_messages_maximum
            or self.queue.bytes + self.queue_qos0.bytes + size > self.core.limits.queued_bytes_maximum
        ):
            if self.queue_qos0.count:
                queue_pop(&self.queue_qos0)
                self.count_drop(DROP_SLOW_READER)
            elif qos == 0:
                self.queue_bytes(before_bytes, before_count)
                self.count_drop(DROP_SLOW_READER)
                return 0
            elif self.core.limits.queue_drop_newest or self.queue.count == 0:
                self.queue_bytes(before_bytes, before_count)
                self.count_drop(DROP_QUEUE_FULL)
                return 0
            else:
                queue_pop(&self.queue)
                self.count_drop(DROP_QUEUE_FULL)
            self.queue_bytes(before_bytes, before_count)
            before_bytes = self.queue.bytes + self.queue_qos0.bytes
            before_count = <int64_t>self.queue.count + self.queue_qos0.count
        queue_push(&self.queue_qos0 if qos == 0 else &self.queue, m, ids, target.group, qos, retain, self.core.now_ms)
        self.queue_bytes(before_bytes, before_count)
        if qos and self.link is not None and not self.is_stalled and self.is_congested(4):
            self.core.congested = <PyObject*>self
        return 0

    cdef bint is_congested(self, uint32_t n) noexcept:
        return (
            <int64_t>self.queue.count * n > <int64_t>self.core.limits.queued_messages_maximum * (n - 1)
            or self.queue.bytes * n > self.core.limits.queued_bytes_maximum * (n - 1)
        )

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
        self.has_acked = False
        if self.link is None:
            return 0
        if self.resend != NULL:
            self.pump_resends()
        if self.queue_qos0.count:
            self.pump_queue(&self.queue_qos0)
        if self.queue.count and self.resend == NULL:
            self.pump_queue(&self.queue)
        if self.replays is not None and self.queue.count == 0 and self.resend == NULL:
            self.pump_replays()
        return 0

    cdef int pump_queue(self, queue_t* queue) except -1:
        cdef entry_t* entry
        cdef pub_t pub
        cdef int64_t before_bytes = self.queue.bytes + self.queue_qos0.bytes
        cdef int64_t before_count = <int64_t>self.queue.count + self.queue_qos0.count
        cdef uint32_t high = self.core.limits.output_high_water_bytes
        try:
            while queue.count and self.link.out.pending < high:
                entry = queue_head(queue)
                if self.is_too_old(entry):
                    self.count_drop(DROP_EXPIRED)         # [MQTT-3.3.2-5]
                elif entry.qos == 0:
                    msg_view(entry.message, &pub)
                    if not self.link.send_publish(&pub, 0x30 | entry.retain, 0, entry.subids):
                        self.count_drop(DROP_TOO_LARGE)
                elif not self.has_window():
                    break
                else:
                    msg_view(entry.message, &pub)
                    self.send_new(&pub, entry.qos, entry.retain, entry.subids, entry.group)
                queue_pop(queue)
        finally:
            self.queue_bytes(before_bytes, before_count)
        return 0

    cdef int pump_replays(self) except -1:
        cdef Replay replay
        cdef msg_t* m
        cdef pub_t pub
        cdef int budget = REPLAY_BUDGET
        cdef uint8_t qos
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
                msg_view(m, &pub)
                qos = m.qos if m.qos < replay.qos else replay.qos
                if qos:
                    self.send_new(&pub, qos, 1, replay.subids, NULL)
                elif not self.link.send_publish(&pub, 0x31, 0, replay.subids):
                    self.count_drop(DROP_TOO_LARGE)
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
        return (entry.message.expires_ms and entry.message.expires_ms <= self.core.now_ms) or (
            self.core.limits.queued_age_maximum_ms != 0
            and self.core.now_ms - entry.since_ms >= self.core.limits.queued_age_maximum_ms
        )

    cdef void count_drop(self, int reason) noexcept:
        self.dropped += 1
        self.core.counters.dropped[reason] += 1

    # --- resuming -----------------------------------------------------------------------------------------------

    cdef int attach(self, Outlet link, uint32_t receive_maximum) except -1:
        self.link = link
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

    cdef void detach(self) noexcept:
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
            self.core.counters.dropped[DROP_SLOW_READER] += self.queue_qos0.count
            self.dropped += self.queue_qos0.count
            queue_clear(&self.queue_qos0)

    cdef int pump_resends(self) except -1:
        # Unacknowledged messages in their first order, with their packet ids; never more than the window at a time:
        # what was sent on this connection is resend_at minus what was completed since, and new ids wait for the end.
        cdef slot_t* slot
        cdef uint32_t unsent
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
            self.resend_at += 1
        free(self.resend)
        self.resend = NULL
        self.resend_count = self.resend_at = 0
        return 0

    cdef int send_again(self, slot_t* slot) except -1:
        cdef pub_t pub
        if slot.state == AWAIT_PUBCOMP:
            return self.link.send_ack(0x62, slot.packet_id, 0)
        msg_view(slot.message, &pub)
        if not self.link.send_publish(
            &pub, 0x38 | (2 if slot.state == AWAIT_PUBACK else 4) | slot.retain, slot.packet_id, slot.subids
        ):
            # The new connection takes smaller packets: as if it had been completed [MQTT-3.1.2-25].
            self.count_drop(DROP_TOO_LARGE)
            window_remove(&self.sent, slot)
            self.core.counters.in_flight -= 1
        return 0

    # --- from the client ----------------------------------------------------------------------------------------

    cdef bint on_puback(self, uint16_t packet_id) except -1:
        cdef slot_t* slot = window_find(&self.sent, packet_id)
        if slot == NULL or slot.state != AWAIT_PUBACK:
            return False
        window_remove(&self.sent, slot)
        self.core.counters.in_flight -= 1
        self.has_acked = True
        self.is_stalled = False
        self.acked += 1
        return True

    cdef bint on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1:
        cdef slot_t* slot = window_find(&self.sent, packet_id)
        if slot == NULL or (slot.state != AWAIT_PUBREC and slot.state != AWAIT_PUBCOMP):
            # 3.1.1 knows no reason code: a PUBREL lets the client finish.
            if reason_code < 0x80:
                self.link.send_ack(0x62, packet_id, 0x92)
            return False
        if reason_code >= 0x80:
            window_remove(&self.sent, slot)       # the client refused it; the exchange is over (MQTT 5 §4.3.3)
            self.core.counters.in_flight -= 1
            self.has_acked = True
            self.is_stalled = False
            self.acked += 1
            return True
        if slot.state == AWAIT_PUBREC:
            slot.state = AWAIT_PUBCOMP
            self.sent.seq += 1
            slot.seq = self.sent.seq              # PUBREL goes again in the order of PUBREC [MQTT-4.6.0-4]
            window_let_go(&self.sent, slot)
            self.has_acked = True         # its bytes are free, the packet id is not yet
        self.link.send_ack(<uint8_t>(PT_PUBREL << 4) | 2, packet_id, 0)
        return True

    cdef bint on_pubcomp(self, uint16_t packet_id) except -1:
        cdef slot_t* slot = window_find(&self.sent, packet_id)
        if slot == NULL or slot.state != AWAIT_PUBCOMP:
            return False
        window_remove(&self.sent, slot)
        self.core.counters.in_flight -= 1
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
        return True

    cdef bint on_pubrel(self, uint16_t packet_id) except -1:
        cdef slot_t* slot = window_find(&self.received, packet_id)
        if slot == NULL:
            return False
        self.received_before -= slot.state == AWAIT_OLD_PUBREL
        window_remove(&self.received, slot)
        self.core.counters.awaiting_release -= 1
        return True

    # --- its end ------------------------------------------------------------------------------------------------

    cdef void set_will(self, msg_t* will, uint32_t delay_s) noexcept:
        # Takes the reference over.
        if self.will != NULL:
            msg_unref(self.will)
        self.will = will
        self.will_delay_s = delay_s

    cdef int clear(self) except -1:
        cdef entry_t* entry
        cdef uint16_t* ids = window_in_order(&self.sent)
        cdef uint32_t i, count = self.sent.count
        cdef slot_t* slot
        cdef msg_t* m
        cdef object group
        self.has_ended = True
        try:
            # What came through a shared subscription and was not begun goes to another member; QoS 2 in flight stays
            # with this client [MQTT-4.8.2-4] [MQTT-4.8.2-5].
            for i in range(count):
                slot = window_find(&self.sent, ids[i])
                if slot.group != NULL and slot.state == AWAIT_PUBACK:
                    m = msg_ref(slot.message)
                    group = <object>slot.group
                    try:
                        self.core.redistribute(m, group, self)
                    finally:
                        msg_unref(m)
                else:
                    self.core.counters.dropped[DROP_SESSION_ENDED] += slot.message != NULL
            while self.queue.count:
                entry = queue_head(&self.queue)
                if entry.group != NULL:
                    self.core.redistribute(entry.message, <object>entry.group, self)
                else:
                    self.core.counters.dropped[DROP_SESSION_ENDED] += 1
                self.core.counters.queued -= 1
                self.core.counters.queued_bytes -= self.queue.bytes
                queue_pop(&self.queue)
                self.core.counters.queued_bytes += self.queue.bytes
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
