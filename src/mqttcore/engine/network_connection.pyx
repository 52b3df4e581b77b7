"""The network connection under a client: its states, its clock, what it writes, and each way it ends."""

from cpython.bytes cimport PyBytes_GET_SIZE

from mqttcore.codec.codes cimport PROP_REASON_STRING, RC_KEEP_ALIVE_TIMEOUT, RC_NOT_AUTHORIZED
from mqttcore.codec.status cimport status_error
from mqttcore.codec.views cimport has_reason
from mqttcore.engine.core cimport Core
from mqttcore.engine.events cimport EVENT_CONNECTION_CLOSED
from mqttcore.engine.holds cimport holds_clear
from mqttcore.engine.message cimport TRACED_PUBLISHER
from mqttcore.engine.outbuf cimport out_clear
from mqttcore.engine.session cimport Session
from mqttcore.engine.timers cimport timer_arm, timer_disarm
from mqttcore.engine.watch cimport WATCH_ADDRESS

import logging

from mqttcore.codec import ConnAck, Disconnect

log = logging.getLogger("mqttcore.connection")

cdef enum:
    PUMP_ROUNDS = 8           # times a connection's queue is taken up again within one flush


cdef void on_timer(void* owner, int64_t now_ms) noexcept:
    cdef NetworkConnection connection = <NetworkConnection>owner        # its last other reference may go meanwhile
    connection.look_at_clock(now_ms)


cdef int refusal_code(uint8_t packet_type, object reason_code) except -1:
    # Whoever authenticates may name a code that this packet does not have: it refuses all the same.
    if 0x80 <= reason_code <= 0xFF and has_reason(packet_type, reason_code):
        return reason_code
    log.error("refused with reason code %r, which packet type %d does not have", reason_code, packet_type)
    return RC_NOT_AUTHORIZED


