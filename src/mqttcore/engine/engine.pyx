"""The engine: client table, publish path, delivery, wills, takeover, expiry."""

cimport cython
from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from mqttcore.codec.codes cimport (
    PROP_ASSIGNED_CLIENT_IDENTIFIER,
    PROP_AUTHENTICATION_DATA,
    PROP_AUTHENTICATION_METHOD,
    PROP_MAXIMUM_PACKET_SIZE,
    PROP_MAXIMUM_QOS,
    PROP_RECEIVE_MAXIMUM,
    PROP_REQUEST_PROBLEM_INFORMATION,
    PROP_REQUEST_RESPONSE_INFORMATION,
    PROP_RESPONSE_INFORMATION,
    PROP_RETAIN_AVAILABLE,
    PROP_SERVER_KEEP_ALIVE,
    PROP_SESSION_EXPIRY_INTERVAL,
    PROP_SHARED_SUBSCRIPTION_AVAILABLE,
    PROP_SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    PROP_TOPIC_ALIAS_MAXIMUM,
    PROP_WILDCARD_SUBSCRIPTION_AVAILABLE,
    PROP_WILL_DELAY_INTERVAL,
    RC_BAD_AUTHENTICATION_METHOD,
    RC_CLIENT_IDENTIFIER_NOT_VALID,
    RC_CONTINUE_AUTHENTICATION,
    RC_NO_MATCHING_SUBSCRIBERS,
    RC_NO_SUBSCRIPTION_EXISTED,
    RC_NOT_AUTHORIZED,
    RC_PACKET_TOO_LARGE,
    RC_PROTOCOL_ERROR,
    RC_QOS_NOT_SUPPORTED,
    RC_QUOTA_EXCEEDED,
    RC_RE_AUTHENTICATE,
    RC_RETAIN_NOT_SUPPORTED,
    RC_SERVER_BUSY,
    RC_SERVER_SHUTTING_DOWN,
    RC_SESSION_TAKEN_OVER,
    RC_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    RC_SUCCESS,
    RC_TOPIC_FILTER_INVALID,
    RC_UNSPECIFIED_ERROR,
    RC_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
)
from mqttcore.codec.names cimport check_topic_filter, check_topic_name
from mqttcore.codec.status cimport status_error
from mqttcore.codec.wire cimport get_u32
from mqttcore.engine.authorizer cimport Authorizer
from mqttcore.engine.client_view cimport ClientView
from mqttcore.engine.compose cimport make_message
from mqttcore.engine.connection cimport (
    PACKET_MAXIMUM, PAUSE_ADMITTING, PAUSE_CONGESTED, STATE_ADMITTING, STATE_CONNECTED, Connection,
)
from mqttcore.engine.core cimport (
    DROP_EXPIRED, DROP_NOT_AUTHORIZED, DROP_QUOTA, DROP_REASONS, DROP_SESSION_ENDED, DROP_TOTAL_FULL, OWNER_IGNORE,
    OWNER_REFUSE,
)
from mqttcore.engine.events cimport (
    EVENT_CLIENT_AUTHENTICATED, EVENT_CLIENT_CONNECTED, EVENT_SESSION_ENDED, EVENT_SUBSCRIBED, EVENT_UNSUBSCRIBED, EventLog,
    drop_names,
)
from mqttcore.engine.handler cimport Handler
from mqttcore.engine.hooks cimport HOOK_ADMIT, HOOK_AUTHENTICATE
from mqttcore.engine.message cimport (
    Message, msg_props, msg_unref, msg_view, pub_done, pub_keep, pub_settle, pub_t, stored_ref, stored_t,
)
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.permissions cimport Rights, Rulebook
from mqttcore.engine.queue cimport queue_clear, queue_head, queue_pop
from mqttcore.engine.retained cimport RetainedCursor, RetainedTree
from mqttcore.engine.recipients cimport STORES_AS_SENDER, ClientChanges, recipients_find, recipients_stand
from mqttcore.engine.subscriber cimport (
    KIND_SESSION, KIND_TAP, recipients_ref, recipients_unref, subids_add, subids_unref, target_init,
)
from mqttcore.engine.tap cimport Tap
from mqttcore.engine.timers cimport timer_arm, timer_disarm, wheel_clear, wheel_init, wheel_turn
from mqttcore.engine.topics cimport (
    OPT_NO_LOCAL,
    OPT_QOS,
    OPT_RETAIN_AS_PUBLISHED,
    ShareGroup,
    TopicTree,
    recipients_t,
    route_ref,
    route_t,
    route_unref,
    subids_t,
    target_t,
)

import heapq
import logging
import secrets

from mqttcore.codec import Auth, ConnAck
from mqttcore.config import Authorization
from mqttcore.engine.handler import REFUSED
from mqttcore.engine.hooks import PENDING
from mqttcore.errors import ProtocolError, QuotaExceeded, StoreError
from mqttcore.handlers import Consumed
from mqttcore.identity import Challenge, Identity, Refusal

log = logging.getLogger("mqttcore.engine")

cdef enum:
    NEVER_S = 0xFFFFFFFF
    EXPIRE_BUDGET = 2000      # retained nodes looked at per second for expiry
    REMAINS_BUDGET = 20000    # queued messages of ended sessions let go per turn of the clock
    EXPIRED_BUDGET = 1000     # sessions that may expire per turn of the clock; the others have a moment more
    TOPIC_BYTES_MAXIMUM = 65535       # [MQTT-4.7.3-3]; what clients send cannot be longer
    REMAINING_MAXIMUM = 268435455     # Remaining Length (MQTT 5 §2.1.4)
    QUEUE_BOUND = 0x7FFFFFFF


cdef void on_session_timer(void* owner, int64_t now_ms) noexcept:
    cdef Session session = <Session>owner
    try:
        (<Engine>session.core).session_due(session, now_ms)
    except Exception:
        log.exception("session %s: clock", session.client_id)


cdef int64_t bounded(object count) except -1:
    # None: more than any queue holds.
    return QUEUE_BOUND if count is None or count > QUEUE_BOUND else count


@cython.final
cdef class Remains:
    """The queue of a session that ended."""

    def __dealloc__(self):
        queue_clear(&self.queue)


