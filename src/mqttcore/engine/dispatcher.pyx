"""Ways of a message: to subscribers, retained, handlers, single clients; what cannot be taken waits or is refused."""

cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memset

from mqttcore.codec.codes cimport (
    RC_NO_MATCHING_SUBSCRIBERS, RC_NOT_AUTHORIZED, RC_QUOTA_EXCEEDED, RC_SUCCESS, RC_UNSPECIFIED_ERROR,
)
from mqttcore.codec.names cimport check_topic_filter, check_topic_name
from mqttcore.codec.status cimport status_error
from mqttcore.codec.wire cimport get_u32
from mqttcore.engine.authorizer cimport Authorizer
from mqttcore.engine.client_view cimport ClientView
from mqttcore.engine.compose cimport make_message
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.core cimport (
    DROP_EXPIRED, DROP_NOT_AUTHORIZED, DROP_QUOTA, DROP_SESSION_ENDED, DROP_TOTAL_FULL, GIVEN_AWAY,
)
from mqttcore.engine.handler cimport Handler
from mqttcore.engine.inlet cimport PAUSE_CONGESTED
from mqttcore.engine.message cimport (
    TRACED_PUBLISHER, TRACED_TOPIC, Message, msg_props, msg_unref, msg_view, pub_done, pub_keep, pub_settle, pub_t, stored_ref, stored_t,
)
from mqttcore.engine.network_connection cimport STATE_CONNECTED
from mqttcore.engine.queue cimport queue_clear, queue_head, queue_pop
from mqttcore.engine.recipients cimport STORES_AS_SENDER, recipients_find, recipients_stand
from mqttcore.engine.subscriber cimport HEARD, KIND_SESSION, KIND_TAP, UNHEARD, recipients_ref, recipients_unref, target_init
from mqttcore.engine.tap cimport Tap
from mqttcore.engine.topics cimport (
    OPT_RETAIN_AS_PUBLISHED, ShareGroup, Subscriber, recipients_t, route_ref, route_t, route_unref, target_t,
)

import heapq
import logging

from mqttcore.engine.handler import REFUSED
from mqttcore.errors import QuotaExceeded, StoreError
from mqttcore.handlers import Consumed

log = logging.getLogger("mqttcore.engine")

cdef enum:
    TOPIC_BYTES_MAXIMUM = 65535       # [MQTT-4.7.3-3]; what clients send cannot be longer
    REMAINING_MAXIMUM = 268435455     # Remaining Length (MQTT 5 §2.1.4)


@cython.final
cdef class Remains:
    """The queue of a session that ended."""

    def __dealloc__(self):
        queue_clear(&self.queue)


