"""What a client may do: the part of Engine that authorizer.pxd describes."""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp

from mqttcore.codec.codes cimport (
    PT_PUBACK,
    PT_SUBACK,
    RC_NOT_AUTHORIZED,
    RC_TOPIC_FILTER_INVALID,
    RC_UNSPECIFIED_ERROR,
)
from mqttcore.codec.names cimport check_topic_filter
from mqttcore.codec.views cimport has_reason
from mqttcore.engine.addressee cimport GUARD_HOOK, GUARD_MOUNT, GUARD_RULES
from mqttcore.engine.client_view cimport ClientView
from mqttcore.engine.compose cimport change_message
from mqttcore.engine.core cimport DROP_NOT_AUTHORIZED, OWNER_IGNORE, OWNER_REFUSE, OWNER_REPLACE
from mqttcore.engine.events cimport EVENT_CLIENT_AUTHENTICATED
from mqttcore.engine.filters cimport share_prefix_size
from mqttcore.engine.handler cimport Handler
from mqttcore.engine.hooks cimport HOOK_AUTHORIZE_DELIVER, HOOK_AUTHORIZE_PUBLISH, HOOK_AUTHORIZE_SUBSCRIBE, HookTable
from mqttcore.engine.inlet cimport PAUSE_SUBSCRIBE
from mqttcore.engine.message cimport (
    TRACED_PUBLISHER, Message, msg_ref, msg_unref, msg_view, pub_done, pub_keep, pub_settle, stored_unref,
)
from mqttcore.engine.mount cimport TOPIC_BYTES_MAXIMUM, check_mount, refusal_of_filter, refusal_of_topic, whole_topic
from mqttcore.engine.network_connection cimport STATE_CONNECTED
from mqttcore.engine.permissions cimport MAY_PUBLISH, MAY_SUBSCRIBE, VERDICT_QOS, verdict_permits
from mqttcore.engine.queue cimport IS_DIRECT, entry_t, queue_at, queue_sweep, queue_t
from mqttcore.engine.rates cimport stricter
from mqttcore.engine.subscriber cimport OPT_QOS
from mqttcore.engine.timers cimport timer_arm, timer_disarm
from mqttcore.engine.topics cimport route_t
from mqttcore.engine.window cimport AWAIT_PUBACK, slot_t, window_find, window_in_order

import logging
import math

from mqttcore.engine.hooks import PENDING
from mqttcore.errors import ProtocolError
from mqttcore.handlers import PublishChange
from mqttcore.identity import Action, Identity

log = logging.getLogger("mqttcore.authorization")

OWNER_POLICIES = {"refuse": OWNER_REFUSE, "replace": OWNER_REPLACE, "ignore": OWNER_IGNORE}
FOREVER_S = 1e11              # seconds since 1970: no clock gets there


cdef int answer_code(HookTable hooks, uint8_t packet_type, object answer, str hook) except -1:
    # 0: allowed; else the reason code of a refusal. What is no answer refuses.
    if answer is None or answer is True:
        return 0
    if answer is False:
        return RC_NOT_AUTHORIZED
    if isinstance(answer, int) and 0 <= answer <= 0xFF and has_reason(packet_type, answer):
        return answer if answer >= 0x80 else 0
    hooks.failed(hook, None, TypeError(f"answered {answer!r}, which is no answer"))
    return RC_UNSPECIFIED_ERROR


cdef inline bint is_below_sys(const uint8_t* topic_filter, Py_ssize_t size) noexcept:
    # Whether a filter can match below $SYS: only one that says so can [MQTT-4.7.2-1].
    return size >= 4 and memcmp(topic_filter, b"$SYS", 4) == 0 and (size == 4 or topic_filter[4] == c"/")


cdef class Subscribing:
    """A SUBSCRIBE that is being decided."""


