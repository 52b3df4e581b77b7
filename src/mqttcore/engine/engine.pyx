"""The engine: clock, flushing, the end of connections and sessions, what the application sees and does."""

from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.codec.codes cimport RC_NOT_AUTHORIZED, RC_SERVER_SHUTTING_DOWN
from mqttcore.engine.client_view cimport ClientView
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.core cimport DROP_REASONS, NEVER_S
from mqttcore.engine.events cimport EVENT_SESSION_ENDED, EventLog, drop_names
from mqttcore.engine.hooks cimport HookTable
from mqttcore.engine.inlet cimport cut_torn
from mqttcore.engine.message cimport msg_t
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.permissions cimport Rulebook
from mqttcore.engine.retained cimport RetainedTree
from mqttcore.engine.recipients cimport ClientChanges
from mqttcore.engine.timers cimport timer_arm, timer_disarm, wheel_clear, wheel_init, wheel_turn
from mqttcore.engine.topics cimport TopicTree
from mqttcore.engine.tracer cimport Tracer

import logging
import secrets

from mqttcore.codec import ConnAck
from mqttcore.config import Authorization

log = logging.getLogger("mqttcore.engine")

cdef enum:
    EXPIRE_BUDGET = 2000      # retained nodes looked at per second for expiry
    REMAINS_BUDGET = 20000    # queued messages of ended sessions let go per turn of the clock
    FULL_IN_FLIGHT_BYTES = 65536      # what limits are cut to while memory is full
    FULL_OUTPUT_BYTES = 16384
    FULL_INCOMPLETE_BYTES = 16777216
    EXPIRED_BUDGET = 1000     # sessions that may expire per turn of the clock; the others have a moment more


cdef void on_session_timer(void* owner, int64_t now_ms) noexcept:
    cdef Session session = <Session>owner
    try:
        (<Engine>session.core).session_due(session, now_ms)
    except Exception:
        log.exception("session %s: clock", session.client_id)


