"""Acknowledgements of a connection: those that come, and those it owes, at once or when the store is as far."""

from cpython.ref cimport Py_DECREF, Py_XDECREF
from libc.string cimport memset

from mqttcore.codec.codes cimport (
    PT_PUBACK, PT_PUBCOMP, PT_PUBLISH, PT_PUBREC, PT_PUBREL, RC_PACKET_IDENTIFIER_NOT_FOUND, RC_SUCCESS,
)
from mqttcore.codec.views cimport ack_view, decode_ack
from mqttcore.engine.holds cimport held_t, holds_clear, holds_head, holds_pop, holds_push, holds_t
from mqttcore.engine.inlet cimport PAUSE_STORE
from mqttcore.engine.journal cimport Journal
from mqttcore.engine.network_connection cimport STATE_CLOSED, STATE_CONNECTED
from mqttcore.engine.outbuf cimport out_clear


cdef class Acknowledger(Inlet):
    """Base of Connection: PUBACK, PUBREC, PUBREL and PUBCOMP, and what waits with them."""

    cdef int on_ack(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1:
        cdef ack_view view
        cdef uint64_t mark
        cdef int status = decode_ack(packet_type, first & 0x0F, body, size, self.version, &view)
        if status:
            return self.fail(status)
        if packet_type == PT_PUBACK:
            self.session.on_puback(view.packet_id)
        elif packet_type == PT_PUBREC:
            self.session.on_pubrec(view.packet_id, view.reason_code)
        elif packet_type == PT_PUBREL:
            # An unknown id is answered, never punished (MQTT 5 §4.3.3).
            mark = self.core.journal.writes if self.core.journal is not None else 0
            self.acknowledge(
                PT_PUBCOMP << 4, view.packet_id,
                RC_SUCCESS if self.session.on_pubrel(view.packet_id) else RC_PACKET_IDENTIFIER_NOT_FOUND, mark,
            )
        else:
            self.session.on_pubcomp(view.packet_id)
        return 0

    cdef int acknowledge(self, uint8_t first, uint16_t packet_id, uint8_t reason_code, uint64_t mark) except -1:
        # At once, or when the store is as far. mark: Journal.writes before what is acknowledged was done.
        cdef Journal journal = self.core.journal
        if journal is None or (journal.writes == mark and self.holds.count == 0):
            return self.send_ack(first, packet_id, reason_code)
        return self.hold(first, packet_id, reason_code, None)

    cdef int answer(self, bytes packet, uint64_t mark) except -1:
        # The same for a SUBACK or UNSUBACK; no other acknowledgement has to leave before it.
        if self.core.journal is None or self.core.journal.writes == mark:
            return self.send_bytes(packet)
        return self.hold(0, 0, 0, packet)

    # --- waiting for the store --------------------------------------------------------------------------------------------

    cdef int pause_for_store(self) except -1:
        # Too much is not safe yet: it is not read until that is less.
        if self.pauses & PAUSE_STORE or self.state != STATE_CONNECTED:
            return 0
        self.core.counters.publishers_paused += 1
        self.core.journal.paused.append(self)
        return self.pause(PAUSE_STORE)

    cdef int release(self) except -1:
        # Sends what waited for batches that are safe now.
        cdef uint64_t safe = self.core.journal.safe
        cdef held_t held
        cdef bytes packet
        if self.cork and self.cork <= safe:
            self.cork = 0
            self.mark_dirty()
        while self.holds.count and holds_head(&self.holds).batch <= safe:
            held = holds_pop(&self.holds)
            if held.packet != NULL:
                packet = <bytes>held.packet
                Py_DECREF(packet)         # ours; the variable holds another
                self.send_bytes(packet)
            elif held.first >> 4 == PT_PUBLISH:
                self.session.send_held(held.packet_id)
            else:
                self.send_ack(held.first, held.packet_id, held.reason_code)
        if self.session is not None and self.session.has_acked:
            self.session.pump()
        return 0

    cdef int refuse_held(self, uint8_t reason_code) except -1:
        # The store failed: who waits for PUBACK, SUBACK or CONNACK hears so. Exchanges of QoS 2 go on waiting: a message that
        # was taken will be delivered when the store works again, so its publisher must not begin anew, nor its receiver.
        cdef holds_t held_before = self.holds
        cdef held_t held
        if self.cork:
            out_clear(&self.out)
            self.cork = 0
            self.core.counters.connects_refused += 1
            self.send_refusal(reason_code, "the store fails" if self.wants_problem_information else None)
            self.close_reason = reason_code
            return self.end(False)
        memset(&self.holds, 0, sizeof(holds_t))
        try:
            while held_before.count:
                held = holds_pop(&held_before)
                if self.state == STATE_CLOSED:
                    Py_XDECREF(held.packet)
                elif held.packet != NULL or (self.version < 5 and held.first >> 4 == PT_PUBACK):
                    Py_XDECREF(held.packet)
                    self.close_with(reason_code, True, "the store fails")
                elif held.first >> 4 == PT_PUBACK:
                    self.send_ack(held.first, held.packet_id, max(held.reason_code, reason_code))
                else:
                    holds_push(&self.holds, held.batch, None, held.first, held.packet_id, held.reason_code)
        finally:
            holds_clear(&held_before)
        return 0
