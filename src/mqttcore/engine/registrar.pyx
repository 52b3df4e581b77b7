"""Who subscribes to what, and what is retained: for clients and for the application."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mqttcore.codec.codes cimport (
    RC_NO_SUBSCRIPTION_EXISTED, RC_NOT_AUTHORIZED, RC_PROTOCOL_ERROR, RC_QUOTA_EXCEEDED,
    RC_SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, RC_SUCCESS, RC_TOPIC_FILTER_INVALID, RC_WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
)
from mqttcore.codec.names cimport check_topic_filter
from mqttcore.engine.client_view cimport ClientView
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.events cimport EVENT_SUBSCRIBED, EVENT_UNSUBSCRIBED
from mqttcore.engine.message cimport TRACED_PUBLISHER, Message, msg_t, msg_unref, msg_view, pub_t
from mqttcore.engine.mount cimport refusal_of_filter
from mqttcore.engine.retained cimport RetainedCursor
from mqttcore.engine.subscriber cimport KIND_SESSION, subids_add, subids_unref
from mqttcore.engine.topics cimport OPT_NO_LOCAL, OPT_QOS, Subscriber, subids_t
from mqttcore.engine.watch cimport WATCH_ADDRESS, WATCH_CLIENT, WATCH_TOPIC, Watch

import logging

from mqttcore.errors import QuotaExceeded
from mqttcore.trace_entries import ConnectionFailed, RequestRefused

log = logging.getLogger("mqttcore.engine")


cdef class Registrar(Dispatcher):
    """Base of Engine: subscriptions, taps, retained messages."""

    cdef int subscribe(self, object subscriber, bytes topic_filter, uint8_t options, uint32_t subid) except -1:
        cdef Session session = <Session>subscriber
        cdef const uint8_t* text = <const uint8_t*><char*>topic_filter
        cdef Py_ssize_t size = len(topic_filter)
        cdef uint8_t qos = options & OPT_QOS
        cdef bint is_shared = topic_filter.startswith(b"$share/")
        cdef bint is_new
        cdef uint8_t refused
        if check_topic_filter(text, size):
            return RC_TOPIC_FILTER_INVALID
        refused = refusal_of_filter(session.mount, text, size, self.limits.topic_bytes_maximum)
        if refused:
            return refused
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
        if is_new and (
            self.is_memory_full or len(session.subscriptions) >= self.limits.subscriptions_per_session_maximum
        ):
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
        if session.traced:
            self.tracer.subscribed(session, topic_filter, (options & ~<uint8_t>OPT_QOS) | qos, subid)
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
        if session.traced:
            self.tracer.unsubscribed(session, topic_filter)
        self.counters.subscriptions -= 1
        return RC_SUCCESS

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

    # --- watching -----------------------------------------------------------------------------------------------------

    def add_watch(self, watch: Watch) -> None:
        """Let a watch see what happens from now on, to a client that is there already as well.

        Of an address it sees connections that come from now on, and those of sessions given to `watch_sessions`: looking
        at all of them takes its time. ValueError, QuotaExceeded: its Topic Filter is none, or has too many levels.
        """
        cdef Session session
        if watch.subject == WATCH_TOPIC:
            self.check_filter(watch.topic_filter)
            self.topics.subscribe(watch.topic_filter, len(watch.topic_filter), watch, 0, 0)
        self.tracer.add(watch)
        if watch.subject == WATCH_CLIENT:
            session = self.clients.get(watch.value)
            if session is not None:
                self.watch_session(session)

    def watch_sessions(self, sessions: list) -> None:
        """Let watches on addresses see the connections that these sessions have."""
        cdef Session session
        for session in sessions:
            if session.link is not None:
                self.watch_session(session)

    cdef int watch_session(self, Session session) except -1:
        cdef bint is_watched = self.tracer.watches_of(session) is not None
        if session.link is not None and self.tracer.look_at(session.link, session.client_id):
            session.link.traced = TRACED_PUBLISHER
            is_watched = True
        if is_watched:
            session.traced = TRACED_PUBLISHER
        return 0

    def remove_watch(self, watch: Watch) -> None:
        """Let a watch see nothing more; without effect when it is off already.

        Connections that it saw pay for it until `free_connections` was told of them.
        """
        cdef Session session
        self.tracer.remove(watch)
        if watch.subject == WATCH_CLIENT:
            session = self.clients.get(watch.value)
            if session is not None and session.link is None and self.tracer.watches_of(session) is None:
                session.traced = 0
        elif watch.subject == WATCH_TOPIC:
            self.topics.unsubscribe(watch.topic_filter, len(watch.topic_filter), watch)

    def watched_connections(self) -> list:
        """Return the connections that somebody watches, or has watched."""
        return list(self.tracer.connections)

    def free_connections(self, connections: list) -> None:
        """See which of these nobody watches any more."""
        cdef Connection connection
        for connection in connections:
            if self.tracer.is_free(connection):
                connection.traced = 0
                if connection.session is not None:
                    connection.session.traced = 0

    @property
    def watches_addresses(self) -> bool:
        """Whether anybody watches addresses: what happens before a client is known is worth telling."""
        return self.tracer.subjects & WATCH_ADDRESS != 0

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches clients, so that it is worth telling about them."""
        return self.tracer.subjects & (WATCH_CLIENT | WATCH_ADDRESS) != 0

    def trace_decision(self, client: ClientView, hook: str, plugin: str | None, answer: str) -> None:
        """Tell who watches *client* what a plugin decided about it, in words."""
        if client.connection is not None and client.connection.traced:
            self.tracer.decided(client.connection, hook, plugin, answer)

    def trace_failure(self, address: object, listener: str, reason: str) -> None:
        """Tell who watches *address* of a connection that was given up before it came here."""
        self.tracer.outside(address, ConnectionFailed, {"listener": listener, "reason": reason})

    def trace_request(
        self, address: object, listener: str | None, method: str, path: str, status: int, detail: str | None
    ) -> None:
        """Tell who watches *address* of an HTTP request that was answered with an error."""
        self.tracer.outside(address, RequestRefused, {
            "listener": listener, "method": method, "path": path, "status": status, "detail": detail,
        })

    def trace_pause(self, listener: str | None, reason: str) -> None:
        """Tell who watches addresses that a listener, or with None all of them, accept nobody for a while."""
        self.tracer.accepting_paused(listener, reason)

    # --- subscriptions, from outside --------------------------------------------------------------------------------

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
        return self.take_retained(self.retained_cursor(topic_filter), 0x7FFFFFFF)[0]

    def retained_cursor(self, topic_filter: bytes) -> RetainedCursor:
        """Return a place in what `retained_messages` would give, for `take_retained`."""
        self.check_filter(topic_filter)
        return self.retained.match(topic_filter, len(topic_filter))

    def take_retained(self, cursor: RetainedCursor, nodes: int) -> tuple:
        """Return what the next *nodes* nodes of the tree hold for a cursor, and whether that was all."""
        cdef RetainedCursor place = cursor
        cdef int budget = nodes
        cdef list found = []
        cdef msg_t* m
        while True:
            m = place.next(&budget)
            if m == NULL:
                break
            if not m.expires_ms or m.expires_ms > self.now_ms:
                found.append(Message.new(m))
        is_at_end = budget > 0
        if is_at_end:
            place.close()
        return found, is_at_end


cdef subids_t* make_subids(uint32_t subid) except? NULL:
    # One encoded Subscription Identifier; NULL for 0.
    cdef subids_t* ids = NULL
    if subid:
        subids_add(&ids, subid)
    return ids
