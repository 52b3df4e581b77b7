"""CONNECT and AUTH: from the packet to an answer by who authenticates, a session, and CONNACK."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from mqttcore.codec.codes cimport (
    PROP_ASSIGNED_CLIENT_IDENTIFIER, PROP_AUTHENTICATION_DATA, PROP_AUTHENTICATION_METHOD, PROP_MAXIMUM_PACKET_SIZE,
    PROP_MAXIMUM_QOS, PROP_RECEIVE_MAXIMUM, PROP_REQUEST_PROBLEM_INFORMATION, PROP_REQUEST_RESPONSE_INFORMATION,
    PROP_RESPONSE_INFORMATION, PROP_RETAIN_AVAILABLE, PROP_SERVER_KEEP_ALIVE, PROP_SESSION_EXPIRY_INTERVAL,
    PROP_SHARED_SUBSCRIPTION_AVAILABLE, PROP_SUBSCRIPTION_IDENTIFIER_AVAILABLE, PROP_TOPIC_ALIAS_MAXIMUM,
    PROP_WILDCARD_SUBSCRIPTION_AVAILABLE, PROP_WILL_DELAY_INTERVAL, RC_BAD_AUTHENTICATION_METHOD,
    RC_CLIENT_IDENTIFIER_NOT_VALID, RC_CONTINUE_AUTHENTICATION, RC_NOT_AUTHORIZED, RC_PACKET_TOO_LARGE,
    RC_PROTOCOL_ERROR, RC_QOS_NOT_SUPPORTED, RC_QUOTA_EXCEEDED, RC_RE_AUTHENTICATE, RC_RETAIN_NOT_SUPPORTED,
    RC_SERVER_BUSY, RC_SESSION_TAKEN_OVER, RC_SUCCESS, RC_UNSPECIFIED_ERROR,
)
from mqttcore.engine.client_view cimport ClientView
from mqttcore.engine.compose cimport make_message
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.core cimport NEVER_S, OWNER_IGNORE, OWNER_REFUSE
from mqttcore.engine.events cimport EVENT_CLIENT_AUTHENTICATED, EVENT_CLIENT_CONNECTED
from mqttcore.engine.hooks cimport HOOK_ADMIT, HOOK_AUTHENTICATE
from mqttcore.engine.inlet cimport PAUSE_ADMITTING
from mqttcore.engine.kept_back cimport keep_back, let_go, take_back
from mqttcore.engine.mount cimport check_mount, find_mount, whole_topic
from mqttcore.engine.network_connection cimport PACKET_MAXIMUM, STATE_ADMITTING, STATE_CONNECTED
from mqttcore.engine.permissions cimport Rights
from mqttcore.engine.timers cimport timer_disarm

import logging
import secrets

from mqttcore.codec import Auth, ConnAck
from mqttcore.engine.hooks import PENDING
from mqttcore.errors import ProtocolError
from mqttcore.identity import Challenge, Identity, Refusal

log = logging.getLogger("mqttcore.engine")

cdef enum:
    QUEUE_BOUND = 0x7FFFFFFF
    TEXT_MAXIMUM = 65535              # bytes [MQTT-1.5.4]


cdef int64_t bounded(object count) except -1:
    # None: more than any queue holds.
    return QUEUE_BOUND if count is None or count > QUEUE_BOUND else count


cdef class Acceptor(Registrar):
    """Base of Engine: who is let in."""

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
            check_mount(session.mount, identity, conn.client_id, session.user_name)
            rights = self.compile_identity(conn.client_id, session.user_name, identity, session.rights, session.mount)
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
        raise NotImplementedError

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
        if identity is not None and identity.user_name is not None:
            if not isinstance(identity.user_name, str) or len(identity.user_name.encode(errors="replace")) > TEXT_MAXIMUM:
                log.error("client %s: its identity's user name is no text of %d bytes", client_id, TEXT_MAXIMUM)
                conn.refuse(RC_UNSPECIFIED_ERROR)
                return 0
            user_name = identity.user_name
        if is_assigned:
            self.assigned += 1
            client_id = f"auto-{secrets.token_hex(8)}-{self.assigned}"    # [MQTT-3.1.3-6]
            conn.client_id = client_id
        try:
            conn.mount = find_mount(identity, conn.listener, client_id, user_name)
        except ProtocolError as error:
            log.info("client %s at %s refused: %s", client_id, conn.peer, error)
            conn.refuse(error.reason_code, error.text)
            return 0
        if conn.client is not None:
            (<ClientView>conn.client).client_id = client_id
            (<ClientView>conn.client).user_name = user_name
            (<ClientView>conn.client).identity = identity
            (<ClientView>conn.client).mount = conn.mount
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
        if session is not None and session.mount != conn.mount:
            # With Clean Start, too: nobody ends a session behind another mount point.
            log.info("client %s at %s: its session is behind another mount point", client_id, conn.peer)
            conn.refuse(RC_CLIENT_IDENTIFIER_NOT_VALID)
            return 0
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
        if session is None and self.is_memory_short:
            # Not before: who takes a session up is let in, to fetch what it holds.
            self.counters.connects_shed += 1
            conn.refuse(RC_SERVER_BUSY, "memory is short")
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
            session.set_mount(conn.mount)
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
            keep_back(session)                                    # also from being withdrawn before rights are final
        self.take_identity(session, identity, rights)             # before any of its messages is sent
        session.connected_ms = self.now_ms
        session.session_expiry_s = expiry_s
        session.is_clean = session.session_expiry_s == 0
        if packet.will is not None:
            session.set_will(
                make_message(
                    whole_topic(conn.mount, packet.will.topic), packet.will.payload, packet.will.qos, packet.will.retain,
                    packet.will.properties, NULL,
                ),
                packet.will.properties.get(PROP_WILL_DELAY_INTERVAL, 0),
            )
        conn.alias_maximum = min(
            <int>properties.get(PROP_TOPIC_ALIAS_MAXIMUM, 0), <int>self.limits.topic_alias_maximum_out
        )
        if conn.traced:
            self.tracer.session_opened(conn, session, present)
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
            let_go(session, bounded(count), False, 0)
            return 0
        take_back(session)            # as a whole, however long it is
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
        released = let_go(session, bounded(count), newest_first, age_maximum_ms)
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


cdef object certified_answer(Connection conn):
    # The client's certificate is authentication enough, by the listener's setting.
    if not conn.certified_name:
        return Refusal(RC_NOT_AUTHORIZED, "the certificate names nobody")
    if conn.authentication_method is not None:
        return Refusal(RC_BAD_AUTHENTICATION_METHOD)              # [MQTT-4.12.0-1]
    return Identity(conn.certified_name)