cdef class NetworkConnection(Outlet):
    """Base of Connection: what it is without the packets that come."""

    def __cinit__(self, Core core not None, object listener=None, object peer=None, **others):
        # others: what the __init__ of a driver's subclass takes.
        self.state = STATE_CLOSED     # until it is counted, it is not to be counted off
        self.core = core
        self.listener = listener
        self.given_peer = peer
        self.version = 4
        self.maximum_packet_size = PACKET_MAXIMUM
        self.close_reason = -1
        self.packet_maximum = getattr(listener, "maximum_packet_size_bytes", None) or PACKET_MAXIMUM
        self.opened_ms = self.last_received_ms = core.now_ms
        self.timer.owner = <void*>self
        self.timer.fire = on_timer
        timeout_ms = getattr(listener, "connect_timeout_ms", 0) or core.limits.connect_timeout_ms
        timer_arm(&core.wheel, &self.timer, core.now_ms + <int64_t>timeout_ms)
        self.state = STATE_NEW
        core.counters.connections += 1
        if core.counters.connections > core.counters.connections_peak:
            core.counters.connections_peak = core.counters.connections

    def __del__(self):
        # Not in __dealloc__: the collector may have taken the engine from us by then, and its wheel points at our timer.
        if self.state != STATE_CLOSED:
            self.state = STATE_CLOSED
            timer_disarm(&self.core.wheel, &self.timer)
            self.core.counters.connections -= 1
            self.drop_input()

    @property
    def is_closed(self) -> bool:
        """Whether the engine is done with this connection; what is pending may still be written."""
        return self.state == STATE_CLOSED

    @property
    def peer(self) -> object:
        """Address of the client: (host, port), a path, or None when the network has none."""
        return self.address()

    cdef object address(self):
        return self.given_peer

    @property
    def tls(self) -> object:
        """net.tls.TlsInfo: what TLS says of the client, ours or that of a proxy which told; None without."""
        return None

    @property
    def proxy(self) -> object:
        """net.proxy.ProxyInfo: what the PROXY header said; None without."""
        return None

    @property
    def pending_bytes(self) -> int:
        """Bytes waiting to be written."""
        return self.out.pending

    @property
    def current_session(self):
        """The session while connected, else None."""
        return self.session

    # --- what the network knows -------------------------------------------------------------------------------------------

    cdef int address_known(self) except -1:
        if self.core.tracer.subjects & WATCH_ADDRESS and self.core.tracer.look_at(self, None):
            self.traced = TRACED_PUBLISHER
        return 0

    cdef int failed_below(self, str reason) except -1:
        self.address_known()          # of a proxy that said nothing useful, its own
        return self.core.tracer.failed(self, reason) if self.traced else 0

    cdef str awaited(self):
        return None

    cdef int set_deadline(self, int64_t ms) except -1:
        if self.state == STATE_NEW:
            timer_arm(&self.core.wheel, &self.timer, self.core.now_ms + ms)
        return 0

    cdef int keep_alive_changed(self) except -1:
        return 0

    cdef void look_at_clock(self, int64_t now_ms) noexcept:
        # The timer rang: a connection without CONNECT, or one that may have been silent for 1.5 keep-alives.
        cdef int64_t due
        try:
            if self.state == STATE_NEW or self.state == STATE_ADMITTING:
                below = self.awaited()
                awaited = below or "CONNECT answered"
                log.info("%s: no %s within %d ms", self.peer, awaited, now_ms - self.opened_ms)
                if below is not None:
                    self.failed_below(f"no {below} in time")
                self.end(False, f"no {awaited} in time")
                return
            due = self.last_received_ms + <int64_t>self.keep_alive_s * 1500
            if self.is_paused:
                due = max(due, now_ms + 1000)     # we are not reading: silence proves nothing
            if due > now_ms:
                timer_arm(&self.core.wheel, &self.timer, due)
            else:
                log.info("client %s: silent for 1.5 x %d s", self.client_id, self.keep_alive_s)
                self.close_with(RC_KEEP_ALIVE_TIMEOUT, True, None)       # [MQTT-3.1.2-22]
        except Exception:
            log.exception("client %s: clock", self.client_id)

    # --- bytes out --------------------------------------------------------------------------------------------------------

    cdef bint write_out(self) except -1:
        return False                  # without a driver, output waits to be taken

    cdef int finish(self) except -1:
        return 0

    cdef int drain(self) except -1:
        cdef int rounds = 0
        cdef Session session          # held: a hook may end it while it is pumped
        while self.write_out():
            if self.state == STATE_CLOSED:
                return self.finish()
            session = self.session
            if session is None or not session.has_backlog():
                return 0
            if rounds == PUMP_ROUNDS:
                self.mark_dirty()     # goes on next turn: others wait too
                return 0
            rounds += 1
            session.pump()
            if not self.out.pending:
                if self.session is session and session.has_paused():
                    self.mark_dirty()
                return 0              # the window is full: acknowledgements go on from here
        return 0

    # --- the end ----------------------------------------------------------------------------------------------------------

    def close(self, reason_code: int, reason: str | None = None, *, publish_will: bool = False) -> None:
        """Close from the broker's side; MQTT 5 clients get DISCONNECT with *reason_code* [MQTT-4.13.1-1]."""
        self.close_with(reason_code, publish_will, reason)

    def connection_lost(self) -> None:
        """Tell that the network connection is gone without DISCONNECT."""
        self.lost()

    cdef int fail(self, int status) except -1:
        return self.fail_with(status_error(status))

    cdef int fail_with(self, object error) except -1:
        # The peer broke the standard: say so where the version can, then close [MQTT-4.13.1-1].
        self.core.counters.protocol_errors += 1
        log.info("client %s at %s: %s", self.client_id, self.peer, error)
        if self.traced:
            self.core.tracer.protocol_broken(self, error)
        if self.state == STATE_NEW:
            self.close_reason = error.reason_code
            return self.end(False)
        return self.close_with(error.reason_code, True, error.text)

    cdef int close_with(self, uint8_t reason_code, bint publish_will, str reason=None, bint send=True) except -1:
        cdef bytes packet
        if self.state == STATE_CLOSED:
            return 0
        self.close_reason = reason_code
        if send and self.version == 5 and self.state == STATE_CONNECTED:
            properties = {}
            if reason and self.wants_problem_information:
                properties[PROP_REASON_STRING] = reason           # [MQTT-3.14.2-3] below
            packet = Disconnect(reason_code, properties).encode(5)
            if PyBytes_GET_SIZE(packet) > self.maximum_packet_size:
                packet = Disconnect(reason_code, {}).encode(5)
            self.send_bytes(packet)
        return self.end(publish_will, None, reason)

    cdef int send_refusal(self, uint8_t reason_code, str reason) except -1:
        cdef bytes packet = ConnAck(False, reason_code, {}).encode(self.version)      # [MQTT-3.2.2-6]
        cdef bytes longer
        if reason is not None:
            longer = ConnAck(False, reason_code, {PROP_REASON_STRING: reason}).encode(self.version)
            if <uint32_t>len(longer) <= self.maximum_packet_size:                     # [MQTT-3.2.2-19]
                packet = longer
        return self.send_bytes(packet)

    cdef int lost(self) except -1:
        return self.end(True, "connection lost" if self.was_reset else "closed by client")

    cdef int end(self, bint publish_will, str reason=None, str detail=None) except -1:
        cdef Session session = self.session
        if self.state == STATE_CLOSED:
            return 0
        if session is not None and self.core.events.mask & EVENT_CONNECTION_CLOSED:
            self.core.events.closed(self.core.wall_ms(), self.core.view_of(self), self.close_reason, reason, detail)
        self.state = STATE_CLOSED
        if self.traced:
            self.core.tracer.closed(self, self.close_reason, reason, detail)
            self.traced = 0
        self.session = None
        self.connect = None
        timer_disarm(&self.core.wheel, &self.timer)
        self.core.counters.connections -= 1
        holds_clear(&self.holds)
        if self.cork:
            self.cork = 0
            out_clear(&self.out)      # it never heard that it was accepted, so nothing of what follows
        self.drop_input()
        self.drop_aliases()
        self.mark_dirty()             # what is pending is written, then the driver closes
        if session is not None:
            self.core.connection_ended(self, session, publish_will)
        if self.client is not None:
            self.core.client_gone(self)
        return 0

    cdef void drop_input(self) noexcept:
        pass
