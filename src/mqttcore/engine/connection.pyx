"""The state machine of one network connection, sans-io: feed() in, packets and requests to the engine out."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_XDECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from mqttcore.codec.codes cimport (
    PROP_REASON_STRING,
    PROP_SESSION_EXPIRY_INTERVAL,
    PROP_SUBSCRIPTION_IDENTIFIER,
    PT_AUTH,
    PT_CONNACK,
    PT_CONNECT,
    PT_DISCONNECT,
    PT_PINGREQ,
    PT_PUBACK,
    PT_PUBCOMP,
    PT_PUBLISH,
    PT_PUBREC,
    PT_PUBREL,
    PT_SUBSCRIBE,
    PT_UNSUBSCRIBE,
    RC_IMPLEMENTATION_SPECIFIC_ERROR,
    RC_KEEP_ALIVE_TIMEOUT,
    RC_MESSAGE_RATE_TOO_HIGH,
    RC_NO_MATCHING_SUBSCRIBERS,
    RC_NOT_AUTHORIZED,
    RC_PACKET_IDENTIFIER_NOT_FOUND,
    RC_PACKET_TOO_LARGE,
    RC_PROTOCOL_ERROR,
    RC_QOS_NOT_SUPPORTED,
    RC_QUOTA_EXCEEDED,
    RC_RECEIVE_MAXIMUM_EXCEEDED,
    RC_RETAIN_NOT_SUPPORTED,
    RC_SUCCESS,
    RC_TOPIC_ALIAS_INVALID,
    RC_TOPIC_NAME_INVALID,
)
from mqttcore.codec.names cimport check_topic_name
from mqttcore.codec.packets cimport decode_body
from mqttcore.codec.status cimport status_error
from mqttcore.codec.views cimport ack_view, decode_ack, decode_publish, has_reason
from mqttcore.codec.wire cimport read_varint, varint_size
from mqttcore.engine.core cimport DROP_NOT_AUTHORIZED, DROP_QUOTA, Core
from mqttcore.engine.events cimport EVENT_CLIENT_DISCONNECTED, EVENT_CONNECT_REFUSED, EVENT_CONNECTION_CLOSED, EVENT_MESSAGE_DROPPED
from mqttcore.engine.holds cimport held_t, holds_clear, holds_head, holds_pop, holds_push, holds_t
from mqttcore.engine.hooks cimport HOOK_AUTHORIZE_PUBLISH, HOOK_AUTHORIZE_SUBSCRIBE, HOOK_TRANSFORM_PUBLISH
from mqttcore.engine.journal cimport Journal
from mqttcore.engine.message cimport TRACED_PUBLISHER, pub_done, pub_t
from mqttcore.engine.mount cimport TOPIC_BYTES_MAXIMUM, mounted, mounted_filter, mounted_subscribe, refusal_of_topic
from mqttcore.engine.outbuf cimport out_clear, out_reserve, out_take, out_wrote
from mqttcore.engine.permissions cimport MAY_PUBLISH, Rights, verdict_permits
from mqttcore.engine.rates cimport rates_new, rates_pressed, rates_set, rates_take
from mqttcore.engine.timers cimport timer_arm, timer_disarm
from mqttcore.engine.topics cimport OPT_QOS, route_t
from mqttcore.engine.watch cimport WATCH_ADDRESS

import logging

from mqttcore.codec import ConnAck, Disconnect, SubAck, UnsubAck
from mqttcore.errors import MalformedPacket, PacketTooLarge, ProtocolError

log = logging.getLogger("mqttcore.connection")

cdef enum:
    HOOKS_OF_PUBLISH = HOOK_AUTHORIZE_PUBLISH | HOOK_TRANSFORM_PUBLISH
    FIRST_REST = 64           # bytes; doubles as they arrive, never ahead of them
    PUMP_ROUNDS = 8           # times a connection's queue is taken up again within one flush


cdef void on_timer(void* owner, int64_t now_ms) noexcept:
    cdef Connection connection = <Connection>owner        # its last other reference may go meanwhile
    connection.look_at_clock(now_ms)


cdef void on_rate_timer(void* owner, int64_t now_ms) noexcept:
    cdef Connection connection = <Connection>owner
    try:
        connection.resume(PAUSE_RATE)
    except Exception:
        log.exception("client %s: going on after a pause", connection.client_id)


cdef int refusal_code(uint8_t packet_type, object reason_code) except -1:
    # Whoever authenticates may name a code that this packet does not have: it refuses all the same.
    if 0x80 <= reason_code <= 0xFF and has_reason(packet_type, reason_code):
        return reason_code
    log.error("refused with reason code %r, which packet type %d does not have", reason_code, packet_type)
    return RC_NOT_AUTHORIZED


cdef class Connection(Outlet):
    """One network connection; drivers subclass it to read and write, tests drive it as it is.

    listener: an object with `name` and `allow_anonymous`; `connect_timeout_ms` and `maximum_packet_size_bytes` where it has
    its own. peer: the client's address in whatever form the driver has.
    """

    def __cinit__(self, Core core, object listener=None, object peer=None, **others):
        # others: what the __init__ of a driver's subclass takes.
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
        core.counters.connections += 1
        if core.counters.connections > core.counters.connections_peak:
            core.counters.connections_peak = core.counters.connections

    def __del__(self):
        # Not in __dealloc__: the collector may have taken the engine from us by then, and its wheel points at our timer.
        if self.state != STATE_CLOSED:
            self.state = STATE_CLOSED
            timer_disarm(&self.core.wheel, &self.timer)
            self.core.counters.connections -= 1
            if self.rates != NULL:
                timer_disarm(&self.core.wheel, &self.rates.timer)

    def __dealloc__(self):
        free(self.rest)
        free(self.rates)
        self.free_aliases()

    # --- Python face ----------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the network, any part of any number of packets."""
        cdef const uint8_t[::1] view = data
        if view.shape[0]:
            self.feed(&view[0], view.shape[0])

    def take_output(self) -> bytes:
        """Return what is to be written and forget it; for drivers without C access, and tests."""
        cdef bytes taken
        if self.cork:
            return b""
        taken = out_take(&self.out)
        if self.session is not None and self.session.has_backlog():
            self.session.pump()           # there is room again
            while not self.out.pending and self.session is not None and self.session.has_paused():
                self.session.pump()
        return taken

    def connection_lost(self) -> None:
        """Tell that the network connection is gone without DISCONNECT."""
        self.lost()

    def close(self, reason_code: int, reason: str | None = None, *, publish_will: bool = False) -> None:
        """Close from the broker's side; MQTT 5 clients get DISCONNECT with *reason_code* [MQTT-4.13.1-1]."""
        self.close_with(reason_code, publish_will, reason)

    def refuse(self, reason_code: int, reason: str | None = None) -> None:
        """Refuse the CONNECT being admitted [MQTT-3.1.4-2] or the re-authentication under way [MQTT-4.12.1-2], and close.

        reason_code: an error of CONNACK, of DISCONNECT when re-authenticating; Not authorized (0x87) stands for any other.
        """
        if self.state == STATE_CONNECTED and self.is_reauthenticating:
            self.close_with(refusal_code(PT_DISCONNECT, reason_code), True, reason)     # [MQTT-3.14.2-1]
        if self.state != STATE_ADMITTING:
            return
        reason_code = refusal_code(PT_CONNACK, reason_code)       # [MQTT-3.2.2-8]
        self.core.counters.connects_refused += 1
        self.send_refusal(reason_code, reason if self.wants_problem_information else None)
        self.close_reason = reason_code
        self.note_refusal(reason_code, reason)
        self.end(False)

    cdef int note_refusal(self, uint8_t reason_code, str reason) except -1:
        if self.core.events.mask & EVENT_CONNECT_REFUSED:
            self.core.events.refused(self.core.wall_ms(), self.core.view_of(self), reason_code, reason)
        if self.traced:
            self.core.tracer.connect_refused(self, reason_code, reason)
        return 0

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

    # --- bytes in ---------------------------------------------------------------------------------------------------

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
        cdef uint8_t packet_type = first >> 4
        self.core.counters.packets_in[packet_type] += 1
        if self.state == STATE_NEW:
            return self.on_first(first, body, size)
        if self.traced:
            self.core.tracer.packet_in(self, first, body, size)
        if self.state == STATE_ADMITTING and packet_type != PT_AUTH and packet_type != PT_DISCONNECT:
            # Authentication is under way and there is no session yet [MQTT-3.1.2-30].
            return self.fail_with(ProtocolError(RC_PROTOCOL_ERROR, "MQTT-3.1.2-30", "neither AUTH nor DISCONNECT before CONNACK"))
        if packet_type == PT_PUBLISH:
            return self.on_publish(first, body, size)
        if PT_PUBACK <= packet_type <= PT_PUBCOMP:
            return self.on_ack(packet_type, first, body, size)
        return self.on_rare(packet_type, first, body, size)

    # --- CONNECT ----------------------------------------------------------------------------------------------------

    cdef int on_first(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1:
        cdef object packet
        if first >> 4 != PT_CONNECT:
            # [MQTT-3.1.0-1]; nothing is said to a peer that may not speak MQTT at all.
            return self.fail_with(ProtocolError(RC_PROTOCOL_ERROR, "MQTT-3.1.0-1", "the first packet is not CONNECT"))
        try:
            packet = decode_body(first, body, size, self.version)
        except ProtocolError as error:
            return self.refuse_connect(error)
        self.version = packet.protocol_version
        self.client_id = packet.client_id
        self.clean_start = packet.clean_start
        self.connect = packet
        self.state = STATE_ADMITTING
        if self.core.tracer.subjects and self.core.tracer.identified(self, packet, size):
            self.traced = TRACED_PUBLISHER
        return self.core.admit(self, packet)

    cdef int send_refusal(self, uint8_t reason_code, str reason) except -1:
        cdef bytes packet = ConnAck(False, reason_code, {}).encode(self.version)      # [MQTT-3.2.2-6]
        cdef bytes longer
        if reason is not None:
            longer = ConnAck(False, reason_code, {PROP_REASON_STRING: reason}).encode(self.version)
            if <uint32_t>len(longer) <= self.maximum_packet_size:                     # [MQTT-3.2.2-19]
                packet = longer
        return self.send_bytes(packet)

    cdef int refuse_connect(self, object error) except -1:
        # A CONNECT that cannot be read. An unsupported version is answered in the one it named [MQTT-3.1.2-2].
        cdef int version = getattr(error, "protocol_version", 0) or 0
        self.core.counters.connects_refused += 1
        self.core.counters.protocol_errors += 1
        log.info("CONNECT from %s refused: %s", self.peer, error)
        if error.reason_code == 0x84:
            # Under another name it is no MQTT, and nothing is said [v3 MQTT-3.1.4-1]. Bridges of other brokers mark
            # themselves in the level's top bit, and try without it when they are refused in their own version.
            if error.protocol_version is not None:
                self.send_bytes(ConnAck(False, error.reason_code, {}).encode(5 if version & 0x7F > 4 else 4))
        elif version == 5:
            self.version = 5
            if error.maximum_packet_size is not None:
                self.maximum_packet_size = error.maximum_packet_size
            self.send_refusal(error.reason_code, error.text)
        self.close_reason = error.reason_code
        self.note_refusal(error.reason_code, error.text)
        return self.end(False)

    cdef int connected(self, Session session, uint16_t keep_alive_s) except -1:
        self.session = session
        self.state = STATE_CONNECTED
        self.connect = None
        self.keep_alive_s = keep_alive_s
        self.keep_alive_changed()
        if keep_alive_s:
            timer_arm(&self.core.wheel, &self.timer, self.core.now_ms + <int64_t>keep_alive_s * 1500)
        else:
            timer_disarm(&self.core.wheel, &self.timer)
        return 0

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

    cdef int address_known(self) except -1:
        if self.core.tracer.subjects & WATCH_ADDRESS and self.core.tracer.look_at(self, None):
            self.traced = TRACED_PUBLISHER
        return 0

    cdef str awaited(self):
        return None

    cdef int failed_below(self, str reason) except -1:
        self.address_known()          # of a proxy that said nothing useful, its own
        return self.core.tracer.failed(self, reason) if self.traced else 0

    cdef int set_deadline(self, int64_t ms) except -1:
        if self.state == STATE_NEW:
            timer_arm(&self.core.wheel, &self.timer, self.core.now_ms + ms)
        return 0

    cdef int keep_alive_changed(self) except -1:
        return 0

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

    # --- PUBLISH ----------------------------------------------------------------------------------------------------

    cdef int on_publish(self, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1:
        cdef publish_view view
        cdef pub_t pub
        cdef route_t* route
        cdef Core core = self.core
        cdef Session session = self.session
        cdef Py_ssize_t targets = 0
        cdef uint8_t* props
        cdef uint8_t reason_code = RC_SUCCESS
        cdef uint32_t cut
        cdef uint64_t mark = core.journal.writes if core.journal is not None else 0
        cdef bytes whole                      # of what a mounted client said; view.topic points into it
        cdef uint8_t refused = 0
        cdef bint is_taken = False            # by a topic handler, or refused
        cdef bint is_for_handlers_only = False
        cdef int status = decode_publish(first & 0x0F, body, size, self.version, &view)
        if status:
            return self.fail(status)
        if self.rates != NULL and self.is_too_fast(size):
            return 0
        if view.qos > core.limits.maximum_qos:
            return self.fail_with(ProtocolError(RC_QOS_NOT_SUPPORTED, "MQTT-3.2.2-11", f"QoS {view.qos} is not supported"))
        if view.retain and not core.limits.retain_available:
            return self.fail_with(ProtocolError(RC_RETAIN_NOT_SUPPORTED, "MQTT-3.2.2-14", "retained messages are not supported"))
        if self.mount is not None:
            if view.topic_size:
                whole = mounted(self.mount, view.topic, view.topic_size)
                view.topic = <const uint8_t*>PyBytes_AS_STRING(whole)
                view.topic_size = <uint32_t>PyBytes_GET_SIZE(whole)
            if view.topic_alias and not self.resolve_alias(&view):
                return 0
            if view.topic_size:
                refused = refusal_of_topic(self.mount, view.topic, view.topic_size, core.limits.topic_bytes_maximum)
        elif view.topic_alias and not self.resolve_alias(&view):
            return 0
        if view.qos == 2:
            if not session.begin_receive(view.packet_id):                             # [MQTT-4.3.3-10]
                if session.is_received_unsafe(view.packet_id):
                    return self.hold(PT_PUBREC << 4, view.packet_id, RC_SUCCESS, None)
                return self.acknowledge(PT_PUBREC << 4, view.packet_id, RC_SUCCESS, mark)
            if (
                self.version == 5 and core.limits.enforce_receive_maximum
                # what is left of earlier connections does not count, but is bounded, too
                and session.received.count > core.limits.receive_maximum
                + min(session.received_before, core.limits.receive_maximum)
            ):
                session.on_pubrel(view.packet_id)     # not taken: it must be new when it is sent again
                return self.fail_with(ProtocolError(
                    RC_RECEIVE_MAXIMUM_EXCEEDED, "MQTT-3.3.4-7", "more QoS 2 messages than Receive Maximum"
                ))
        core.counters.messages_in[view.qos] += 1
        core.counters.message_bytes_in += view.payload_size
        # A topic that has a route was checked when the route was made.
        route = core.topics.known(view.topic, view.topic_size)
        if route == NULL or view.topic[0] == c"$" or refused:
            status = check_topic_name(view.topic, view.topic_size)
            if status:
                if view.qos == 2:
                    session.on_pubrel(view.packet_id)
                return self.fail(status)
            if refused:
                return self.refuse_publish(&view, refused)
            if self.mount is None and view.topic_size > core.limits.topic_bytes_maximum:
                return self.refuse_publish(&view, RC_TOPIC_NAME_INVALID)
            is_for_handlers_only = view.topic_size >= 5 and view.topic[:5] == b"$SYS/"
            if is_for_handlers_only and not core.topics.handlers:
                return self.refuse_publish(&view, RC_NOT_AUTHORIZED)
            if session.rights is not None and not core.topics.handlers and not verdict_permits(
                session.rights.judge(MAY_PUBLISH, view.topic, view.topic_size), view.qos, view.retain
            ):
                return self.refuse_publish(&view, RC_NOT_AUTHORIZED)      # before a route is made for it
            route = core.topics.route(view.topic, view.topic_size)
            if is_for_handlers_only and not route.handler_count:
                return self.refuse_publish(&view, RC_NOT_AUTHORIZED)
        pub.topic = view.topic
        pub.topic_size = view.topic_size
        pub.payload = view.payload
        pub.payload_size = view.payload_size
        pub.props = view.props
        pub.props_size = view.props_size
        pub.expiry_at = view.expiry_at
        pub.expires_ms = core.now_ms + <int64_t>view.expiry_s * 1000 if view.expiry_at else 0
        pub.origin = <void*>session
        pub.publisher = session.as_publisher() if session.publisher is None else <PyObject*>session.publisher
        pub.birth = &core.birth
        pub.kept = NULL
        pub.qos = view.qos
        pub.retain = view.retain
        pub.is_utf8 = view.is_utf8
        pub.is_replay = 0
        pub.traced = self.traced
        if view.alias_at:
            # An alias is a matter of one connection [MQTT-3.3.2-9]: the block goes on without it.
            cut = view.alias_at - 1
            props = core.scratch(view.props_size)
            memcpy(props, view.props, cut)
            memcpy(props + cut, view.props + cut + 3, view.props_size - cut - 3)
            pub.props = props
            pub.props_size -= 3
            if pub.expiry_at > view.alias_at:
                pub.expiry_at -= 3
        try:
            if route.handler_count or session.rights is not None or core.hook_mask & HOOKS_OF_PUBLISH:
                is_taken = self.examine(&pub, &route, is_for_handlers_only, &reason_code)
            if not is_taken:
                if core.is_refusing:
                    reason_code = core.refusal(&pub, route)
                if reason_code:
                    is_taken = True
                else:
                    targets = core.publish(&pub, route)
        finally:
            pub_done(&pub)
        if is_taken:
            if reason_code >= 0x80:
                if self.state != STATE_CONNECTED:
                    return 0
                if core.is_refusing and (
                    reason_code == RC_QUOTA_EXCEEDED or reason_code == RC_IMPLEMENTATION_SPECIFIC_ERROR
                ):
                    return self.refuse_unkept(&view, reason_code)
                return self.refuse_publish(&view, reason_code)
            self.tell_diverted(&view, reason_code)
        if view.qos and self.state == STATE_CONNECTED:        # a handler may have closed it
            if is_taken:
                pass
            elif targets == 0:
                reason_code = RC_NO_MATCHING_SUBSCRIBERS
            elif targets == -2:
                reason_code = RC_QUOTA_EXCEEDED
                if view.qos == 2 and self.version == 5:
                    session.on_pubrel(view.packet_id)
            self.acknowledge((PT_PUBACK if view.qos == 1 else PT_PUBREC) << 4, view.packet_id, reason_code, mark)
        if core.journal is not None and core.journal.is_full() and core.journal.writes != mark:
            self.pause_for_store()
        if core.congested != NULL:
            core.pause_publisher(self)
        return 0

    cdef int tell_diverted(self, publish_view* view, uint8_t reason_code) except -1:
        # To who watches. The topic of a connection that is gone may be, too.
        if (self.traced or self.core.tracer.wants_topics()) and self.state == STATE_CONNECTED:
            self.core.tracer.diverted(self, view.topic, view.topic_size, view.qos, view.payload_size, reason_code)
        return 0

    cdef int refuse_unkept(self, publish_view* view, uint8_t reason_code) except -1:
        # What cannot be kept is not taken. 3.1.1 has no way to say so but to close without an acknowledgement.
        self.tell_diverted(view, reason_code)
        if view.qos == 2:
            self.session.on_pubrel(view.packet_id)
        if self.version < 5:
            return self.close_with(reason_code, True, None)
        if self.holds.count and (view.qos == 2 or not self.core.journal.failure):
            # In order [MQTT-4.6.0-2] [MQTT-4.6.0-3]; where the store fails, no PUBACK is waiting.
            return self.hold((PT_PUBACK if view.qos == 1 else PT_PUBREC) << 4, view.packet_id, reason_code, None)
        return self.send_ack((PT_PUBACK if view.qos == 1 else PT_PUBREC) << 4, view.packet_id, reason_code)

    cdef bint examine(self, pub_t* pub, route_t** route, bint is_for_handlers_only, uint8_t* reason_code) except -1:
        # The order: handlers that authorise by themselves, rights, hooks, the other handlers. Each that is Python may close
        # this connection, and change what routes lead to. After a handler *pub* stands on its own and goes on all the same;
        # a hook that closes the connection ends it.
        cdef Core core = self.core
        cdef Rights rights = self.session.rights
        cdef int refused
        if route[0].early_count:
            if core.handle(self, pub, route[0], 0, route[0].early_count, reason_code):
                return True
            route[0] = core.topics.route(pub.topic, pub.topic_size)
        if rights is not None and rights.has_rules and not verdict_permits(
            rights.verdict(MAY_PUBLISH, pub.topic, pub.topic_size, route[0].hash), pub.qos, pub.retain
        ):
            reason_code[0] = RC_NOT_AUTHORIZED
            return True
        if rights is not None and pub.payload_size > rights.payload_bytes_maximum:
            if self.version == 5 and pub.qos:     # who can be told is
                reason_code[0] = RC_QUOTA_EXCEEDED
            else:
                core.counters.dropped[DROP_QUOTA] += 1
            return True
        if core.hook_mask & HOOKS_OF_PUBLISH:
            refused = core.authorize_publish(self, pub) if core.hook_mask & HOOK_AUTHORIZE_PUBLISH else 0
            if refused == 0 and self.state == STATE_CONNECTED and core.hook_mask & HOOK_TRANSFORM_PUBLISH:
                refused = core.transform_publish(self, pub)
            if refused:
                reason_code[0] = <uint8_t>refused
            if refused or self.state != STATE_CONNECTED:
                return True
            route[0] = core.topics.route(pub.topic, pub.topic_size)
        if route[0].handler_count > route[0].early_count:
            if core.handle(self, pub, route[0], route[0].early_count, route[0].handler_count, reason_code):
                return True
            route[0] = core.topics.route(pub.topic, pub.topic_size)
        if is_for_handlers_only:
            reason_code[0] = RC_NOT_AUTHORIZED
            return True
        return False

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

    cdef int check_changed(self, pub_t* pub) except -1:
        # A topic that a plugin chose: as that of any PUBLISH.
        cdef Session session = self.session
        cdef Py_ssize_t maximum = self.core.limits.topic_bytes_maximum
        if self.mount is not None:
            maximum = min(maximum + PyBytes_GET_SIZE(self.mount), <Py_ssize_t>TOPIC_BYTES_MAXIMUM)
        if check_topic_name(pub.topic, pub.topic_size) or pub.topic_size > maximum:
            return RC_TOPIC_NAME_INVALID
        if pub.topic_size >= 5 and pub.topic[:5] == b"$SYS/":
            return RC_NOT_AUTHORIZED
        if session.rights is not None and not verdict_permits(
            session.rights.judge(MAY_PUBLISH, pub.topic, pub.topic_size), pub.qos, pub.retain
        ):
            return RC_NOT_AUTHORIZED
        return 0

    cdef int refuse_publish(self, publish_view* view, uint8_t reason_code) except -1:
        # Not delivered. 3.1.1 has no way to say so in an acknowledgement, nor has QoS 0 any: then the connection is closed,
        # unless dropping without a word is what the operator wants [v3 MQTT-3.3.5-2].
        # A message of QoS 0 that could not be handled (0x80 and others) is lost like any other.
        cdef bint can_tell = self.version == 5 and view.qos > 0
        cdef bint closes = not can_tell and self.core.limits.refused_publish_disconnects and (
            reason_code == RC_NOT_AUTHORIZED or (view.qos > 0 and reason_code != RC_TOPIC_NAME_INVALID)
        )
        self.tell_diverted(view, reason_code)
        self.core.counters.dropped[DROP_NOT_AUTHORIZED] += 1
        if self.core.events.mask & EVENT_MESSAGE_DROPPED:
            self.core.events.count_drop(self.client_id, DROP_NOT_AUTHORIZED)
        if view.qos == 2 and (can_tell or closes):
            self.session.on_pubrel(view.packet_id)        # PUBREC with an error ends the exchange
        if reason_code == RC_NOT_AUTHORIZED and (can_tell or closes) and self.session.identity is not None:
            self.core.tell_refused(
                self, MAY_PUBLISH, PyUnicode_DecodeUTF8(<const char*>view.topic, view.topic_size, NULL)
            )
            if self.state != STATE_CONNECTED:
                return 0
        if closes:
            log.info("client %s: refused to publish to %r: 0x%02X", self.client_id, view.topic[:view.topic_size], reason_code)
            return self.close_with(refusal_code(PT_DISCONNECT, reason_code), True, "refused to publish there")
        if view.qos:
            self.acknowledge(
                (PT_PUBACK if view.qos == 1 else PT_PUBREC) << 4, view.packet_id, reason_code,
                self.core.journal.writes if self.core.journal is not None else 0,
            )
        return 0

    cdef int resolve_alias(self, publish_view* view) except -1:
        # 1: view has its topic; 0: the connection was closed. [MQTT-3.3.2-7] [MQTT-3.3.2-9]
        cdef alias_t* place
        cdef uint8_t* copy
        cdef int status
        if view.topic_alias > self.core.limits.topic_alias_maximum:
            self.fail_with(ProtocolError(
                RC_TOPIC_ALIAS_INVALID, "MQTT-3.3.2-9",
                f"Topic Alias {view.topic_alias}, maximum is {self.core.limits.topic_alias_maximum}",
            ))
            return 0
        if self.received_aliases == NULL:
            self.received_aliases = <alias_t*>calloc(self.core.limits.topic_alias_maximum, sizeof(alias_t))
            if self.received_aliases == NULL:
                raise MemoryError
            self.received_alias_count = self.core.limits.topic_alias_maximum
        place = &self.received_aliases[view.topic_alias - 1]
        if view.topic_size == 0:
            if place.size == 0:
                self.fail_with(ProtocolError(
                    RC_PROTOCOL_ERROR, "§3.3.2.3.4", f"Topic Alias {view.topic_alias} was never set"
                ))
                return 0
            view.topic = place.topic
            view.topic_size = place.size
            return 1
        status = check_topic_name(view.topic, view.topic_size)
        if status:
            self.fail(status)
            return 0
        copy = <uint8_t*>malloc(view.topic_size)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, view.topic, view.topic_size)
        free(place.topic)
        place.topic = copy
        place.size = view.topic_size
        return 1

    cdef void free_aliases(self) noexcept:
        cdef uint16_t i
        if self.received_aliases != NULL:
            for i in range(self.received_alias_count):
                free(self.received_aliases[i].topic)
            free(self.received_aliases)
            self.received_aliases = NULL

    # --- acknowledgements -------------------------------------------------------------------------------------------

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

    # --- everything else --------------------------------------------------------------------------------------------

    cdef int on_rare(self, uint8_t packet_type, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1:
        cdef object packet
        cdef uint8_t* p
        if packet_type == PT_PINGREQ:
            if first & 0x0F or size:
                return self.fail_with(MalformedPacket(0x81, "MQTT-2.1.3-1", "PINGREQ with flags or a body"))
            p = out_reserve(&self.out, 2)
            p[0] = 0xD0
            p[1] = 0
            out_wrote(&self.out, 2)
            self.core.counters.packets_out[13] += 1
            self.mark_dirty()
            if self.traced:
                self.core.tracer.packet_out(self, p, 2)
            return 0                                      # [MQTT-3.12.4-1]
        if packet_type == PT_CONNECT:
            return self.fail_with(ProtocolError(RC_PROTOCOL_ERROR, "MQTT-3.1.0-2", "second CONNECT"))
        if packet_type == PT_AUTH and self.version != 5:
            return self.fail_with(MalformedPacket(0x81, "v3 §2.2.1", "packet type 15 is reserved"))
        if packet_type not in (PT_SUBSCRIBE, PT_UNSUBSCRIBE, PT_DISCONNECT, PT_AUTH):
            return self.fail_with(ProtocolError(
                RC_PROTOCOL_ERROR if packet_type else 0x81, "§2.1.2", f"a client does not send packet type {packet_type}"
            ))
        try:
            packet = decode_body(first, body, size, self.version)
        except ProtocolError as error:
            return self.fail_with(error)
        if packet_type == PT_SUBSCRIBE:
            return self.on_subscribe(packet)
        if packet_type == PT_UNSUBSCRIBE:
            return self.on_unsubscribe(packet)
        if packet_type == PT_DISCONNECT:
            return self.on_disconnect(packet)
        return self.core.continue_authentication(self, packet)

    cdef int on_subscribe(self, object packet) except -1:
        cdef object subscription
        cdef int subid = packet.properties.get(PROP_SUBSCRIPTION_IDENTIFIER, 0)
        if not self.answer_fits(len(packet.subscriptions)):
            return 0
        if self.mount is not None:
            packet = mounted_subscribe(self.mount, packet)
        if subid and not self.core.limits.subscription_identifier_available:
            return self.fail_with(ProtocolError(0xA1, "§3.2.2.3.12", "Subscription Identifiers are not supported"))
        for subscription in packet.subscriptions:
            if subscription.options & 0x04 and subscription.topic_filter.startswith("$share/"):
                return self.fail_with(ProtocolError(
                    RC_PROTOCOL_ERROR, "MQTT-3.8.3-4", "No Local on a shared subscription"
                ))
        if self.session.rights is not None or self.mount is not None or self.core.hook_mask & HOOK_AUTHORIZE_SUBSCRIBE:
            return self.core.begin_subscribe(self, packet)
        return self.finish_subscribe(packet, None)

    cdef int finish_subscribe(self, object packet, list decisions) except -1:
        cdef list codes = []
        cdef object subscription
        cdef int subid = packet.properties.get(PROP_SUBSCRIPTION_IDENTIFIER, 0)
        cdef uint8_t options
        cdef uint64_t mark = self.core.journal.writes if self.core.journal is not None else 0
        cdef int decided
        cdef Py_ssize_t i = 0
        for subscription in packet.subscriptions:
            options = subscription.options
            if decisions is not None:
                decided = decisions[i]
                i += 1
                if decided > 2:
                    codes.append(decided)
                    continue
                if decided < options & OPT_QOS:
                    options = (options & ~<uint8_t>OPT_QOS) | <uint8_t>decided
            codes.append(self.core.subscribe(self.session, subscription.topic_filter.encode(), options, subid))
            if self.state != STATE_CONNECTED:
                return 0
        self.answer(SubAck(packet.packet_id, codes).encode(self.version), mark)       # [MQTT-3.8.4-1]
        self.session.has_acked = True         # retained messages follow the SUBACK
        return 0

    cdef bint answer_fits(self, Py_ssize_t count) except -1:
        # Whether the client takes a SUBACK or UNSUBACK of this many codes [MQTT-3.1.2-24]. One that may not be sent would
        # leave it waiting, so the connection is closed before anything was done.
        cdef Py_ssize_t remaining = 3 + count
        if self.version < 5 or 1 + varint_size(<uint32_t>remaining) + remaining <= <Py_ssize_t>self.maximum_packet_size:
            return True
        self.close_with(RC_PACKET_TOO_LARGE, True, "the answer would be over your Maximum Packet Size")
        return False

    cdef int on_unsubscribe(self, object packet) except -1:
        cdef list codes = []
        cdef bytes topic_filter
        cdef uint64_t mark = self.core.journal.writes if self.core.journal is not None else 0
        if not self.answer_fits(len(packet.topic_filters)):
            return 0
        if self.session.number and self.core.journal is not None and self.core.journal.failure:
            if self.version < 5:
                return self.close_with(self.core.journal.failure, True, None)     # its UNSUBACK can only say yes
            codes = [RC_IMPLEMENTATION_SPECIFIC_ERROR] * len(packet.topic_filters)
            return self.send_bytes(UnsubAck(packet.packet_id, codes).encode(5))
        for text in packet.topic_filters:
            topic_filter = text.encode()
            if self.mount is not None:
                topic_filter = mounted_filter(self.mount, topic_filter)
            codes.append(self.core.unsubscribe(self.session, topic_filter))
        return self.answer(UnsubAck(packet.packet_id, codes).encode(self.version), mark)    # [MQTT-3.10.4-4]

    cdef int on_disconnect(self, object packet) except -1:
        cdef object expiry = packet.properties.get(PROP_SESSION_EXPIRY_INTERVAL)
        if self.session is None:
            return self.end(False)        # gave up authenticating
        if expiry is not None:
            if self.session.session_expiry_s == 0 and expiry:
                return self.fail_with(ProtocolError(
                    RC_PROTOCOL_ERROR, "§3.14.2.2.2", "Session Expiry Interval raised from 0 at DISCONNECT"
                ))
            self.session.session_expiry_s = min(expiry, self.core.limits.session_expiry_maximum_s)
        self.session.is_clean = self.session.session_expiry_s == 0
        if self.core.events.mask & EVENT_CLIENT_DISCONNECTED:
            self.core.events.disconnected(self.core.wall_ms(), self.core.view_of(self), packet.reason_code)
        # [MQTT-3.14.4-3]: only reason 0x00 deletes the will.
        return self.end(packet.reason_code != RC_SUCCESS, "disconnected by client")

    # --- bytes out --------------------------------------------------------------------------------------------------

    cdef bint write_out(self) except -1:
        return False                  # without a driver, output waits to be taken

    cdef int finish(self) except -1:
        return 0

    cdef int drain(self) except -1:
        cdef int rounds = 0
        while self.write_out():
            if self.state == STATE_CLOSED:
                return self.finish()
            if self.session is None or not self.session.has_backlog():
                return 0
            if rounds == PUMP_ROUNDS:
                self.mark_dirty()     # goes on next turn: others wait too
                return 0
            rounds += 1
            self.session.pump()
            if not self.out.pending:
                if self.session is not None and self.session.has_paused():
                    self.mark_dirty()
                return 0              # the window is full: acknowledgements go on from here
        return 0

    # --- the end ----------------------------------------------------------------------------------------------------

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
        if self.rates != NULL:
            timer_disarm(&self.core.wheel, &self.rates.timer)
        self.core.counters.connections -= 1
        holds_clear(&self.holds)
        if self.cork:
            self.cork = 0
            out_clear(&self.out)      # it never heard that it was accepted, so nothing of what follows
        self.free_aliases()
        self.drop_aliases()
        self.mark_dirty()             # what is pending is written, then the driver closes
        if session is not None:
            self.core.connection_ended(self, session, publish_will)
        if self.client is not None:
            self.core.client_gone(self)
        return 0