cdef class Engine(Acceptor):
    """State of one broker.

    limits: a config.Limits. hooks: a HookTable or None. sys_for_anonymous: whether clients that nobody authenticated may
    subscribe to `$SYS/`. authorization: a config.Authorization. node, epoch: 32 bits each; they name this process and this
    start of it in message ids. The driver sets `now_ms` (monotonic milliseconds, above 0) through `advance`, feeds
    connections, and calls `flush` when it has fed what it had.
    """

    def __init__(
        self, limits: object, hooks: HookTable | None = None, *, now_ms: int = 1, sys_for_anonymous: bool = False,
        authorization: object = None, node: int = 0, epoch: int = 0,
    ) -> None:
        self.sys_for_anonymous = sys_for_anonymous
        self.read_authorization(authorization if authorization is not None else Authorization())
        self.rulebook = Rulebook(limits.verdicts_cached_maximum)
        self.limits_source = limits
        self.hooks = hooks if hooks is not None else HookTable()
        self.hook_mask = self.hooks.mask
        self.now_ms = now_ms
        self.birth.now_ms = &self.now_ms
        self.birth.node_epoch = <uint64_t>(node & 0xFFFFFFFF) << 32 | <uint64_t>(epoch & 0xFFFFFFFF)
        wheel_init(&self.wheel, now_ms)
        self.read_limits(limits)
        self.topics = TopicTree(
            levels_maximum=limits.topic_levels_maximum,
            routes_maximum=limits.routes_cached_maximum,
            share_strategy=limits.share_strategy,
        )
        self.retained = RetainedTree(
            count_maximum=limits.retained_messages_maximum,
            bytes_maximum=limits.retained_bytes_maximum,
            levels_maximum=limits.topic_levels_maximum,
        )
        self.id_prefix = secrets.token_hex(8)
        self.clients = {}
        self.events = EventLog()
        self.tracer = Tracer.new(&self.birth)
        self.client_changes = ClientChanges.__new__(ClientChanges)
        self.taps = {}
        self.handlers = {}
        self.graveyard = []
        self.held_publishers = []
        self.remains = []

    def __del__(self):
        # Engine, sessions and connections refer to each other: when the collector ends them, it chooses the order.
        wheel_clear(&self.wheel)

    def __dealloc__(self):
        cdef PyObject* head = self.dirty
        cdef Outlet outlet
        while head != NULL:
            outlet = <Outlet>head
            head = outlet.next_dirty
            outlet.next_dirty = NULL
            Py_DECREF(outlet)

    cdef int read_limits(self, object limits) except -1:
        self.limits.connect_timeout_ms = int(limits.connect_timeout_s * 1000)
        self.limits.maximum_packet_size_bytes = limits.maximum_packet_size_bytes
        self.limits.session_expiry_maximum_s = limits.session_expiry_maximum_s
        self.limits.in_flight_maximum = limits.in_flight_maximum
        self.limits.in_flight_bytes_maximum = limits.in_flight_bytes_maximum
        self.limits.incomplete_bytes_maximum = limits.incomplete_bytes_maximum
        self.limits.queued_messages_maximum = limits.queued_messages_maximum
        self.limits.queued_bytes_maximum = limits.queued_bytes_maximum
        self.limits.queued_age_maximum_ms = <int64_t>limits.queued_age_maximum_s * 1000
        self.limits.queued_total_bytes_maximum = limits.queued_total_bytes_maximum
        self.limits.queued_resident_messages = limits.queued_resident_messages
        self.limits.queued_resident_bytes = limits.queued_resident_bytes
        self.limits.output_high_water_bytes = limits.output_high_water_bytes
        self.limits.topic_levels_maximum = limits.topic_levels_maximum
        self.limits.topic_bytes_maximum = limits.topic_bytes_maximum
        self.limits.client_id_bytes_maximum = limits.client_id_bytes_maximum
        self.limits.subscriptions_per_session_maximum = limits.subscriptions_per_session_maximum
        self.limits.connections_maximum = limits.connections_maximum
        self.limits.sessions_maximum = limits.sessions_maximum
        self.limits.publisher_pause_ms = limits.publisher_pause_ms
        self.limits.connect_packet_bytes_maximum = limits.connect_packet_bytes_maximum
        self.limits.messages_per_s = limits.messages_per_s
        self.limits.bytes_per_s = limits.bytes_per_s
        self.limits.rate_excess_maximum_ms = int(limits.rate_excess_maximum_s * 1000)
        self.limits.receive_maximum = limits.receive_maximum
        self.limits.topic_alias_maximum = limits.topic_alias_maximum
        self.limits.topic_alias_maximum_out = min(limits.topic_alias_maximum_out, 0x7FFF)
        self.limits.keep_alive_maximum_s = limits.keep_alive_maximum_s
        self.limits.maximum_qos = limits.maximum_qos
        self.limits.enforce_receive_maximum = limits.enforce_receive_maximum
        self.limits.retain_available = limits.retain_available
        self.limits.wildcard_subscription_available = limits.wildcard_subscription_available
        self.limits.subscription_identifier_available = limits.subscription_identifier_available
        self.limits.shared_subscription_available = limits.shared_subscription_available
        self.limits.queue_drop_newest = limits.queue_drop != "oldest"
        self.limits.queue_refuse = limits.queue_drop == "refuse"
        self.is_refusing = self.limits.queue_refuse or (self.journal is not None and self.journal.failure)
        self.limits.queue_qos0_offline = limits.queue_qos0_offline
        if self.is_memory_full:
            self.tighten_limits()
        self.connack_properties = self.standing_properties(limits)
        self.connack_new = ConnAck(False, 0, self.connack_properties).encode(5)
        self.connack_resumed = ConnAck(True, 0, self.connack_properties).encode(5)
        return 0

    cdef void tighten_limits(self) noexcept:
        self.limits.queued_total_bytes_maximum = min(
            self.limits.queued_total_bytes_maximum, self.queued_bytes_when_full
        )
        self.limits.in_flight_bytes_maximum = min(self.limits.in_flight_bytes_maximum, <int64_t>FULL_IN_FLIGHT_BYTES)
        self.limits.output_high_water_bytes = min(self.limits.output_high_water_bytes, <uint32_t>FULL_OUTPUT_BYTES)
        self.limits.incomplete_bytes_maximum = min(
            self.limits.incomplete_bytes_maximum, <int64_t>FULL_INCOMPLETE_BYTES
        )

    # --- driving ----------------------------------------------------------------------------------------------------

    @property
    def clock_ms(self) -> int:
        """The engine's clock, monotonic milliseconds."""
        return self.now_ms

    def set_wake(self, callback: object) -> None:
        """Have *callback* called when output appears outside a driver's turn (by publish(), timers, disconnect())."""
        self.on_wake = callback

    @property
    def wall_clock_ms(self) -> int:
        """Milliseconds since 1970 (UTC), at `clock_ms`."""
        return self.wall_ms()

    def set_wall_clock(self, wall_ms: int) -> None:
        """Say what time it is, in milliseconds since 1970 (UTC), at `clock_ms`; from there on it goes with that clock."""
        self.birth.wall_offset_ms = wall_ms - self.now_ms

    def advance(self, now_ms: int) -> None:
        """Set the clock and do what became due: keep-alive, wills, expiry, held publishers."""
        self.turn(now_ms)

    cdef int turn(self, int64_t now_ms) except -1:
        self.now_ms = now_ms
        self.expired = 0
        wheel_turn(&self.wheel, now_ms)
        if self.held_publishers:
            self.release_publishers()
        if self.remains:
            self.empty_remains(REMAINS_BUDGET)
        return 0

    def sweep(self) -> int:
        """Remove a slice of expired retained messages; how many went. Call about once a second."""
        return self.retained.expire(self.now_ms, EXPIRE_BUDGET)

    def flush(self) -> None:
        """Write what is pending on all connections, and go on with queues that got room."""
        self.flush_dirty()

    cdef int flush_dirty(self) except -1:
        # Once round: an outlet that is marked again while being flushed waits for the next call.
        cdef PyObject* head = self.dirty
        cdef Outlet outlet
        self.dirty = NULL
        while head != NULL:
            outlet = <Outlet>head
            head = outlet.next_dirty
            outlet.next_dirty = NULL
            outlet.is_dirty = False
            Py_DECREF(outlet)         # ours; the variable holds another
            try:
                outlet.flush()
            except Exception:
                log.exception("writing to %s: closed", outlet)
                try:
                    outlet.give_up()
                except Exception:     # those behind it are flushed all the same
                    log.exception("closing %s", outlet)
        if self.graveyard and not self.delivering:
            self.graveyard.clear()
        if self.journal is not None and self.journal.has_work() and self.on_journal is not None:
            self.on_journal()
        return 0

    @property
    def has_output(self) -> bool:
        """Whether a flush has something to do."""
        return self.dirty != NULL

    cdef int wake(self) except -1:
        if self.on_wake is not None and (self.dirty != NULL or self.journal is not None and self.journal.has_work()):
            self.on_wake()
        return 0

    # --- the end of connections and sessions ------------------------------------------------------------------------

    cdef int connection_ended(self, object connection, object ended, bint publish_will) except -1:
        cdef Session session = <Session>ended
        session.detach()
        timer_disarm(&self.wheel, &session.timer)                 # it was the identity's
        session.expires_ms = 0
        if session.will != NULL:
            if not publish_will:
                session.set_will(NULL, 0)                         # [MQTT-3.1.2-10]
            elif session.will_delay_s == 0 or session.session_expiry_s == 0:
                self.publish_will(session)
            else:
                session.will_due_ms = self.now_ms + <int64_t>session.will_delay_s * 1000
        if session.session_expiry_s == 0:
            return self.end_session(session)
        if session.session_expiry_s != NEVER_S:
            session.expires_ms = self.now_ms + <int64_t>session.session_expiry_s * 1000
        if session.number:
            session.keep(False)
        self.arm_session(session)
        return 0

    cdef int client_gone(self, object connection) except -1:
        # The two refer to each other: without this the collector would have to come for each connection.
        (<ClientView>(<Connection>connection).client).connection = None
        return 0

    cdef int arm_session(self, Session session) except -1:
        cdef int64_t due = session.expires_ms
        if session.has_ended:
            return 0                  # by whoever heard of its will or its connection: nothing is due any more
        if session.will_due_ms and (due == 0 or session.will_due_ms < due):
            due = session.will_due_ms
        if due:
            timer_arm(&self.wheel, &session.timer, due)
        return 0

    cdef int session_due(self, Session session, int64_t now_ms) except -1:
        if session.link is not None:
            if session.expires_ms and session.expires_ms <= now_ms:
                log.info("client %s: its identity expired", session.client_id)
                return (<Connection>session.link).close_with(RC_NOT_AUTHORIZED, True, "identity expired")
            return self.arm_session(session)
        if session.will_due_ms and session.will_due_ms <= now_ms:
            session.will_due_ms = 0
            self.publish_will(session)
            if session.number:
                session.keep(False)
        if session.expires_ms and session.expires_ms <= now_ms:
            self.expired += 1
            if self.expired <= EXPIRED_BUDGET:
                return self.end_session(session)                  # [MQTT-4.1.0-2]
        return self.arm_session(session)

    cdef int publish_will(self, Session session) except -1:
        cdef msg_t* will = session.will
        session.will = NULL
        if will == NULL:
            return 0
        try:
            self.publish_message(will, <void*>session)            # [MQTT-3.1.2-8]
        finally:
            session.release_will(will)
        return 0

    cdef int end_session(self, object ended) except -1:
        cdef Session session = <Session>ended
        cdef object topic_filter
        if session.has_ended:
            return 0
        timer_disarm(&self.wheel, &session.timer)
        session.will_due_ms = session.expires_ms = 0
        self.publish_will(session)            # a delayed will goes out when the session ends [MQTT-3.1.2-8]
        if session.subscriptions is not None:
            for topic_filter in session.subscriptions:
                self.topics.unsubscribe(<const uint8_t*><char*>(<bytes>topic_filter), len(topic_filter), session)
            self.counters.subscriptions -= len(session.subscriptions)
            session.subscriptions = None
        if self.events.mask & EVENT_SESSION_ENDED:
            self.events.session_ended(self.wall_ms(), session.client_id)
        if session.traced:
            self.tracer.session_ended(session)
        if session.number and self.journal is not None:
            if session.key:
                self.journal.delete(session.key)
            if session.subscription_keys is not None:
                for key in session.subscription_keys.values():
                    self.journal.delete(key)
                session.subscription_keys = None
            session.key = 0
        if self.clients.get(session.client_id) is session:
            del self.clients[session.client_id]
            self.client_changes.changed(session.client_id)
        session.clear()
        self.bury(session)
        return 0

    # --- looking and acting from outside ------------------------------------------------------------------------------

    cdef Session make_session(self, str client_id):
        cdef Session session = Session.new(self, client_id)
        session.timer.fire = on_session_timer
        return session

    cdef Session session_of(self, str client_id):
        return self.clients.get(client_id)

    def session(self, client_id: str) -> Session | None:
        """Return the session of a client id, connected or not."""
        return self.clients.get(client_id)

    def sessions(self) -> list:
        """Return all sessions, connected or not, as they are now."""
        return list(self.clients.values())

    def client_ids(self) -> list:
        """Return the client ids of all sessions, as they are now."""
        return list(self.clients)

    def disconnect(self, client_id: str, reason_code: int, reason: str | None = None) -> bool:
        """Close a client's connection with DISCONNECT; False when it has none. Its will is published."""
        session = self.clients.get(client_id)
        if session is None or (<Session>session).link is None:
            return False
        (<Connection>(<Session>session).link).close_with(reason_code, True, reason)
        self.wake()
        return True

    def discard_session(self, client_id: str) -> bool:
        """End a session with all it holds, and its connection; False when there is none."""
        session = self.clients.get(client_id)
        if session is None:
            return False
        if (<Session>session).link is not None:
            (<Connection>(<Session>session).link).close_with(0x98, True, None)
        self.end_session(session)
        self.wake()
        return True

    def shut_down(self) -> int:
        """Close every connection with Server shutting down (0x8B); how many. Wills are published: they would be lost."""
        cdef int closed = 0
        for session in list(self.clients.values()):
            if (<Session>session).link is not None:
                (<Connection>(<Session>session).link).close_with(RC_SERVER_SHUTTING_DOWN, True, None)
                closed += 1
        return closed

    def set_authorization(self, authorization: object) -> None:
        """Take over a new config.Authorization; clients that are connected keep the check on delivery they have."""
        self.read_authorization(authorization)

    def set_limits(self, limits: object) -> None:
        """Take over new limits; those of trie, routes, retained messages and topic aliases must be as they were."""
        self.limits_source = limits
        self.read_limits(limits)

    def replace_hooks(self, hooks: HookTable) -> None:
        """Call other functions from now on, for the same hooks; ValueError for a table with others."""
        if hooks.mask != self.hook_mask:
            raise ValueError("hooks can be replaced, not added or taken away")
        self.hooks = hooks

    def set_overloaded(self, is_overloaded: bool) -> None:
        """Refuse new clients with Server busy (0x89) from now on, or no longer; who is connected stays."""
        self.is_overloaded = is_overloaded

    def set_memory(self, *, is_short: bool, is_full: bool) -> None:
        """Say how memory stands. Short: there are no new sessions (0x89); those that are there can be taken up.

        Full: nothing grows. Queues together stay as long as they are, the oldest messages making room, and publishers of
        messages that have to wait are paused; new retained messages and subscriptions are refused (0x97); connections
        are closed (0x97) until packets that have not come whole take 16 MiB at most.
        """
        self.is_memory_short = is_short
        if self.is_memory_full == is_full:
            return
        self.is_memory_full = is_full
        self.queued_bytes_when_full = self.counters.queued_bytes
        self.read_limits(self.limits_source)
        cut_torn(self)

    def close(self) -> None:
        """Forget every session and retained message; the engine is not to be used any more. The store keeps what it has."""
        self.journal = self.retained.journal = None
        self.is_refusing = False
        for session in list(self.clients.values()):
            (<Session>session).will_due_ms = 0
            (<Session>session).set_will(NULL, 0)
            self.end_session(session)
        self.held_publishers.clear()
        self.taps.clear()
        self.handlers.clear()
        self.is_closed = True
        self.topics.clear()           # the trie holds its subscribers
        self.flush_dirty()
        self.graveyard.clear()

    def metrics(self) -> dict:
        """Return all counters and gauges; the keys are stable, the values integers."""
        cdef dict found = {}
        cdef int i
        names = ("reserved", "connect", "connack", "publish", "puback", "pubrec", "pubrel", "pubcomp", "subscribe",
                 "suback", "unsubscribe", "unsuback", "pingreq", "pingresp", "disconnect", "auth")
        for i in range(1, 16):
            found[f"packets_received_{names[i]}"] = self.counters.packets_in[i]
            found[f"packets_sent_{names[i]}"] = self.counters.packets_out[i]
        for i in range(3):
            found[f"messages_received_qos{i}"] = self.counters.messages_in[i]
            found[f"messages_sent_qos{i}"] = self.counters.messages_out[i]
        names = drop_names()
        for i in range(DROP_REASONS):
            found[f"messages_dropped_{names[i]}"] = self.counters.dropped[i]
        found.update(
            bytes_received=self.counters.bytes_in,
            bytes_sent=self.counters.bytes_out,
            message_bytes_received=self.counters.message_bytes_in,
            message_bytes_sent=self.counters.message_bytes_out,
            messages_unmatched=self.counters.unmatched,
            messages_handled=self.counters.handled,
            handler_calls=self.counters.handler_calls,
            handler_failures=self.counters.handler_failures,
            handlers=self.topics.handlers,
            events_dropped=self.events.dropped,
            connects_accepted=self.counters.connects,
            connects_refused=self.counters.connects_refused,
            connects_shed=self.counters.connects_shed,
            overloaded=int(self.is_overloaded),
            protocol_errors=self.counters.protocol_errors,
            takeovers=self.counters.takeovers,
            publishers_paused=self.counters.publishers_paused,
            rate_limited=self.counters.rate_limited,
            subscriptions_refused=self.counters.subscriptions_refused,
            subscriptions_ignored=self.counters.subscriptions_ignored,
            rights_shared=self.rulebook.shared_count,
            verdicts_remembered=self.rulebook.hits,
            verdicts_judged=self.rulebook.misses,
            connections=self.counters.connections,
            connections_peak=self.counters.connections_peak,
            sessions=len(self.clients),
            sessions_connected=self.counters.online,
            subscriptions=self.counters.subscriptions,
            shared_groups=self.topics.share_groups,
            retained=self.retained.count,
            retained_bytes=self.retained.bytes_held,
            in_flight=self.counters.in_flight,
            incomplete_bytes=self.torn.bytes,
            incomplete_packets_cut=self.torn.cut,
            awaiting_release=self.counters.awaiting_release,
            queued=self.counters.queued,
            queued_bytes=self.counters.queued_bytes,
            queued_kept_back=self.counters.kept_back,
            queued_paged_out=self.counters.paged_out,
            queued_paged_in=self.counters.paged_in,
            taps=len(self.taps),
        )
        return found
