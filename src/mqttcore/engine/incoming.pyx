"""A PUBLISH that comes in: what stands between it and its route, and how it is refused."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from mqttcore.codec.codes cimport (
    PT_DISCONNECT,
    PT_PUBACK,
    PT_PUBREC,
    RC_IMPLEMENTATION_SPECIFIC_ERROR,
    RC_NO_MATCHING_SUBSCRIBERS,
    RC_NOT_AUTHORIZED,
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
from mqttcore.codec.views cimport decode_publish
from mqttcore.engine.core cimport DROP_NOT_AUTHORIZED, DROP_QUOTA, Core
from mqttcore.engine.events cimport EVENT_MESSAGE_DROPPED
from mqttcore.engine.hooks cimport HOOK_AUTHORIZE_PUBLISH, HOOK_TRANSFORM_PUBLISH
from mqttcore.engine.message cimport pub_done
from mqttcore.engine.mount cimport TOPIC_BYTES_MAXIMUM, mounted, refusal_of_topic
from mqttcore.engine.network_connection cimport STATE_CONNECTED, refusal_code
from mqttcore.engine.permissions cimport MAY_PUBLISH, Rights, verdict_permits
from mqttcore.engine.session cimport Session

import logging

from mqttcore.errors import ProtocolError

log = logging.getLogger("mqttcore.connection")

cdef enum:
    HOOKS_OF_PUBLISH = HOOK_AUTHORIZE_PUBLISH | HOOK_TRANSFORM_PUBLISH


cdef class Incoming(Acknowledger):
    """Base of Connection: what its client publishes."""

    def __dealloc__(self):
        self.free_aliases()

    cdef void drop_input(self) noexcept:
        Inlet.drop_input(self)
        self.free_aliases()

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
        cdef object _publisher                # keeps pub.publisher, where Python may end it
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
        if core.hook_mask or route.handler_count:
            _publisher = <object>pub.publisher     # they may give the session another identity, and so another publisher
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

    # --- refused, or taken by somebody ------------------------------------------------------------------------------------

    cdef int tell_diverted(self, publish_view* view, uint8_t reason_code) except -1:
        # To who watches. The topic of a connection that is gone may be, too.
        if (self.traced or self.core.tracer.wants_topics()) and self.state == STATE_CONNECTED:
            self.core.tracer.diverted(self, view.topic, view.topic_size, view.qos, view.payload_size, reason_code)
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

    # --- topic aliases ----------------------------------------------------------------------------------------------------

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