cdef class Authorizer(Core):
    """Base of Engine: rights, hooks, rates and expiry."""

    cdef int read_authorization(self, object authorization) except -1:
        self.limits.refused_publish_disconnects = authorization.refused_publish == "disconnect"
        self.limits.refused_subscribe_disconnects = authorization.refused_subscribe == "disconnect"
        self.limits.checks_at_delivery = authorization.subscribe_check == "at_delivery"
        self.limits.session_owner = OWNER_POLICIES[authorization.session_owner]
        return 0

    # --- identities -------------------------------------------------------------------------------------------------

    cdef int64_t identity_expires_ms(self, object identity) except -1:
        cdef double at_s
        if identity is None or identity.expires_at_s is None:
            return 0
        at_s = identity.expires_at_s
        if math.isnan(at_s):
            raise ValueError("an identity's expires_at_s is no number")
        if at_s > FOREVER_S:
            return 0
        return max(<int64_t>(max(at_s, 0.0) * 1000) - self.birth.wall_offset_ms, 1)

    cdef Rights compile_identity(self, str client_id, str user_name, object identity, Rights previous, bytes mount):
        cdef Rights rights
        cdef int64_t expires_ms
        try:
            rights = self.rulebook.compile(identity, client_id, user_name, previous, mount)
            expires_ms = self.identity_expires_ms(identity)
        except ProtocolError as error:
            log.info("client %s refused: %s", client_id, error)
            raise
        except Exception as error:
            log.exception("client %s: its identity cannot be used", client_id)
            raise ProtocolError(RC_UNSPECIFIED_ERROR, "§4.13", "identity") from error
        if expires_ms and expires_ms <= self.now_ms:
            raise ProtocolError(RC_NOT_AUTHORIZED, "§3.1.4", "identity expired")
        return rights

    cdef Rights admit_identity(self, Connection conn, object identity, object packet, str user_name,
                               Rights previous):
        cdef Rights rights = self.compile_identity(conn.client_id, user_name, identity, previous, conn.mount)
        cdef object will = packet.will
        cdef bytes topic
        cdef int refused
        if will is not None:
            topic = whole_topic(conn.mount, will.topic)
            refused = 0
            if conn.mount is not None:
                refused = refusal_of_topic(conn.mount, topic, len(topic), self.limits.topic_bytes_maximum)
            if not refused and not self.is_left_to_handlers(topic, len(topic)):
                refused = self.authorize_will(conn, rights, topic, len(topic), will.qos, will.retain)
            if refused:
                raise ProtocolError(refused, "§3.1.2.5", "not authorized to publish the will")
        return rights

    cdef bint owns(self, Session session, object identity) except -1:
        # A session that nobody authenticated for is whose who does so first.
        return session.owner is None or (identity is not None and identity.name == session.owner)

    cdef int take_identity(self, Session session, object identity, Rights rights) except -1:
        cdef bint is_changed = session.rights is not rights or (session.identity is None) != (identity is None)
        cdef bint is_handed_over
        session.identity = identity
        session.publisher = None
        session.rights = rights
        is_handed_over = session.number != 0 and session.owner != (None if identity is None else identity.name)
        session.owner = None if identity is None else identity.name
        session.guards = (session.guards & GUARD_MOUNT) | (GUARD_HOOK if self.hook_mask & HOOK_AUTHORIZE_DELIVER else 0) | (
            GUARD_RULES if rights is not None and rights.has_rules and self.limits.checks_at_delivery else 0
        )
        if session.link is not None and (<Connection>session.link).client is not None:
            (<ClientView>(<Connection>session.link).client).identity = identity
        if is_changed and session.subscriptions is not None:
            self.withdraw_subscriptions(session)
        if is_changed and rights is not None and rights.has_rules:
            self.withdraw_messages(session)
        if is_handed_over:
            session.keep(session.link is not None)
        return 0

    cdef int bind_identity(self, Session session) except -1:
        cdef Connection conn = <Connection>session.link
        cdef Rights rights = session.rights
        conn.set_rates(
            stricter(self.limits.messages_per_s, rights.messages_per_s if rights is not None else 0),
            stricter(self.limits.bytes_per_s, rights.bytes_per_s if rights is not None else 0),
        )
        # The session's timer is for the time without a connection; with one it is free for the identity.
        session.expires_ms = self.identity_expires_ms(session.identity)
        if session.expires_ms:
            timer_arm(&self.wheel, &session.timer, session.expires_ms)
        else:
            timer_disarm(&self.wheel, &session.timer)
        return 0

    cdef Session session_of(self, str client_id):
        raise NotImplementedError

    cdef int wake(self) except -1:
        raise NotImplementedError

    def set_identity(self, client_id: str, identity: object) -> bool:
        """Replace the identity of a client, connected or not; False when it has no session.

        Subscriptions that are not allowed any more are removed (MQTT has no word for it, so the client is not told),
        granted QoS is lowered; queued messages that may not be had are dropped, with those in flight that were not sent on
        this connection. Rates begin anew. TypeError, ValueError, ProtocolError for an identity that cannot be used, or has
        another mount point than the session: then nothing changes.
        """
        cdef Session session = self.session_of(client_id)
        cdef Rights rights
        if session is None:
            return False
        if not isinstance(identity, Identity):
            raise TypeError(f"{identity!r} is no Identity")
        check_mount(session.mount, identity, client_id, session.user_name)
        rights = self.rulebook.compile(identity, client_id, session.user_name, session.rights, session.mount)
        self.identity_expires_ms(identity)
        self.take_identity(session, identity, rights)
        if session.link is not None:
            self.bind_identity(session)
            if self.events.mask & EVENT_CLIENT_AUTHENTICATED and session.link is not None:
                self.events.authenticated(
                    self.wall_ms(), ClientView.of(<Connection>session.link), identity
                )
        self.wake()
        return True

    # --- publishing -------------------------------------------------------------------------------------------------

    cdef int authorize_publish(self, object connection, pub_t* pub) except -1:
        cdef Connection conn = <Connection>connection
        cdef object answer
        try:
            answer = self.hooks.authorize_publish(
                ClientView.of(conn), PyUnicode_DecodeUTF8(<const char*>pub.topic, pub.topic_size, NULL), pub.qos,
                pub.retain != 0,
            )
        except Exception as error:
            self.hooks.failed("authorize_publish", conn.client_id, error)
            return RC_UNSPECIFIED_ERROR
        if answer is None or answer is True:
            return 0
        return answer_code(self.hooks, PT_PUBACK, answer, "authorize_publish")

    cdef bint is_left_to_handlers(self, const uint8_t* topic, Py_ssize_t size) except -1:
        cdef route_t* route
        cdef uint32_t i
        if not self.topics.handlers:
            return False
        route = self.topics.route(topic, size)
        for i in range(route.handler_count):
            if (<Handler>route.handlers[i]).is_authorized_by_itself:
                return True
        return False

    cdef int authorize_will(self, object client, Rights rights, const uint8_t* topic, Py_ssize_t size, uint8_t qos,
                            bint retain) except -1:
        cdef object answer
        cdef Session session
        if rights is not None and not verdict_permits(rights.judge(MAY_PUBLISH, topic, size), qos, retain):
            return RC_NOT_AUTHORIZED
        if not self.hook_mask & HOOK_AUTHORIZE_PUBLISH:
            return 0
        if isinstance(client, Connection):
            client = ClientView.of(<Connection>client)
        else:
            session = <Session>client
            client = ClientView.absent(session.client_id, session.user_name, session.identity, session.mount)
        try:
            answer = self.hooks.authorize_publish(client, topic[:size].decode(), qos, retain)
        except Exception as error:
            self.hooks.failed("authorize_publish", client.client_id, error)
            return RC_UNSPECIFIED_ERROR
        return answer_code(self.hooks, PT_PUBACK, answer, "authorize_publish")

    cdef int transform_publish(self, object connection, pub_t* pub) except -1:
        cdef Connection conn = <Connection>connection
        cdef object change
        cdef msg_t* m
        cdef msg_t* changed
        cdef int refused
        cdef void* origin = pub.origin
        cdef uint8_t traced = pub.traced
        try:
            m = pub_settle(pub)
            change = self.hooks.transform_publish(ClientView.of(conn), Message.new(m))
            if change is None:
                return 0
            if not isinstance(change, PublishChange):
                raise TypeError(f"transform_publish answered {change!r}, which is no PublishChange")
            changed = change_message(m, change, self.now_ms)
        except Exception as error:
            self.hooks.failed("transform_publish", conn.client_id, error)
            return RC_UNSPECIFIED_ERROR
        pub_done(pub)
        msg_view(changed, pub)        # which has the one reference now, until pub_done()
        pub.origin = origin
        pub.traced = traced & TRACED_PUBLISHER
        if change.topic is not None and conn.state == STATE_CONNECTED:
            refused = conn.check_changed(pub)
            if refused:
                return refused
            if self.hook_mask & HOOK_AUTHORIZE_PUBLISH:
                return self.authorize_publish(conn, pub)
        return 0

    cdef bint authorize_deliver(self, object receiver, pub_t* pub, bint is_shared=False) except -1:
        cdef Session session = <Session>receiver
        cdef object link = session.link
        cdef object answer
        try:
            answer = self.hooks.authorize_deliver(ClientView.of(<Connection>link), Message.new(pub_keep(pub)))
            if answer is not None and answer is not True and answer is not False:
                raise TypeError(f"authorize_deliver answered {answer!r}, which is neither a bool nor None")
        except Exception as error:
            self.hooks.failed("authorize_deliver", session.client_id, error)
            answer = False
        if answer is False:
            session.refuse(pub, is_shared)
            return False
        return session.link is link

    cdef int tell_refused(self, object connection, uint8_t action, str topic) except -1:
        cdef Connection conn = <Connection>connection
        cdef object identity = conn.session.identity
        if identity is None or identity.on_refused is None:
            return 0
        try:
            identity.on_refused(ClientView.of(conn), Action(action), topic)
        except Exception as error:
            self.hooks.failed("on_refused", conn.client_id, error)
        return 0

    # --- subscribing ------------------------------------------------------------------------------------------------

    cdef int authorize_filter(self, Session session, bytes topic_filter) except -1:
        cdef const uint8_t* text = <const uint8_t*><char*>topic_filter
        cdef Py_ssize_t size = len(topic_filter)
        cdef Py_ssize_t prefix
        cdef uint8_t verdict, refused
        if check_topic_filter(text, size):
            return RC_TOPIC_FILTER_INVALID
        if session.mount is not None:
            refused = refusal_of_filter(session.mount, text, size, TOPIC_BYTES_MAXIMUM)
            if refused:
                return refused
        prefix = share_prefix_size(text, size)
        text += prefix
        size -= prefix
        if session.identity is None:
            return RC_NOT_AUTHORIZED if not self.sys_for_anonymous and is_below_sys(text, size) else 2
        if session.rights is None:
            return 2
        verdict = session.rights.judge_filter(text, size)
        if verdict:
            return verdict & VERDICT_QOS
        if self.limits.checks_at_delivery and not prefix and session.rights.allows_part(text, size):
            return 2                  # the rest is seen to when messages come
        return RC_NOT_AUTHORIZED

    cdef int begin_subscribe(self, object connection, object packet) except -1:
        cdef Connection conn = <Connection>connection
        cdef Subscribing subscribing = Subscribing.__new__(Subscribing)
        subscribing.packet = packet
        subscribing.decisions = []
        conn.connect = subscribing
        return self.go_on_subscribing(conn)

    cdef int go_on_subscribing(self, Connection conn) except -1:
        # Decides filter by filter; nothing is subscribed before all are. Stops where the hook answers later.
        cdef Subscribing subscribing = <Subscribing>conn.connect
        cdef object subscription, answer
        cdef list subscriptions = subscribing.packet.subscriptions
        cdef bytes topic_filter
        cdef Py_ssize_t prefix, place
        cdef int decided, asked
        while len(subscribing.decisions) < len(subscriptions):
            subscription = subscriptions[len(subscribing.decisions)]
            topic_filter = subscription.topic_filter.encode()
            decided = self.authorize_filter(conn.session, topic_filter)
            if decided > 2 or not self.hook_mask & HOOK_AUTHORIZE_SUBSCRIBE:
                subscribing.decisions.append(decided)
                continue
            prefix = share_prefix_size(<const uint8_t*><char*>topic_filter, len(topic_filter))
            place = len(subscribing.decisions)
            subscribing.is_asking = True
            try:
                answer = self.hooks.authorize_subscribe(
                    ClientView.of(conn), topic_filter[prefix:].decode(), subscription.options & OPT_QOS
                )
            except Exception as error:
                self.hooks.failed("authorize_subscribe", conn.client_id, error)
                answer = RC_UNSPECIFIED_ERROR
            finally:
                subscribing.is_asking = False
            if conn.connect is not subscribing:
                return 0              # the client is gone
            if len(subscribing.decisions) > place:
                continue              # answered from within
            if answer is PENDING:
                return conn.pause(PAUSE_SUBSCRIBE)
            self.decide(conn, subscribing, answer)
        # Rights may have been replaced while a hook was asked: what they say now counts.
        for i, subscription in enumerate(subscriptions):
            decided = self.authorize_filter(conn.session, subscription.topic_filter.encode())
            asked = subscribing.decisions[i]
            if decided > 2 or asked <= 2 and decided < asked:
                subscribing.decisions[i] = decided
        conn.connect = None
        for decided in subscribing.decisions:
            self.counters.subscriptions_refused += decided == RC_NOT_AUTHORIZED
        if RC_NOT_AUTHORIZED in subscribing.decisions and conn.session.identity is not None:
            topic_filter = subscriptions[subscribing.decisions.index(RC_NOT_AUTHORIZED)].topic_filter.encode()
            prefix = share_prefix_size(<const uint8_t*><char*>topic_filter, len(topic_filter))
            self.tell_refused(conn, MAY_SUBSCRIBE, topic_filter[prefix:].decode())
            if conn.state != STATE_CONNECTED:
                return 0
        if RC_NOT_AUTHORIZED in subscribing.decisions and (
            self.limits.refused_subscribe_disconnects
            or conn.session.identity is not None and conn.session.identity.closes_on_refused_subscribe
        ):
            log.info("client %s: not authorized to subscribe", conn.client_id)
            return conn.close_with(RC_NOT_AUTHORIZED, True, "not authorized to subscribe there")
        conn.finish_subscribe(subscribing.packet, subscribing.decisions)
        return conn.resume(PAUSE_SUBSCRIBE)

    cdef int decide(self, Connection conn, Subscribing subscribing, object answer) except -1:
        cdef int decided
        if answer is None or answer is True:
            decided = 2
        elif isinstance(answer, int) and answer is not False and 0 <= answer <= 2:
            decided = answer
        else:
            decided = answer_code(self.hooks, PT_SUBACK, answer, "authorize_subscribe") or RC_UNSPECIFIED_ERROR
        subscribing.decisions.append(decided)
        return 0

    def answer_subscribe(self, client: object, answer: object) -> None:
        """Answer for the filter that `authorize_subscribe` answered PENDING to: what it may answer, but PENDING.

        The next filters of the SUBSCRIBE are asked about, and the last one sends SUBACK. Without effect when the client is
        gone by now, or waits for nothing.
        """
        cdef Connection conn = ClientView.connection_of(client)
        cdef Subscribing subscribing
        if conn is None or conn.state != STATE_CONNECTED or conn.connect is None:
            return
        subscribing = <Subscribing>conn.connect
        self.decide(conn, subscribing, answer)
        if not subscribing.is_asking:
            self.go_on_subscribing(conn)
            self.wake()

    # --- rights that were taken away --------------------------------------------------------------------------------

    cdef int withdraw_subscriptions(self, Session session) except -1:
        cdef object topic_filter
        cdef uint64_t held
        cdef int allowed
        for topic_filter in list(session.subscriptions):
            held = session.subscriptions[topic_filter]
            allowed = self.authorize_filter(session, topic_filter)
            if allowed > 2:
                log.info("client %s: subscription to %s withdrawn", session.client_id, topic_filter)
                self.unsubscribe(session, topic_filter)
            elif allowed < <int>(held & OPT_QOS):
                held = (held & ~<uint64_t>OPT_QOS) | <uint64_t>allowed
                session.subscriptions[topic_filter] = held
                session.keep_subscription(topic_filter, <uint8_t>held, <uint32_t>(held >> 8))
                self.topics.subscribe(
                    <const uint8_t*><char*>(<bytes>topic_filter), len(topic_filter), session, <uint8_t>held,
                    <uint32_t>(held >> 8),
                )
        return 0

    cdef int withdraw_messages(self, Session session) except -1:
        cdef uint16_t* ids
        cdef uint16_t* unsent = NULL
        cdef uint32_t i, count = 0
        cdef slot_t* slot
        cdef msg_t* m
        cdef object group
        if session.link is None:
            ids = unsent = window_in_order(&session.sent)
            count = session.sent.count
        else:
            ids = NULL
            if session.resend != NULL:            # what was sent on this connection already stays
                unsent = session.resend + session.resend_at
                count = session.resend_count - session.resend_at
        try:
            for i in range(count):
                slot = window_find(&session.sent, unsent[i])
                if slot == NULL or slot.message == NULL or slot.retain & IS_DIRECT or may_read(session, slot.message):
                    continue
                m = msg_ref(slot.message)
                group = <object>slot.group if slot.group != NULL and slot.state == AWAIT_PUBACK else None
                session.finish_slot(slot)
                self.withdraw(session, m, group)
        finally:
            free(ids)
        self.withdraw_queued(session, &session.queue)
        self.withdraw_queued(session, &session.queue_qos0)
        return 0

    cdef int withdraw_queued(self, Session session, queue_t* queue) except -1:
        # What is in the store alone is looked at when it comes from there. Others get what was shared when all is done here.
        cdef int64_t before_bytes = session.queue.bytes + session.queue_qos0.bytes
        cdef int64_t before_count = <int64_t>session.queue.count + session.queue_qos0.count
        cdef entry_t* entry
        cdef uint32_t i
        cdef list withdrawn = []
        cdef Message message
        for i in range(queue.resident):
            entry = queue_at(queue, i)
            if entry.doom or entry.retain & IS_DIRECT or may_read(session, entry.message):
                continue
            withdrawn.append((Message.new(entry.message), <object>entry.group if entry.group != NULL else None))
            entry.doom = 1 + DROP_NOT_AUTHORIZED
            session.forget(entry.key, entry.stored)
            stored_unref(entry.stored)        # at once: the next one may be the last that refers to it
            entry.stored = NULL
        if withdrawn:
            queue_sweep(queue)
            session.queue_bytes(before_bytes, before_count)
        for message, group in withdrawn:
            self.withdraw(session, msg_ref(message.ref), group)
        return 0

    cdef int withdraw(self, Session session, msg_t* m, object group) except -1:
        # Takes the reference. What came through a shared subscription goes to another member.
        try:
            if group is None or not self.redistribute(m, group, session):
                session.count_drop_of(DROP_NOT_AUTHORIZED, m)
        finally:
            msg_unref(m)
        return 0


cdef inline bint may_read(Session session, msg_t* m) noexcept:
    return session.readable_qos(m.data, m.topic_size) >= 0