cdef class Dispatcher(Authorizer):
    """Base of Engine: publishing."""

    cdef Py_ssize_t publish(self, pub_t* pub, route_t* route) except -1:
        # Returns the number of targets, or -2 when a retained message was refused for a limit.
        cdef uint32_t i
        cdef Py_ssize_t reached = 0
        cdef target_t* target
        cdef PyObject* picked
        cdef int outcome
        cdef bint is_over_quota = False
        if not pub.retain and route.count == 0 and route.group_count == 0:
            self.counters.unmatched += 1
            if route.traced | pub.traced:
                self.trace_publish(pub, route)
            return 0
        route_ref(route)              # from the start: keeping the message may log, and a log handler may subscribe
        self.delivering += 1
        try:
            if route.traced | pub.traced:
                self.trace_publish(pub, route)
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
                    picked = target.subscriber
                    outcome = (<Subscriber>picked).deliver(pub, target)
                    if outcome and self.pass_on(pub, <ShareGroup>route.groups[i], picked, NULL, outcome) == UNHEARD:
                        (<Session>picked).count_drop(DROP_NOT_AUTHORIZED, 1, pub)
                    reached += 1
        finally:
            self.delivering -= 1
            route_unref(route)
        return -2 if is_over_quota else reached

    cdef int trace_publish(self, pub_t* pub, route_t* route) except -1:
        # Not to be followed by a use of a route that is not held. Over the rate a message is left out as a whole: then its
        # deliveries pay nothing, and a watch on `#` does not slow a busy broker.
        pub.traced |= <uint8_t>route.traced
        if not self.tracer.published(pub, route.count + route.group_count):
            pub.traced &= TRACED_PUBLISHER
        if pub.kept != NULL:
            pub.kept.traced = pub.traced & TRACED_TOPIC
        return 0

    cdef bint keep_retained(self, pub_t* pub) except -1:
        cdef msg_t* m
        cdef stored_t* stored
        if pub.payload_size == 0:
            self.retained.remove(pub.topic, pub.topic_size)       # [MQTT-3.3.1-6] [MQTT-3.3.1-7]
            return True
        m = pub_keep(pub)
        try:
            if self.is_memory_full and pub.origin != NULL and self.retained.would_grow(m):
                raise QuotaExceeded(RC_QUOTA_EXCEEDED, "§3.3.1.3", "memory is full")
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
        cdef int64_t size = <int64_t>sizeof(msg_t) + pub.topic_size + pub.props_size + pub.payload_size
        if session.link is not None and session.queue.count == 0 and session.has_window():
            return False
        return session.is_over_limit(size) or self.counters.queued_bytes + size > self.limits.queued_total_bytes_maximum

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
                if entry.doom:
                    if entry.doom != 1 + GIVEN_AWAY:
                        self.counters.dropped[entry.doom - 1] += 1
                elif entry.group == NULL or entry.message == NULL or not self.redistribute(
                    entry.message, <object>entry.group, None
                ):
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
        cdef object client, _publisher
        msg_view(m, &pub)
        pub.kept = NULL               # a copy is made if it has to be kept: with its id, time and deadline as of now
        pub.origin = origin
        pub.birth = &self.birth
        if origin != NULL:
            pub.publisher = (<Session>origin).as_publisher()
            _publisher = <object>pub.publisher     # a hook may give the session another one
            pub.traced = (<Session>origin).traced
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
                    if pub.traced or self.tracer.wants_topics():
                        self.tracer.diverted(
                            client, m.data, m.topic_size, m.qos, m.payload_size, RC_NOT_AUTHORIZED
                        )
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
        pub.traced |= <uint8_t>route.traced
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
                if ((<Subscriber>target.subscriber).is_online or (
                    stores_offline and pub.qos and target.qos
                )) and (<Session>target.subscriber).knows(pub.topic, pub.topic_size):
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
            return ClientView.absent(
                (<Session>client).client_id, (<Session>client).user_name, (<Session>client).identity, (<Session>client).mount
            )
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
        RETAIN flag it sees. Arguments are checked as by publish_bytes(). A client with a mount point takes what is below it.
        """
        cdef Session session = self.clients.get(client_id)
        cdef msg_t* m = self.own_message(topic, payload, qos, retain, properties)
        cdef pub_t pub
        cdef target_t target
        cdef uint8_t refusal
        try:
            if session is None or (session.link is None and not (stores_offline and qos)):
                return False
            if not session.knows(m.data, m.topic_size):
                return False
            msg_view(m, &pub)
            target_init(&target, <PyObject*>session, qos | (OPT_RETAIN_AS_PUBLISHED if retain else 0), 0)
            refusal = self.refusal_of(&pub, &target, 1) if self.is_refusing else 0
            if refusal:
                self.raise_refusal(refusal)
            target.is_direct = True
            pub.traced |= self.tracer.trace_of(m.data, m.topic_size)
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

    cdef bint redistribute(self, msg_t* m, object group, object leaving) except -1:
        cdef target_t* target = (<ShareGroup>group).pick(self.topics.route(m.data, m.topic_size).hash)
        cdef PyObject* picked
        cdef pub_t pub
        cdef int outcome = UNHEARD
        if target == NULL:
            return False
        if m.expires_ms and m.expires_ms <= self.now_ms:
            self.counters.dropped[DROP_EXPIRED] += 1              # [MQTT-3.3.2-5]
            return True
        msg_view(m, &pub)
        self.delivering += 1
        try:
            picked = target.subscriber
            if picked != <PyObject*>leaving:
                outcome = (<Subscriber>picked).deliver(&pub, target)
            if outcome:
                outcome = self.pass_on(&pub, group, picked, <PyObject*>leaving, outcome)
        finally:
            self.delivering -= 1
        self.congested = NULL
        return outcome == HEARD

    cdef int pass_on(self, pub_t* pub, ShareGroup group, PyObject* picked, PyObject* leaving, int outcome) except -1:
        # Two rounds from the one picked on: members with a connection first. A hook that is asked on the way may change the
        # membership, so places are looked up anew, and nobody is asked without end.
        cdef Py_ssize_t first = group.picked
        cdef Py_ssize_t count = group.count
        cdef Py_ssize_t index, k
        cdef PyObject* member
        cdef int wants_online, found
        for wants_online in range(1, -1, -1):
            for k in range(count):
                if group.count == 0:
                    return outcome
                index = (first + k) % group.count
                member = group.members[index].target.subscriber
                if member == picked or member == leaving or (<Subscriber>member).is_online != wants_online:
                    continue
                found = (<Subscriber>member).deliver(pub, &group.members[index].target)
                if found == HEARD:
                    if index < group.count and group.members[index].target.subscriber == member:
                        group.took(index)
                    return HEARD
                if found == UNHEARD:
                    outcome = UNHEARD
        return outcome

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
        # hangs must not slow the others down. While memory is full, whoever makes a queue longer waits each time.
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
            elif due_ms > self.now_ms and (
                self.is_memory_full or (<Session>receiver).link is not None and (<Session>receiver).is_congested(2)
            ):
                still.append((publisher, receiver, due_ms, acked))
            else:
                if due_ms <= self.now_ms and (<Session>receiver).acked == acked and not self.is_memory_full:
                    (<Session>receiver).is_stalled = True
                publisher.resume(PAUSE_CONGESTED)
        self.held_publishers.extend(still)
        return 0

    def release_held(self) -> None:
        """Read publishers again that waited for a tap, where it has room now."""
        if self.held_publishers:
            self.release_publishers()
            self.wake()

    cdef int check_filter(self, bytes topic_filter) except -1:
        cdef int status = check_topic_filter(topic_filter, len(topic_filter))
        if len(topic_filter) > TOPIC_BYTES_MAXIMUM:
            raise ValueError(f"a filter of {len(topic_filter)} bytes is no Topic Filter: {TOPIC_BYTES_MAXIMUM} at most")
        if status:
            raise ValueError(f"{topic_filter!r} is no Topic Filter: {status_error(status)}")
        return 0

    cdef void bury(self, object subscriber) noexcept:
        # Routes borrow their subscribers: one that leaves during a delivery lives until it is over.
        if self.delivering:
            self.graveyard.append(subscriber)
