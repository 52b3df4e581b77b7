"""Exchanges of QoS 1 and 2 with a client, in both directions: packet ids, acknowledgements, resends."""

from cpython.ref cimport PyObject, Py_XINCREF
from libc.stdlib cimport free

from mqttcore.codec.codes cimport PT_PUBREL
from mqttcore.engine.addressee cimport GUARD_HOOK
from mqttcore.engine.core cimport DROP_LOST, DROP_NOT_AUTHORIZED, DROP_TOO_LARGE
from mqttcore.engine.journal cimport Journal
from mqttcore.engine.message cimport msg_ref, msg_t, msg_unref, msg_view, pub_keep, stored_ref
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.queue cimport IS_RETAINED
from mqttcore.engine.share cimport ShareGroup
from mqttcore.engine.subscriber cimport subids_ref
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
    window_let_go,
    window_next_id,
    window_remove,
)


cdef class Exchanges(Backlog):
    """Base of Session: what is in flight to and from its client."""

    def __dealloc__(self):
        window_clear(&self.sent)
        window_clear(&self.received)
        free(self.resend)

    @property
    def in_flight(self) -> int:
        """QoS 1 and 2 messages sent and not completed."""
        return self.sent.count

    @property
    def awaiting_release(self) -> int:
        """QoS 2 messages received and not released."""
        return self.received.count

    # --- to the client --------------------------------------------------------------------------------------------

    cdef bint has_window(self) noexcept:
        return self.sent.count < self.window_size and self.sent.bytes < self.core.limits.in_flight_bytes_maximum

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

    # --- to the client once more ----------------------------------------------------------------------------------

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

    # --- from the client ------------------------------------------------------------------------------------------

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
