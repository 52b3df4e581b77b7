"""The receiving half of a connection: bytes into packets, and when not to read."""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from mqttcore.codec.codes cimport PT_CONNECT, RC_MESSAGE_RATE_TOO_HIGH, RC_PACKET_TOO_LARGE
from mqttcore.codec.wire cimport read_varint
from mqttcore.engine.core cimport Core
from mqttcore.engine.network_connection cimport STATE_CLOSED, STATE_CONNECTED, STATE_NEW
from mqttcore.engine.rates cimport rates_new, rates_pressed, rates_set, rates_take
from mqttcore.engine.session cimport Session
from mqttcore.engine.timers cimport timer_arm, timer_disarm

import logging

from mqttcore.errors import MalformedPacket, PacketTooLarge

log = logging.getLogger("mqttcore.connection")

cdef enum:
    FIRST_REST = 64           # bytes; doubles as they arrive, never ahead of them


cdef void on_rate_timer(void* owner, int64_t now_ms) noexcept:
    cdef Inlet connection = <Inlet>owner
    try:
        connection.resume(PAUSE_RATE)
    except Exception:
        log.exception("client %s: going on after a pause", connection.client_id)


cdef class Inlet(NetworkConnection):
    """Base of Connection: what it reads."""

    def __dealloc__(self):
        free(self.rest)
        free(self.rates)

    cdef void drop_input(self) noexcept:
        if self.rates != NULL:
            timer_disarm(&self.core.wheel, &self.rates.timer)

    def receive(self, data: bytes) -> None:
        """Take bytes from the network, any part of any number of packets."""
        cdef const uint8_t[::1] view = data
        if view.shape[0]:
            self.feed(&view[0], view.shape[0])

    cdef int feed(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t used
        cdef Session session
        if self.state == STATE_CLOSED:
            return 0
        self.core.counters.bytes_in += size
        self.last_received_ms = self.core.now_ms
        if self.is_paused:
            return self.keep_rest(data, size)
        if self.rest_size:
            self.complete_rest(&data, &size)
        if size and self.state != STATE_CLOSED:
            if self.is_paused:
                return self.keep_rest(data, size)
            used = self.parse(data, size)
            if used < size and self.state != STATE_CLOSED:
                self.keep_rest(data + used, size - used)
        session = self.session
        if session is not None and session.has_acked:
            session.pump()            # acknowledgements that came together are answered together
            if session.has_backlog():
                self.mark_dirty()
        return 0

    cdef int keep_rest(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef uint32_t cap
        cdef uint8_t* grown
        if self.rest_cap - self.rest_size < size:
            cap = max(<uint32_t>FIRST_REST, self.rest_cap)
            while cap - self.rest_size < size:
                cap *= 2
            grown = <uint8_t*>realloc(self.rest, cap)
            if grown == NULL:
                raise MemoryError
            self.rest = grown
            self.rest_cap = cap
        memcpy(self.rest + self.rest_size, data, size)
        self.rest_size += <uint32_t>size
        return 0

    cdef int drop_rest(self, Py_ssize_t used) except -1:
        self.rest_size -= <uint32_t>used
        if self.rest_size:
            memmove(self.rest, self.rest + used, self.rest_size)
        else:
            free(self.rest)
            self.rest = NULL
            self.rest_cap = 0
        return 0

    cdef int complete_rest(self, const uint8_t** data, Py_ssize_t* size) except -1:
        # Adds to the torn packet just what completes it, so that all that follows is parsed where it lies.
        cdef Py_ssize_t take, used
        cdef uint32_t remaining = 0
        cdef int n
        while size[0] and self.rest_size and self.state != STATE_CLOSED and not self.is_paused:
            n = read_varint(self.rest + 1, self.rest_size - 1, &remaining) if self.rest_size > 1 else 0
            take = 1 + n + <Py_ssize_t>remaining - self.rest_size if n > 0 else 1
            if take > size[0]:
                take = size[0]
            if take > 0:
                self.keep_rest(data[0], take)
                data[0] += take
                size[0] -= take
            used = self.parse(self.rest, self.rest_size)
            if self.state != STATE_CLOSED and used:
                self.drop_rest(used)
        return 0

    cdef Py_ssize_t parse(self, const uint8_t* data, Py_ssize_t size) except -1:
        # Handles the whole packets at *data*; returns the bytes used. The borrowed bytes live until it returns.
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t total
        cdef uint32_t remaining
        cdef Py_ssize_t maximum
        cdef int n
        while size - at >= 2 and self.state != STATE_CLOSED and not self.is_paused:
            if data[at + 1] < 0x80:
                remaining = data[at + 1]
                n = 1
            else:
                n = read_varint(data + at + 1, size - at - 1, &remaining)
                if n == 0:
                    if self.state == STATE_NEW and data[at] != PT_CONNECT << 4:
                        self.on_first(data[at], data, 0)
                    break
                if n < 0:
                    self.fail_with(MalformedPacket(0x81, "MQTT-1.5.5-1", "Remaining Length is not a minimal Variable Byte Integer"))
                    break
            total = 1 + n + <Py_ssize_t>remaining
            maximum = min(self.core.limits.maximum_packet_size_bytes, self.packet_maximum)
            if self.state < STATE_CONNECTED:
                maximum = min(maximum, self.core.limits.connect_packet_bytes_maximum)     # for who nobody knows yet
            if total > maximum:
                # [MQTT-3.2.2-15]; said before any of the body is kept.
                self.fail_with(PacketTooLarge(
                    RC_PACKET_TOO_LARGE, "MQTT-3.2.2-15", f"packet of {total} bytes, maximum is {maximum}",
                ))
                break
            if self.state == STATE_NEW and data[at] != PT_CONNECT << 4:
                self.on_first(data[at], data, 0)
                break
            if size - at < total:
                break
            self.dispatch(data[at], data + at + 1 + n, remaining)
            at += total
        return at

    cdef int dispatch(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1:
        raise NotImplementedError

    cdef int on_first(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1:
        raise NotImplementedError

    # --- pauses -----------------------------------------------------------------------------------------------------------

    cdef int pause(self, uint8_t reason) except -1:
        if self.traced:
            self.core.tracer.paused(self, reason)
        self.pauses |= reason
        return self.set_paused(True)

    cdef int resume(self, uint8_t reason) except -1:
        if not self.pauses & reason:
            return 0
        self.pauses &= <uint8_t>~reason
        if self.traced and not self.pauses:
            self.core.tracer.paused(self, 0)
        return self.set_paused(self.pauses != 0)

    cdef int set_paused(self, bint paused) except -1:
        cdef uint8_t* rest
        cdef uint32_t size
        cdef Py_ssize_t used
        if self.is_paused == paused or self.state == STATE_CLOSED:
            return 0
        self.is_paused = paused
        if not paused and self.rest_size:
            # Taken off first: handling it may pause again and keep more.
            rest = self.rest
            size = self.rest_size
            self.rest = NULL
            self.rest_size = self.rest_cap = 0
            try:
                used = self.parse(rest, size)
                if used < size and self.state != STATE_CLOSED:
                    self.keep_rest(rest + used, size - used)
            finally:
                free(rest)
            self.mark_dirty()
        self.paused_changed()
        return 0

    cdef int paused_changed(self) except -1:
        return 0

    # --- rates ------------------------------------------------------------------------------------------------------------

    cdef bint is_too_fast(self, Py_ssize_t size) except -1:
        cdef Core core = self.core
        cdef int64_t wait_ms = rates_take(self.rates, size, core.now_ms)
        cdef int64_t pressed_ms
        if wait_ms == 0:
            return False
        pressed_ms = rates_pressed(self.rates, wait_ms, core.now_ms)
        if core.limits.rate_excess_maximum_ms and pressed_ms >= core.limits.rate_excess_maximum_ms:
            log.info("client %s: over its rate for %d ms", self.client_id, pressed_ms)
            self.close_with(RC_MESSAGE_RATE_TOO_HIGH, True, "too many messages or bytes a second")
            return True
        core.counters.rate_limited += 1
        self.pause(PAUSE_RATE)                # what has come is taken, what follows waits
        timer_arm(&core.wheel, &self.rates.timer, core.now_ms + wait_ms)
        return False

    cdef int set_rates(self, double messages_per_s, double bytes_per_s) except -1:
        if messages_per_s == 0 and bytes_per_s == 0:
            if self.rates != NULL:
                timer_disarm(&self.core.wheel, &self.rates.timer)
                free(self.rates)
                self.rates = NULL
        elif self.rates == NULL:
            self.rates = rates_new(messages_per_s, bytes_per_s, self.core.now_ms)
            self.rates.timer.owner = <void*>self
            self.rates.timer.fire = on_rate_timer
        else:
            rates_set(self.rates, messages_per_s, bytes_per_s, self.core.now_ms)
            timer_disarm(&self.core.wheel, &self.rates.timer)
        return self.resume(PAUSE_RATE)