cdef class Engine(Authorizer):
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
        self.connack_properties = self.standing_properties(limits)
        self.connack_new = ConnAck(False, 0, self.connack_properties).encode(5)
        self.connack_resumed = ConnAck(True, 0, self.connack_properties).encode(5)
        return 0

    cdef dict standing_properties(self, object limits):
        # What every CONNACK says of us; what has its default value is not said (MQTT 5 §3.2.2.3).
        cdef dict said = {}
        if limits.receive_maximum != 65535:
            said[PROP_RECEIVE_MAXIMUM] = limits.receive_maximum
        if limits.maximum_qos < 2:
            said[PROP_MAXIMUM_QOS] = limits.maximum_qos
        if not limits.retain_available:
            said[PROP_RETAIN_AVAILABLE] = 0
        said[PROP_MAXIMUM_PACKET_SIZE] = limits.maximum_packet_size_bytes
        if limits.topic_alias_maximum:
            said[PROP_TOPIC_ALIAS_MAXIMUM] = limits.topic_alias_maximum
        if not limits.wildcard_subscription_available:
            said[PROP_WILDCARD_SUBSCRIPTION_AVAILABLE] = 0
        if not limits.subscription_identifier_available:
            said[PROP_SUBSCRIPTION_IDENTIFIER_AVAILABLE] = 0
        if not limits.shared_subscription_available:
            said[PROP_SHARED_SUBSCRIPTION_AVAILABLE] = 0
        return said

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
                log.exception("writing to %s", outlet)
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

    cdef void bury(self, object subscriber) noexcept:
        # Routes borrow their subscribers: one that leaves during a delivery lives until it is over.
        if self.delivering:
            self.graveyard.append(subscriber)

    # --- publishing -------------------------------------------------------------------------------------------------

    cdef Py_ssize_t publish(self, pub_t* pub, route_t* route) except -1:
        # Returns the number of targets, or -2 when a retained message was refused for a limit.
        cdef uint32_t i
        cdef Py_ssize_t reached = 0
        cdef target_t* target
        cdef bint is_over_quota = False
        if not pub.retain and route.count == 0 and route.group_count == 0:
            self.counters.unmatched += 1
            return 0
        route_ref(route)              # from the start: keeping the message may log, and a log handler may subscribe
        self.delivering += 1
        try:
            if pub.retain:
                is_over_quota = not self.keep_retained(pub)
                if route.count == 0 and route.group_count == 0:
                    self.counters.unmatched += 1
            for i in range(route.count):
                target = &route.targets[i]
                (<Subscriber>target.subscriber).deliver(pub, target)
            reached = route.count
            for i in range(route.group_count):
                target = (<ShareGroup>route.groups[i]).pick(route.hash)
                if target != NULL:
                    (<Subscriber>target.subscriber).deliver(pub, target)
                    reached += 1
        finally:
            self.delivering -= 1
            route_unref(route)
        return -2 if is_over_quota else reached

    cdef bint keep_retained(self, pub_t* pub) except -1:
        cdef msg_t* m
        cdef stored_t* stored
        if pub.payload_size == 0:
            self.retained.remove(pub.topic, pub.topic_size)       # [MQTT-3.3.1-6] [MQTT-3.3.1-7]
            return True
        m = pub_keep(pub)
        try:
            self.retained.put(m)                                  # [MQTT-3.3.1-5]
        except QuotaExceeded as error:
            self.counters.dropped[DROP_QUOTA] += 1
            if not self.is_retained_full:
                self.is_retained_full = True          # said once: a client could fill the log as well
                log.warning("retained message refused: %s", error)
            if pub.qos == 0:
                self.retained.remove(pub.topic, pub.topic_size)   # [v3 MQTT-3.3.1-7]: nobody is told, so none stays
            return False
        self.is_retained_full = False
        if self.journal is not None and self.journal.keeps_retained and not (pub.topic_size > 4 and pub.topic[:5] == b"$SYS/"):
            stored = stored_ref(self.journal.store(m))
            self.journal.put_retained(stored)
        return True

    # --- what cannot be taken ---------------------------------------------------------------------------------------

    cdef uint8_t refusal(self, pub_t* pub, route_t* route) noexcept:
        cdef uint32_t i
        cdef ShareGroup group
        cdef Py_ssize_t k
        cdef uint8_t reason_code
        if pub.qos == 0:
            return 0
        if self.journal is not None and self.journal.failure and pub.retain and self.journal.keeps_retained:
            return self.journal.failure
        reason_code = self.refusal_of(pub, route.targets, route.count)
        for i in range(route.group_count):
            if reason_code:
                return reason_code
            group = <ShareGroup>route.groups[i]
            for k in range(group.count):
                reason_code = self.refusal_of(pub, &group.members[k].target, 1)
                if not reason_code:
                    break                     # one that would take it is enough
        return reason_code

    cdef uint8_t refusal_of(self, pub_t* pub, target_t* targets, uint32_t count) noexcept:
        # Why one of these would not take a message of QoS 1 or 2: the store cannot keep it, or a queue has no room.
        cdef uint32_t i
        cdef Session session
        cdef bint has_failed = self.journal is not None and self.journal.failure
        if pub.qos == 0:
            return 0
        if has_failed and pub.qos == 2 and pub.origin != NULL and (<Session>pub.origin).number:
            return self.journal.failure
        for i in range(count):
            if targets[i].qos == 0 or (<Subscriber>targets[i].subscriber).kind != KIND_SESSION:
                continue
            session = <Session>targets[i].subscriber
            if has_failed and session.number:
                return self.journal.failure
            if self.limits.queue_refuse and self.is_refused_by(session, pub):
                return RC_QUOTA_EXCEEDED
        return 0

    cdef bint is_refused_by(self, Session session, pub_t* pub) noexcept:
        # Whether the message would be queued where there is no room for it.
        if session.link is not None and session.queue.count == 0 and session.has_window():
            return False
        return session.is_over_limit(
            <int64_t>sizeof(msg_t) + pub.topic_size + pub.props_size + pub.payload_size
        )

    cdef bint drop_oldest(self) except -1:
        # A heap of the sessions by their oldest message, made when it is first needed. A session's place may be too good,
        # never too bad: what it waits with only gets younger. So the best place is looked at, and corrected if need be.
        cdef Session session
        cdef int64_t since_ms
        if self.ranking is None:
            self.ranking = []
            for session in self.clients.values():
                if session.has_queued():
                    self.queue_began(session)
        while self.ranking:
            since_ms, number, session = self.ranking[0]
            if not session.has_queued():
                heapq.heappop(self.ranking)
                session.is_ranked = False
            elif session.oldest_ms() > since_ms:
                heapq.heapreplace(self.ranking, (session.oldest_ms(), number, session))
            else:
                session.drop_head(DROP_TOTAL_FULL)
                return True
        return False

    cdef int queue_began(self, object began) except -1:
        cdef Session session = <Session>began
        if self.ranking is not None:
            self.ranked += 1
            session.is_ranked = True
            heapq.heappush(self.ranking, (session.oldest_ms(), self.ranked, session))
        return 0

    cdef int bury_queue(self, void* queue) except -1:
        cdef Remains remains = Remains.__new__(Remains)
        self.remains.append(remains)
        remains.queue = (<queue_t*>queue)[0]
        memset(queue, 0, sizeof(queue_t))
        return 0

    cdef int empty_remains(self, int budget) except -1:
        cdef Remains remains
        cdef int64_t before_bytes
        while self.remains and budget > 0:
            remains = <Remains>self.remains[0]
            while remains.queue.count and budget > 0:
                budget -= 1
                entry = queue_head(&remains.queue)
                if entry.group != NULL and entry.message != NULL:
                    self.redistribute(entry.message, <object>entry.group, None)
                else:
                    self.counters.dropped[DROP_SESSION_ENDED] += 1
                if entry.key and self.journal is not None:
                    self.journal.forget(entry.key, entry.stored)
                before_bytes = remains.queue.bytes
                queue_pop(&remains.queue)
                self.counters.queued -= 1
                self.counters.queued_bytes -= before_bytes - remains.queue.bytes
            if remains.queue.count == 0:
                self.remains.pop(0)
        return 0

    cdef int publish_message(self, msg_t* m, void* origin) except -1:
        cdef pub_t pub
        cdef route_t* route
        cdef uint8_t ignored
        cdef object client
        msg_view(m, &pub)
        pub.kept = NULL               # a copy is made if it has to be kept: with its id, time and deadline as of now
        pub.origin = origin
        pub.birth = &self.birth
        if origin != NULL:
            pub.publisher = (<Session>origin).as_publisher()
        if m.expiry_at:
            pub.expires_ms = self.now_ms + <int64_t>get_u32(msg_props(m) + m.expiry_at - 1) * 1000
        route = self.topics.route(m.data, m.topic_size)
        try:
            if origin != NULL:
                client = <Session>origin
                if route.early_count and self.handle(client, &pub, route, 0, route.early_count, &ignored):
                    return 0
                # Its rights may have been replaced since the CONNECT.
                if self.authorize_will(client, (<Session>client).rights, m.data, m.topic_size, m.qos, m.retain):
                    self.counters.dropped[DROP_NOT_AUTHORIZED] += 1
                    return 0
                route = self.topics.route(m.data, m.topic_size)
                if route.handler_count > route.early_count:
                    if self.handle(client, &pub, route, route.early_count, route.handler_count, &ignored):
                        return 0
                    route = self.topics.route(m.data, m.topic_size)
            self.publish(&pub, route)
        finally:
            pub_done(&pub)
            self.congested = NULL     # nobody to pause
        return 0

    # --- topic handlers ---------------------------------------------------------------------------------------------

    cdef bint handle(self, object client, pub_t* pub, route_t* route, uint32_t first, uint32_t last,
                     uint8_t* reason_code) except -1:
        cdef uint32_t i
        cdef Handler handler
        cdef recipients_t* recipients
        cdef object answer
        if route.recipients != NULL and route.recipients_at == first and recipients_stand(
            route.recipients, self.client_changes
        ):
            reason_code[0] = self.deliver_to(pub, route.recipients)
            return True
        route_ref(route)              # a handler may subscribe
        try:
            for i in range(first, last):
                handler = <Handler>route.handlers[i]
                if route.recipients != NULL and route.recipients_at == i and recipients_stand(
                    route.recipients, self.client_changes
                ):
                    reason_code[0] = self.deliver_to(pub, route.recipients)
                    return True
                self.counters.handler_calls += 1
                answer = handler.ask(self.view_of(client), Message.new(pub_settle(pub)))
                if answer is None:
                    continue
                if isinstance(answer, Consumed):
                    reason_code[0] = answer.reason_code
                    self.counters.handler_failures += answer is REFUSED
                    self.counters.handled += answer.reason_code < 0x80
                    return True
                try:
                    recipients = recipients_find(answer, self.clients, self.client_changes)
                except Exception as error:
                    handler.failed(error)
                    self.counters.handler_failures += 1
                    reason_code[0] = RC_UNSPECIFIED_ERROR
                    return True
                try:
                    if answer.is_fixed:
                        self.topics.remember(route, recipients, i)
                    reason_code[0] = self.deliver_to(pub, recipients)
                finally:
                    recipients_unref(recipients)
                return True
        finally:
            route_unref(route)
        return False

    cdef uint8_t deliver_to(self, pub_t* pub, recipients_t* recipients) except? 0xFF:
        # The reason code for the publisher: whether anybody got it, by connection or by queue.
        cdef pub_t renamed
        cdef target_t* target
        cdef uint32_t i
        cdef bint stores_offline = recipients.stores_offline
        cdef uint8_t reason_code = RC_NO_MATCHING_SUBSCRIBERS
        if self.is_refusing:
            reason_code = self.refusal_of(pub, recipients.targets, recipients.count)
            if reason_code:
                return reason_code
            reason_code = RC_NO_MATCHING_SUBSCRIBERS
        if recipients.stores_offline == STORES_AS_SENDER:
            stores_offline = pub.origin == NULL or (<Session>pub.origin).session_expiry_s != 0
        recipients_ref(recipients)    # a hook of the delivery may let the route go
        self.delivering += 1
        if recipients.topic_size:
            renamed = pub[0]
            renamed.kept = NULL
            renamed.topic = recipients.topic
            renamed.topic_size = recipients.topic_size
            pub = &renamed
        try:
            for i in range(recipients.count):
                target = &recipients.targets[i]
                if (<Subscriber>target.subscriber).is_online or (
                    stores_offline and pub.qos and target.qos
                ):
                    (<Session>target.subscriber).deliver(pub, target)
                    reason_code = RC_SUCCESS
        finally:
            self.delivering -= 1
            if recipients.topic_size:
                pub_done(&renamed)
            recipients_unref(recipients)
        self.counters.handled += 1
        return reason_code

    cdef object view_of(self, object client):
        if isinstance(client, Session):       # its connection is gone
            return ClientView.absent((<Session>client).client_id, (<Session>client).user_name, (<Session>client).identity)
        if isinstance(client, Connection):
            return ClientView.of(<Connection>client)
        return client

    def add_handler(
        self, topic_filter: bytes, function: object, *, is_authorized_by_itself: bool = False, order: int = 0,
        owner: str = "", on_failure: object = None
    ) -> Handler:
        """Hang a topic handler on the trie: *function(client, message)* is asked before a client's message is routed.

        It answers a `Consumed`, a `Recipients` or None. Wills are asked for as well, the broker's own messages are not.
        Those with is_authorized_by_itself are asked first, before the client's permissions, then the others; among them
        by order, lower first. Clients may publish to a `$SYS/` topic where a handler takes the message, else not.
        owner: whose it is, for logs; on_failure: takes what went wrong, instead of the log. ValueError when the filter is
        none, or a shared one.
        """
        cdef Handler handler = Handler(
            function, is_authorized_by_itself=is_authorized_by_itself, order=order, owner=owner, on_failure=on_failure
        )
        self.check_filter(topic_filter)
        if topic_filter.startswith(b"$share/"):
            raise ValueError(f"{topic_filter!r}: a handler shares with nobody")
        self.topics.subscribe(topic_filter, len(topic_filter), handler, 0, 0)
        self.handlers[handler] = topic_filter
        return handler

    def remove_handler(self, handler: Handler) -> None:
        """Take a handler off again; without effect when it is not there."""
        cdef bytes topic_filter = self.handlers.pop(handler, None)
        if topic_filter is not None:
            self.topics.unsubscribe(topic_filter, len(topic_filter), handler)

    def deliver(self, client_id: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False,
                properties: dict | None = None, stores_offline: bool = True) -> bool:
        """Send a message of the broker's own to one client, whatever it subscribed to; False when nobody takes it.

        A client that has a session but no connection gets it later when stores_offline and QoS is 1 or 2. retain: the
        RETAIN flag it sees. Arguments are checked as by publish_bytes().
        """
        cdef Session session = self.clients.get(client_id)
        cdef msg_t* m = self.own_message(topic, payload, qos, retain, properties)
        cdef pub_t pub
        cdef target_t target
        cdef uint8_t refusal
        try:
            if session is None or (session.link is None and not (stores_offline and qos)):
                return False
            msg_view(m, &pub)
            target_init(&target, <PyObject*>session, qos | (OPT_RETAIN_AS_PUBLISHED if retain else 0), 0)
            refusal = self.refusal_of(&pub, &target, 1) if self.is_refusing else 0
            if refusal:
                self.raise_refusal(refusal)
            target.is_direct = True
            session.deliver(&pub, &target)
        finally:
            msg_unref(m)
        self.congested = NULL         # nobody to pause
        self.wake()
        return True

    cdef msg_t* own_message(self, bytes topic, bytes payload, int qos, bint retain, dict properties) except NULL:
        # The one reference belongs to the caller.
        cdef int status = check_topic_name(topic, len(topic))
        cdef msg_t* m
        if len(topic) > TOPIC_BYTES_MAXIMUM:
            raise ValueError(f"a topic of {len(topic)} bytes is no Topic Name: {TOPIC_BYTES_MAXIMUM} at most")
        if status:
            raise ValueError(f"{topic!r} is no Topic Name: {status_error(status)}")
        if not 0 <= qos <= 2:
            raise ValueError(f"qos {qos} is not 0, 1 or 2")
        if len(payload) > REMAINING_MAXIMUM:
            raise ValueError(f"payload of {len(payload)} bytes, a packet has at most {REMAINING_MAXIMUM}")
        m = make_message(topic, payload, qos, retain, properties, &self.birth)
        if m.expiry_at:
            m.expires_ms = self.now_ms + <int64_t>get_u32(msg_props(m) + m.expiry_at - 1) * 1000
        return m

    def publish_bytes(self, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False,
                      properties: dict | None = None) -> int:
        """Publish a message of the broker's own; the number of subscribers reached.

        topic: UTF-8; checked here, ValueError when it is no Topic Name. properties: PropertyId -> value, as in PUBLISH.
        Raises QuotaExceeded when it cannot be retained, or is refused by a full queue; StoreError when it would have to
        be kept and the store fails.
        """
        cdef pub_t pub
        cdef route_t* route
        cdef uint8_t refusal
        cdef msg_t* m = self.own_message(topic, payload, qos, retain, properties)
        cdef Py_ssize_t reached
        try:
            msg_view(m, &pub)
            route = self.topics.route(m.data, m.topic_size)
            refusal = self.refusal(&pub, route) if self.is_refusing else 0
            if refusal:
                self.raise_refusal(refusal)
            reached = self.publish(&pub, route)
        finally:
            msg_unref(m)
        self.congested = NULL         # nobody to pause; it is borrowed only until the publisher has been seen to
        self.wake()
        if reached == -2:
            raise QuotaExceeded(RC_QUOTA_EXCEEDED, "§3.3.1.3", "retained message over the limits of the broker")
        return reached

    cdef int raise_refusal(self, uint8_t reason_code) except -1:
        if not self.journal_fails():
            raise QuotaExceeded(reason_code, "§4.3.2", "the queue of a subscriber is full")
        raise StoreError(
            "full" if reason_code == RC_QUOTA_EXCEEDED else "io", "it fails, and the message would have to be kept"
        )

    cdef bint journal_fails(self) noexcept:
        return self.journal is not None and self.journal.failure != 0

    cdef int redistribute(self, msg_t* m, object group, object leaving) except -1:
        # The next member; the leaving one is out of the trie already. [MQTT-4.8.2-6]
        cdef target_t* target = (<ShareGroup>group).pick(self.topics.route(m.data, m.topic_size).hash)
        cdef pub_t pub
        if target == NULL or target.subscriber == <PyObject*>leaving:
            self.counters.dropped[DROP_SESSION_ENDED] += 1
            return 0
        if m.expires_ms and m.expires_ms <= self.now_ms:
            self.counters.dropped[DROP_EXPIRED] += 1              # [MQTT-3.3.2-5]
            return 0
        msg_view(m, &pub)
        self.delivering += 1
        try:
            (<Subscriber>target.subscriber).deliver(&pub, target)
        finally:
            self.delivering -= 1
        self.congested = NULL
        return 0

    cdef int pause_publisher(self, object connection) except -1:
        cdef Connection publisher = <Connection>connection
        cdef Subscriber receiver = <Subscriber>self.congested
        cdef int64_t due_ms = 0               # a tap holds until it has room
        cdef uint64_t acked = 0
        self.congested = NULL
        if publisher.session is receiver or publisher.state != STATE_CONNECTED or publisher.pauses & PAUSE_CONGESTED:
            return 0
        if receiver.kind == KIND_SESSION:
            if self.limits.publisher_pause_ms == 0:
                return 0
            due_ms = self.now_ms + self.limits.publisher_pause_ms
            acked = (<Session>receiver).acked
        self.counters.publishers_paused += 1
        publisher.pause(PAUSE_CONGESTED)
        self.held_publishers.append((publisher, receiver, due_ms, acked))
        return 0

    cdef int release_publishers(self) except -1:
        # A session holds at most publisher_pause_ms, and one that acknowledged nothing meanwhile not again: a reader that
        # hangs must not slow the others down.
        cdef list still = []
        cdef Connection publisher
        cdef Subscriber receiver
        cdef list held = self.held_publishers
        self.held_publishers = []
        for publisher, receiver, due_ms, acked in held:
            if receiver.kind == KIND_TAP:
                if (<Tap>receiver).is_congested(2) and publisher.state == STATE_CONNECTED:
                    still.append((publisher, receiver, due_ms, acked))
                else:
                    publisher.resume(PAUSE_CONGESTED)
            elif due_ms > self.now_ms and (<Session>receiver).link is not None and (<Session>receiver).is_congested(2):
                still.append((publisher, receiver, due_ms, acked))
            else:
                if due_ms <= self.now_ms and (<Session>receiver).acked == acked:
                    (<Session>receiver).is_stalled = True
                publisher.resume(PAUSE_CONGESTED)
        self.held_publishers.extend(still)
        return 0

    def release_held(self) -> None:
        """Read publishers again that waited for a tap, where it has room now."""
        if self.held_publishers:
            self.release_publishers()
            self.wake()

    # --- CONNECT ----------------------------------------------------------------------------------------------------

    cdef int admit(self, object connection, object packet) except -1:
        cdef Connection conn = <Connection>connection
        cdef dict properties = packet.properties
        cdef int size
        conn.wants_problem_information = properties.get(PROP_REQUEST_PROBLEM_INFORMATION, 1) != 0
        conn.maximum_packet_size = min(<uint32_t>properties.get(PROP_MAXIMUM_PACKET_SIZE, PACKET_MAXIMUM), <uint32_t>PACKET_MAXIMUM)
        conn.authentication_method = properties.get(PROP_AUTHENTICATION_METHOD)
        if not packet.client_id and (conn.version == 3 or conn.version == 4 and not packet.clean_start):
            conn.refuse(RC_CLIENT_IDENTIFIER_NOT_VALID)           # [v3 MQTT-3.1.3-8]; 3.1 has no empty ones
            return 0
        size = len(packet.client_id.encode())
        if <uint32_t>size > self.limits.client_id_bytes_maximum:
            conn.refuse(RC_CLIENT_IDENTIFIER_NOT_VALID, f"client id over {self.limits.client_id_bytes_maximum} bytes")
            return 0
        if packet.will is not None:
            if packet.will.qos > self.limits.maximum_qos:
                return self.refuse_unsupported(conn, RC_QOS_NOT_SUPPORTED)        # [MQTT-3.2.2-12]
            if packet.will.retain and not self.limits.retain_available:
                return self.refuse_unsupported(conn, RC_RETAIN_NOT_SUPPORTED)     # [MQTT-3.2.2-13]
            if packet.will.topic.startswith("$SYS/"):
                conn.refuse(RC_NOT_AUTHORIZED, "will to $SYS")
                return 0
        if self.counters.connections > <int64_t>self.limits.connections_maximum:
            conn.refuse(RC_SERVER_BUSY, "too many connections")
            return 0
        if self.is_overloaded:
            self.counters.connects_shed += 1
            conn.refuse(RC_SERVER_BUSY, "overloaded")
            return 0
        answer = None
        try:
            if self.hooks.mask & HOOK_ADMIT:
                answer = self.hooks.admit(ClientView.of(conn), packet)
                if answer is not None and not isinstance(answer, Refusal):
                    raise TypeError(f"admit answered {answer!r}, which is no Refusal")
            if answer is None and conn.certified_name is not None:
                answer = certified_answer(conn)
            elif answer is None and self.hooks.mask & HOOK_AUTHENTICATE:
                answer = self.hooks.authenticate(ClientView.of(conn), packet)
        except Exception as error:
            self.hooks.failed("authenticate", packet.client_id, error)
            answer = Refusal(RC_UNSPECIFIED_ERROR)                # errors refuse
        return self.take_answer(conn, answer)

    cdef int refuse_unsupported(self, Connection conn, uint8_t reason_code) except -1:
        # Below MQTT 5 no return code says so, and the connection closes without one [v3 MQTT-3.2.2-6].
        if conn.version == 5:
            conn.refuse(reason_code)
            return 0
        self.counters.connects_refused += 1
        conn.note_refusal(reason_code, None)
        return conn.close_with(reason_code, False)

    cdef int take_answer(self, Connection conn, object answer) except -1:
        if conn.state != STATE_ADMITTING:
            return 0                  # answered by accept() or refuse() meanwhile
        if answer is None:
            self.accept_anonymous(conn)
        elif isinstance(answer, Identity):
            self.accept_session(conn, conn.connect, answer)
        elif answer is PENDING:
            conn.pause(PAUSE_ADMITTING)       # nothing is read until the answer comes
        elif isinstance(answer, Challenge):
            self.challenge(conn, answer.data)
        elif isinstance(answer, Refusal):
            conn.refuse(answer.reason_code, answer.reason)
        else:
            log.error("authentication answered %r: refused", answer)
            conn.refuse(RC_UNSPECIFIED_ERROR)
        return 0

    cdef int accept_anonymous(self, Connection conn) except -1:
        # Nobody has an opinion: the listener's rule counts.
        if conn.authentication_method is not None:
            conn.refuse(RC_BAD_AUTHENTICATION_METHOD)             # [MQTT-4.12.0-1]
        elif not getattr(conn.listener, "allow_anonymous", False):
            conn.refuse(RC_NOT_AUTHORIZED, "authentication required")
        else:
            self.accept_session(conn, conn.connect, None)
        return 0

    def accept(self, client: ClientView | Connection, identity: object = None) -> None:
        """Accept the CONNECT or re-authentication that *client* waits with; without effect when it is gone by now.

        identity: an `Identity`; None: nobody has an opinion, so the listener's rule for anonymous clients counts, and a
        re-authentication is refused.
        """
        self.answer(client, identity)

    def answer(self, client: ClientView | Connection, answer: object) -> None:
        """Give the answer that PENDING put off: whatever `authenticate` and `continue_authentication` may return.

        Without effect when the client is gone by now, or waits for none.
        """
        cdef Connection conn = ClientView.connection_of(client)
        if conn is None:
            return
        if conn.state == STATE_ADMITTING:
            self.take_answer(conn, answer)
        elif conn.state == STATE_CONNECTED and conn.is_reauthenticating:
            self.take_reauthentication(conn, answer)
        self.wake()

    def refuse(self, client: ClientView | Connection, reason_code: int, reason: str | None = None) -> None:
        """Refuse as `Connection.refuse` does; without effect when the client is gone by now."""
        cdef Connection conn = ClientView.connection_of(client)
        if conn is not None:
            conn.refuse(reason_code, reason)
            self.wake()

    cdef int reauthenticated(self, Connection conn, object identity) except -1:
        cdef Session session = conn.session
        cdef Rights rights
        if self.limits.session_owner != OWNER_IGNORE and not self.owns(session, identity):
            conn.refuse(RC_NOT_AUTHORIZED, "the session belongs to another identity")
            return 0
        try:
            rights = self.compile_identity(conn.client_id, session.user_name, identity, session.rights)
        except ProtocolError as error:
            conn.refuse(error.reason_code, error.text)
            return 0
        self.take_identity(session, identity, rights)
        self.bind_identity(session)
        if conn.state != STATE_CONNECTED:
            return 0
        if self.events.mask & EVENT_CLIENT_AUTHENTICATED:
            self.events.authenticated(self.wall_ms(), ClientView.of(conn), identity)
        conn.is_reauthenticating = False
        return conn.send_bytes(Auth(RC_SUCCESS, {PROP_AUTHENTICATION_METHOD: conn.authentication_method}).encode(5))

    def challenge(self, client: ClientView | Connection, data: bytes | None) -> None:
        """Send AUTH with Continue authentication (0x18) and wait for the client's [MQTT-4.12.0-2].

        A client that named no Authentication Method is refused instead. Without effect when nothing is under way.
        """
        cdef Connection connection = ClientView.connection_of(client)
        if connection is None:
            return
        if connection.state != STATE_ADMITTING and not (
            connection.state == STATE_CONNECTED and connection.is_reauthenticating
        ):
            return
        if connection.authentication_method is None:
            log.error("client %s named no authentication method and cannot be challenged", connection.client_id)
            connection.refuse(RC_NOT_AUTHORIZED)                  # [MQTT-4.12.0-6]
            return
        properties = {PROP_AUTHENTICATION_METHOD: connection.authentication_method}
        if data is not None:
            properties[PROP_AUTHENTICATION_DATA] = data
        packet = Auth(0x18, properties).encode(5)
        if <uint32_t>len(packet) > connection.maximum_packet_size:
            connection.refuse(RC_PACKET_TOO_LARGE, "AUTH would be over your Maximum Packet Size")      # [MQTT-3.1.2-24]
            return
        connection.send_bytes(packet)
        if connection.state == STATE_ADMITTING:
            connection.resume(PAUSE_ADMITTING)
        self.wake()

    cdef int continue_authentication(self, object connection, object packet) except -1:
        cdef Connection conn = <Connection>connection
        if (
            conn.authentication_method is None
            or packet.properties.get(PROP_AUTHENTICATION_METHOD) != conn.authentication_method
            or self.hooks.continue_authentication is None
        ):
            # [MQTT-4.12.0-5] [MQTT-4.12.0-7] [MQTT-4.12.1-1]
            return conn.fail_with(ProtocolError(RC_PROTOCOL_ERROR, "MQTT-4.12.0-7", "AUTH without an agreed method"))
        is_under_way = conn.state == STATE_ADMITTING or conn.is_reauthenticating
        if packet.reason_code != (RC_CONTINUE_AUTHENTICATION if is_under_way else RC_RE_AUTHENTICATE):
            return conn.fail_with(ProtocolError(            # [MQTT-4.12.0-3] [MQTT-4.12.1-1]
                RC_PROTOCOL_ERROR, "§3.15.2.1", f"AUTH with reason code 0x{packet.reason_code:02X} at the wrong time"
            ))
        if conn.state == STATE_CONNECTED:
            conn.is_reauthenticating = True
        try:
            answer = self.hooks.continue_authentication(ClientView.of(conn), packet)
        except Exception as error:
            self.hooks.failed("continue_authentication", conn.client_id, error)
            answer = Refusal(RC_UNSPECIFIED_ERROR)
        if conn.state == STATE_ADMITTING:
            if answer is None:
                answer = Refusal(RC_NOT_AUTHORIZED)               # whoever began the exchange must end it
            return self.take_answer(conn, answer)
        return self.take_reauthentication(conn, answer)

    cdef int take_reauthentication(self, Connection conn, object answer) except -1:
        if conn.state != STATE_CONNECTED or not conn.is_reauthenticating:
            return 0                  # answered meanwhile
        if isinstance(answer, Identity):
            self.reauthenticated(conn, answer)
        elif isinstance(answer, Challenge):
            self.challenge(conn, answer.data)
        elif isinstance(answer, Refusal):
            conn.refuse(answer.reason_code, answer.reason)
        elif answer is None:
            conn.refuse(RC_NOT_AUTHORIZED)
        elif answer is not PENDING:
            log.error("re-authentication answered %r: refused", answer)
            conn.refuse(RC_UNSPECIFIED_ERROR)
        return 0

    cdef Session make_session(self, str client_id):
        cdef Session session = Session.new(self, client_id)
        session.timer.fire = on_session_timer
        return session

    cdef int open_session(self, object connection, object packet) except -1:
        return self.accept_session(connection, packet, None)

    cdef int accept_session(self, object connection, object packet, object identity) except -1:
        # Authenticated: only now is an existing session looked at (DESIGN §5).
        cdef Connection conn = <Connection>connection
        cdef dict properties = packet.properties
        cdef str client_id = packet.client_id
        cdef str user_name = packet.user_name if conn.certified_name is None else conn.certified_name
        cdef bint is_assigned = not client_id
        cdef bint is_replaced = False
        cdef bint present
        cdef Rights rights
        cdef uint64_t requested_s
        cdef uint32_t expiry_s
        cdef int keep_alive_s = packet.keep_alive_s
        cdef Session session
        cdef Connection old
        cdef bytes connack
        cdef uint64_t mark = self.journal.writes if self.journal is not None else 0
        if is_assigned:
            self.assigned += 1
            client_id = f"auto-{secrets.token_hex(8)}-{self.assigned}"    # [MQTT-3.1.3-6]
            conn.client_id = client_id
        if conn.client is not None:
            (<ClientView>conn.client).client_id = client_id
            (<ClientView>conn.client).identity = identity
        session = self.clients.get(client_id)
        try:
            rights = self.admit_identity(
                conn, identity, packet, user_name, session.rights if session is not None else None
            )
        except ProtocolError as error:
            conn.refuse(error.reason_code, error.text)
            return 0
        if conn.state != STATE_ADMITTING:
            return 0                  # a hook was asked about the will
        session = self.clients.get(client_id)
        if session is not None and not self.owns(session, identity):
            if self.limits.session_owner == OWNER_REFUSE:
                log.info("client %s at %s: the session belongs to another identity", client_id, conn.peer)
                conn.refuse(RC_CLIENT_IDENTIFIER_NOT_VALID)       # nothing is said of whose it is
                return 0
            is_replaced = self.limits.session_owner != OWNER_IGNORE
        if conn.version == 5:
            requested_s = properties.get(PROP_SESSION_EXPIRY_INTERVAL, 0)
        else:
            requested_s = 0 if packet.clean_start else NEVER_S
        expiry_s = <uint32_t>min(requested_s, <uint64_t>self.limits.session_expiry_maximum_s)
        if self.limits.keep_alive_maximum_s and (
            keep_alive_s == 0 or keep_alive_s > self.limits.keep_alive_maximum_s
        ) and conn.version == 5:
            keep_alive_s = self.limits.keep_alive_maximum_s       # [MQTT-3.2.2-21]
        if session is None and len(self.clients) >= self.limits.sessions_maximum:
            conn.refuse(RC_QUOTA_EXCEEDED, "too many sessions")
            return 0
        # A session that ends with its connection does not outlive the takeover.
        present = (
            session is not None and not packet.clean_start and not is_replaced
            and (session.link is None or session.session_expiry_s != 0)
        )
        if self.journal_fails() and (
            expiry_s or (session is not None and session.number) if not present
            else session.number and self.journal.is_unsafe(session.number)
        ):
            # A session could not be kept or ended; one that is kept may be taken up, so that what it holds can go.
            conn.refuse(self.journal.failure, "the store fails")
            return 0
        connack = self.success_connack(
            conn, packet, present, client_id if is_assigned else None, expiry_s if expiry_s != requested_s else None,
            keep_alive_s,
        )
        if <uint32_t>len(connack) > conn.maximum_packet_size:
            conn.refuse(RC_PACKET_TOO_LARGE)                      # [MQTT-3.1.2-24]; no session has been touched
            return 0
        if session is not None and session.link is not None:
            old = <Connection>session.link
            self.counters.takeovers += 1
            old.close_with(RC_SESSION_TAKEN_OVER, True, "another connection took the session over")  # [MQTT-3.1.4-3]
        if session is not None and not present:
            self.end_session(session)                             # [MQTT-3.1.4-4]; maybe it ended with its connection
        if not present:
            session = self.make_session(client_id)
            self.clients[client_id] = session
            self.client_changes.changed(client_id)
        timer_disarm(&self.wheel, &session.timer)
        session.expires_ms = session.will_due_ms = 0              # [MQTT-3.1.3-9]
        session.set_will(NULL, 0)
        self.epochs += 1
        session.epoch = self.epochs
        session.publisher = session.ordering_key = None
        session.user_name = user_name
        if self.on_backlog is not None and session.queue.count:
            session.keep_back()                                   # also from being withdrawn before rights are final
        self.take_identity(session, identity, rights)             # before any of its messages is sent
        session.connected_ms = self.now_ms
        session.session_expiry_s = expiry_s
        session.is_clean = session.session_expiry_s == 0
        if packet.will is not None:
            session.set_will(
                make_message(
                    packet.will.topic.encode(), packet.will.payload, packet.will.qos, packet.will.retain,
                    packet.will.properties, NULL,
                ),
                packet.will.properties.get(PROP_WILL_DELAY_INTERVAL, 0),
            )
        conn.alias_maximum = min(
            <int>properties.get(PROP_TOPIC_ALIAS_MAXIMUM, 0), <int>self.limits.topic_alias_maximum_out
        )
        conn.send_bytes(connack)
        if self.journal is not None:
            if expiry_s or session.number:
                session.keep(True)
            if self.journal.writes != mark and not self.journal.failure:
                conn.cork_output()
        self.counters.connects += 1
        session.attach(conn, properties.get(PROP_RECEIVE_MAXIMUM, 65535))
        if self.events.mask & EVENT_CLIENT_CONNECTED:
            self.events.connected(self.wall_ms(), ClientView.of(conn), session, present, keep_alive_s)
        conn.connected(session, keep_alive_s)
        self.bind_identity(session)
        if session.kept_back != NULL:
            self.offer_backlog(conn, session, keep_alive_s)
        session.pump()
        return conn.resume(PAUSE_ADMITTING)

    cdef int offer_backlog(self, Connection conn, Session session, int keep_alive_s) except -1:
        cdef object count
        try:
            count = self.on_backlog(ClientView.of(conn), session.kept_back_count(), keep_alive_s)
            if count is not None and (not isinstance(count, int) or count < 0):
                raise TypeError(f"{count!r} is no number of messages, nor None")
        except Exception as error:
            log.error("client %s: deciding about its backlog", session.client_id, exc_info=error)
            count = None              # as if nobody kept it
        if session.link is not conn or session.kept_back == NULL:
            return 0
        if count is not None:
            session.let_go(bounded(count), False, 0)
            return 0
        session.take_back()           # as a whole, however long it is
        if session.rights is not None and session.rights.has_rules:
            self.withdraw_queued(session, &session.queue)
        return 0

    def keep_backlogs(self, function) -> None:
        """Have a function asked how much of a resumed session's queue goes at once; None: all of it, unasked."""
        self.on_backlog = function

    def backlog(self, client_id: str) -> int:
        """Return how many messages are kept back for a client."""
        cdef Session session = self.clients.get(client_id)
        return 0 if session is None else session.kept_back_count()

    def release_backlog(self, client_id: str, count: int | None, newest_first: bool = False, age_maximum_ms: int = 0) -> int:
        """Let up to *count* of them go, all with None; how many. What waited for age_maximum_ms is dropped; 0: any time."""
        cdef Session session = self.clients.get(client_id)
        cdef int64_t released
        if count is not None and count < 0 or age_maximum_ms < 0:
            raise ValueError("count and age are not negative")
        if session is None or session.link is None or session.kept_back == NULL:
            return 0
        released = session.let_go(bounded(count), newest_first, age_maximum_ms)
        session.pump()
        if session.link is not None:
            session.link.mark_dirty()
        self.wake()
        return released

    cdef bytes success_connack(self, object connection, object packet, bint present, str assigned, object expiry_s,
                               int keep_alive_s):
        # assigned, expiry_s: what the client does not know yet, or None.
        cdef Connection conn = <Connection>connection
        cdef dict said
        if conn.version < 5:
            # 3.1 has no Session Present.
            return b"\x20\x02\x01\x00" if present and conn.version == 4 else b"\x20\x02\x00\x00"
        said = {}
        if expiry_s is not None:
            said[PROP_SESSION_EXPIRY_INTERVAL] = expiry_s
        if keep_alive_s != packet.keep_alive_s:
            said[PROP_SERVER_KEEP_ALIVE] = keep_alive_s
        if assigned is not None:
            said[PROP_ASSIGNED_CLIENT_IDENTIFIER] = assigned              # [MQTT-3.2.2-16]
        if conn.authentication_method is not None:
            said[PROP_AUTHENTICATION_METHOD] = conn.authentication_method
        if packet.properties.get(PROP_REQUEST_RESPONSE_INFORMATION) and self.limits_source.response_information:
            said[PROP_RESPONSE_INFORMATION] = self.limits_source.response_information
        if not said and conn.packet_maximum >= self.limits.maximum_packet_size_bytes:
            return self.connack_resumed if present else self.connack_new
        said.update(self.connack_properties)
        if conn.packet_maximum < self.limits.maximum_packet_size_bytes:
            said[PROP_MAXIMUM_PACKET_SIZE] = conn.packet_maximum
        return ConnAck(present, 0, said).encode(5)

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

    # --- subscriptions ----------------------------------------------------------------------------------------------

    cdef int subscribe(self, object subscriber, bytes topic_filter, uint8_t options, uint32_t subid) except -1:
        cdef Session session = <Session>subscriber
        cdef const uint8_t* text = <const uint8_t*><char*>topic_filter
        cdef Py_ssize_t size = len(topic_filter)
        cdef uint8_t qos = options & OPT_QOS
        cdef bint is_shared = topic_filter.startswith(b"$share/")
        cdef bint is_new
        if check_topic_filter(text, size) or size > <Py_ssize_t>self.limits.topic_bytes_maximum:
            return RC_TOPIC_FILTER_INVALID
        if is_shared:
            if not self.limits.shared_subscription_available:
                return RC_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
            if options & 0x04:
                return RC_PROTOCOL_ERROR                          # [MQTT-3.8.3-4]; the connection closes for it
        if not self.limits.wildcard_subscription_available and (b"+" in topic_filter or b"#" in topic_filter):
            return RC_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
        if session.subscriptions is None:
            session.subscriptions = {}
        if session.number and self.journal_fails():
            return self.journal.failure
        if session.identity is None and self.authorize_filter(session, topic_filter) > 2:
            return RC_NOT_AUTHORIZED                              # $SYS
        is_new = topic_filter not in session.subscriptions
        if is_new and len(session.subscriptions) >= self.limits.subscriptions_per_session_maximum:
            return RC_QUOTA_EXCEEDED
        if is_new and session.rights is not None and len(session.subscriptions) >= session.rights.subscriptions_maximum:
            if not session.rights.ignores_extra_subscriptions:
                return RC_QUOTA_EXCEEDED
            self.counters.subscriptions_ignored += 1
            return min(qos, self.limits.maximum_qos)
        if qos > self.limits.maximum_qos:
            qos = self.limits.maximum_qos                         # granted less than asked for (MQTT 5 §3.9.3)
        try:
            self.topics.subscribe(text, size, session, (options & ~<uint8_t>OPT_QOS) | qos, subid)
        except QuotaExceeded as error:
            log.info("client %s: subscription refused: %s", session.client_id, error)
            return RC_QUOTA_EXCEEDED
        session.subscriptions[topic_filter] = (options & ~<uint8_t>OPT_QOS) | qos | <uint64_t>subid << 8
        self.counters.subscriptions += is_new
        if self.events.mask & EVENT_SUBSCRIBED:
            self.events.subscribed(
                self.wall_ms(), session.client_id, topic_filter, (options & ~<uint8_t>OPT_QOS) | qos, subid
            )
        session.keep_subscription(topic_filter, (options & ~<uint8_t>OPT_QOS) | qos, subid)
        if not is_shared and session.link is not None and (options >> 4 == 0 or (options >> 4 == 1 and is_new)):
            self.replay_retained(session, topic_filter, options, qos, subid)       # [MQTT-3.3.1-9..11]
        return qos

    cdef int replay_retained(self, Session session, bytes topic_filter, uint8_t options, uint8_t qos,
                             uint32_t subid) except -1:
        cdef subids_t* ids
        cdef RetainedCursor cursor
        if self.retained.count == 0:
            return 0
        ids = make_subids(subid)
        try:
            cursor = self.retained.match(<const uint8_t*><char*>topic_filter, len(topic_filter))
            session.start_replay(topic_filter, cursor, qos, options & OPT_NO_LOCAL != 0, ids)
        finally:
            subids_unref(ids)
        return 0

    cdef int unsubscribe(self, object subscriber, bytes topic_filter) except -1:
        cdef Session session = <Session>subscriber
        if check_topic_filter(<const uint8_t*><char*>topic_filter, len(topic_filter)):
            return RC_TOPIC_FILTER_INVALID
        if session.subscriptions is None or topic_filter not in session.subscriptions:
            return RC_NO_SUBSCRIPTION_EXISTED
        del session.subscriptions[topic_filter]
        if session.number and self.journal is not None:
            self.journal.delete(session.subscription_keys.pop(topic_filter))
        self.topics.unsubscribe(<const uint8_t*><char*>topic_filter, len(topic_filter), session)
        session.stop_replay(topic_filter)                         # [MQTT-3.10.4-2]
        if self.events.mask & EVENT_UNSUBSCRIBED:
            self.events.unsubscribed(self.wall_ms(), session.client_id, topic_filter)
        self.counters.subscriptions -= 1
        return RC_SUCCESS

    cdef int check_filter(self, bytes topic_filter) except -1:
        cdef int status = check_topic_filter(topic_filter, len(topic_filter))
        if len(topic_filter) > TOPIC_BYTES_MAXIMUM:
            raise ValueError(f"a filter of {len(topic_filter)} bytes is no Topic Filter: {TOPIC_BYTES_MAXIMUM} at most")
        if status:
            raise ValueError(f"{topic_filter!r} is no Topic Filter: {status_error(status)}")
        return 0

    def add_tap(self, topic_filter: bytes, subscriber: Subscriber, options: int = 2) -> None:
        """Hang a subscriber that is no session on the trie. options: the SUBSCRIBE options byte; ValueError: bad filter."""
        self.check_filter(topic_filter)
        self.topics.subscribe(topic_filter, len(topic_filter), subscriber, options, 0)
        self.taps[id(subscriber), topic_filter] = subscriber

    def remove_tap(self, topic_filter: bytes, subscriber: Subscriber) -> None:
        """Take a subscriber off again; without effect when it is not there."""
        if self.taps.pop((id(subscriber), topic_filter), None) is not None:
            self.topics.unsubscribe(topic_filter, len(topic_filter), subscriber)
            if self.congested == <PyObject*>subscriber:
                self.congested = NULL
            self.bury(subscriber)

    def subscribe_client(self, client_id: str, topic_filter: bytes, options: int, subscription_id: int) -> int | None:
        """Subscribe a session; the reason code of SUBACK, None without such a session. options: the byte of SUBSCRIBE."""
        cdef Session session = self.clients.get(client_id)
        cdef int code
        if session is None:
            return None
        if topic_filter.startswith(b"$share/") and options & OPT_NO_LOCAL:
            return RC_PROTOCOL_ERROR                              # [MQTT-3.8.3-4]
        code = self.subscribe(session, topic_filter, options, subscription_id)
        if session.link is not None:
            session.pump()            # retained messages
        self.wake()
        return code

    def unsubscribe_client(self, client_id: str, topic_filter: bytes) -> int | None:
        """Unsubscribe a session; the reason code of UNSUBACK, None without such a session."""
        cdef Session session = self.clients.get(client_id)
        return None if session is None else self.unsubscribe(session, topic_filter)

    def subscriptions_of(self, client_id: str) -> list:
        """Return the subscriptions of a session as (filter, options, subscription id); empty without such a session."""
        cdef Session session = self.clients.get(client_id)
        if session is None or session.subscriptions is None:
            return []
        return [(f.decode(), value & 0xFF, value >> 8) for f, value in session.subscriptions.items()]

    def subscribers_of(self, topic_filter: bytes) -> list:
        """Return the sessions that subscribed to exactly this filter as (client id, options, subscription id)."""
        cdef list found = []
        cdef uint64_t value
        for subscriber in self.topics.subscribers(topic_filter):
            if (<Subscriber>subscriber).kind == KIND_SESSION:
                value = (<Session>subscriber).subscriptions[topic_filter]
                found.append(((<Session>subscriber).client_id, value & 0xFF, value >> 8))
        return found

    def set_ordering_key(self, client_id: str, key: str | None) -> bool:
        """Give what a client publishes from now on an ordering key, until its connection ends; False when it has none."""
        cdef Session session = self.clients.get(client_id)
        if session is None or session.link is None:
            return False
        session.ordering_key = key
        session.publisher = None
        return True

    def retained_message(self, topic: bytes) -> Message | None:
        """Return the retained message of a topic, or None."""
        cdef msg_t* m = self.retained.find(topic, len(topic))
        return None if m == NULL or (m.expires_ms and m.expires_ms <= self.now_ms) else Message.new(m)

    def set_retained(self, topic: bytes, payload: bytes, qos: int = 0, properties: dict | None = None) -> None:
        """Keep a retained message without publishing it. Arguments are checked as by publish_bytes(); payload not empty.

        Raises QuotaExceeded when it cannot be retained.
        """
        cdef pub_t pub
        cdef msg_t* m
        cdef bint is_kept
        if not payload:
            raise ValueError("a retained message has a payload; delete_retained() removes it")
        m = self.own_message(topic, payload, qos, True, properties)
        try:
            msg_view(m, &pub)
            is_kept = self.keep_retained(&pub)
        finally:
            msg_unref(m)
        if not is_kept:
            raise QuotaExceeded(RC_QUOTA_EXCEEDED, "§3.3.1.3", "retained message over the limits of the broker")

    def delete_retained(self, topic: bytes) -> bool:
        """Remove the retained message of a topic; False when there was none."""
        cdef pub_t pub
        cdef msg_t* m
        if self.retained.find(topic, len(topic)) == NULL:
            return False
        m = self.own_message(topic, b"", 0, True, None)
        try:
            msg_view(m, &pub)
            self.keep_retained(&pub)
        finally:
            msg_unref(m)
        return True

    def retained_messages(self, topic_filter: bytes) -> list:
        """Return the retained messages that *topic_filter* matches, as `Message`."""
        cdef RetainedCursor cursor
        cdef msg_t* m
        cdef int budget = 0x7FFFFFFF
        cdef list found = []
        self.check_filter(topic_filter)
        cursor = self.retained.match(topic_filter, len(topic_filter))
        while True:
            m = cursor.next(&budget)
            if m == NULL:
                break
            if not m.expires_ms or m.expires_ms > self.now_ms:
                found.append(Message.new(m))
        cursor.close()
        return found

    # --- looking and acting from outside ------------------------------------------------------------------------------

    cdef Session session_of(self, str client_id):
        return self.clients.get(client_id)

    def session(self, client_id: str) -> Session | None:
        """Return the session of a client id, connected or not."""
        return self.clients.get(client_id)

    def sessions(self) -> list:
        """Return all sessions, connected or not, as they are now."""
        return list(self.clients.values())

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

    def set_overloaded(self, is_overloaded: bool) -> None:
        """Refuse new clients with Server busy (0x89) from now on, or no longer; who is connected stays."""
        self.is_overloaded = is_overloaded

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
            awaiting_release=self.counters.awaiting_release,
            queued=self.counters.queued,
            queued_bytes=self.counters.queued_bytes,
            queued_kept_back=self.counters.kept_back,
            queued_paged_out=self.counters.paged_out,
            queued_paged_in=self.counters.paged_in,
            taps=len(self.taps),
        )
        return found


cdef object certified_answer(Connection conn):
    # The client's certificate is authentication enough, by the listener's setting.
    if not conn.certified_name:
        return Refusal(RC_NOT_AUTHORIZED, "the certificate names nobody")
    if conn.authentication_method is not None:
        return Refusal(RC_BAD_AUTHENTICATION_METHOD)              # [MQTT-4.12.0-1]
    return Identity(conn.certified_name)


cdef subids_t* make_subids(uint32_t subid) except? NULL:
    # One encoded Subscription Identifier; NULL for 0.
    cdef subids_t* ids = NULL
    if subid:
        subids_add(&ids, subid)
    return ids
