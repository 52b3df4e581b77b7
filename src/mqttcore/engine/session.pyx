"""Sessions: how messages go to one client id, now or when it comes back."""

from cpython.ref cimport PyObject, Py_XDECREF, Py_XINCREF
from libc.stdint cimport uint16_t
from libc.stdlib cimport free

from mqttcore.engine.addressee cimport GUARD_HOOK, GUARD_MOUNT, GUARD_RULES
from mqttcore.engine.core cimport (
    DROP_EXPIRED,
    DROP_NOT_AUTHORIZED,
    DROP_SESSION_ENDED,
    DROP_SLOW_READER,
    DROP_TOO_LARGE,
)
from mqttcore.engine.kept_back cimport take_back
from mqttcore.engine.message cimport msg_ref, msg_t, msg_unref, msg_view
from mqttcore.engine.mount cimport is_within
from mqttcore.engine.queue cimport IS_DIRECT, IS_RETAINED, entry_t, queue_clear, queue_head, queue_pop
from mqttcore.engine.subscriber cimport AWAY, HEARD, KIND_SESSION, UNHEARD, subids_ref, subids_unref
from mqttcore.engine.window cimport (
    AWAIT_OLD_PUBREL,
    AWAIT_PUBACK,
    slot_t,
    window_clear,
    window_find,
    window_in_order,
    window_let_go,
    window_set_state,
)

cdef enum:
    CLEAR_AT_ONCE = 1000      # a queue longer than this is emptied in slices when its session ends


cdef class Session(Exchanges):
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

    # --- towards the client -----------------------------------------------------------------------------------------

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

    cdef bint has_backlog(self) noexcept:
        return self.resend != NULL or self.queue_qos0.count or self.queue.count or self.replays is not None

    cdef bint has_paused(self) noexcept:
        return (
            self.replays is not None and self.queue.count == 0 and self.resend == NULL
            and (self.replays.first().qos == 0 or self.has_window())
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
        cdef Replays replays = self.replays       # a hook may end them
        replays.pump(self)
        if not replays.running and self.replays is replays:
            self.replays = None
        return 0

    cdef int start_replay(self, bytes topic_filter, RetainedCursor cursor, uint8_t qos, bint no_local,
                          subids_t* ids) except -1:
        if self.replays is None:
            self.replays = Replays.__new__(Replays)
        return self.replays.start(topic_filter, cursor, qos, self.client_id if no_local else None, ids)

    cdef int stop_replay(self, bytes topic_filter) except -1:
        if self.replays is not None:
            self.replays.stop(topic_filter)
            if not self.replays.running:
                self.replays = None
        return 0

    # --- with and without a connection ------------------------------------------------------------------------------

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

    cdef int detach(self) except -1:
        take_back(self)
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

    # --- its end ----------------------------------------------------------------------------------------------------

    cdef int clear(self) except -1:
        cdef entry_t* entry
        cdef uint16_t* ids = window_in_order(&self.sent)
        cdef uint32_t i, count = self.sent.count
        cdef slot_t* slot
        cdef msg_t* m
        cdef object group
        self.has_ended = True
        take_back(self)
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
