"""Traces: what happens to who is watched; tracer.pxd says at what cost."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from mqttcore.codec.codes cimport PT_CONNACK, PT_PUBLISH
from mqttcore.codec.reader cimport decode_body
from mqttcore.codec.views cimport decode_publish, publish_view
from mqttcore.codec.wire cimport read_varint, varint_size
from mqttcore.engine.events cimport drop_names
from mqttcore.engine.message cimport TRACED_PUBLISHER, TRACED_TOPIC, Publisher
from mqttcore.engine.watch cimport WATCH_ADDRESS, WATCH_TOPIC
from mqttcore.engine.watchers cimport Watchers, text_of

import base64

from mqttcore.codec import decode_properties
from mqttcore.engine.events import REASONS
from mqttcore.errors import ProtocolError
from mqttcore.trace_entries import (
    AcceptingPaused,
    ConnectionClosed,
    ConnectionFailed,
    ConnectionPaused,
    ConnectionResumed,
    ConnectRefused,
    Decided,
    MessageDropped,
    MessagePassedBy,
    MessageQueued,
    PacketSeen,
    ProtocolBroken,
    Published,
    PublishRefused,
    PublishTaken,
    SessionEnded,
    SessionOpened,
    Subscribed,
    Unsubscribed,
)
from mqttcore.trace_packets import PACKET_NAMES, packet_seen, property_names

# By the bits PAUSE_* of connections.
cdef dict PAUSES = {1: "authenticating", 2: "congested", 4: "rate", 8: "subscribing", 16: "store"}


cdef object beginning(const uint8_t* payload, Py_ssize_t size, Watch watch, const uint8_t* topic, Py_ssize_t topic_size):
    # What a watch wants of a payload. Topics that begin with `$` carry clients' tokens, and one that is not known may be
    # such a topic.
    if watch.payload_bytes == 0 or topic_size == 0 or topic[0] == c"$":
        return None
    return base64.b64encode(payload[:min(size, <Py_ssize_t>watch.payload_bytes)]).decode()


@cython.final
cdef class Tracer(Watchers):
    """What is told to the watches of one engine."""

    @staticmethod
    cdef Tracer new(const birth_t* birth):
        cdef Tracer self = Tracer.__new__(Tracer)
        self.begin(birth)
        return self

    # --- packets ----------------------------------------------------------------------------------------------------

    cdef bint identified(self, object connection, object packet, Py_ssize_t size) except -1:
        cdef list watches
        cdef Watch watch
        if not self.look_at(connection, packet.client_id):
            return False
        watches = self.having_room(self.watches_of(connection), True)
        if watches is not None:
            try:
                entry = packet_seen(
                    packet, "in", 1 + varint_size(<uint32_t>size) + size, self.wall_ms(), packet.client_id,
                    self.number_of(connection),
                )
                for watch in watches:
                    watch.give(entry)
            except Exception as error:
                self.break_off(watches, error)
        return True

    cdef int packet_in(self, object connection, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1:
        cdef list watches = self.having_room(self.watches_of(connection), True)
        cdef Py_ssize_t total = 1 + varint_size(<uint32_t>size) + size
        cdef publish_view view
        cdef Watch watch
        if watches is None:
            return 0
        try:
            number = self.number_of(connection)
            if first >> 4 != PT_PUBLISH:
                try:
                    packet = decode_body(first, body, size, connection.version)
                    entry = packet_seen(packet, "in", total, self.wall_ms(), connection.client_id, number)
                except ProtocolError:             # of which more is said when the connection finds out
                    entry = self.malformed(connection, first, total)
                for watch in watches:
                    watch.give(entry)
            elif decode_publish(first & 0x0F, body, size, connection.version, &view):
                entry = self.malformed(connection, first, total)
                for watch in watches:
                    watch.give(entry)
            else:
                for watch in watches:
                    watch.give(PacketSeen(
                        time_ms=self.wall_ms(),
                        client_id=connection.client_id,
                        connection=number,
                        direction="in",
                        packet_type="publish",
                        size_bytes=total,
                        packet_id=view.packet_id or None,
                        topic=view.topic[:view.topic_size].decode("utf-8", "replace"),
                        topic_alias=view.topic_alias or None,
                        qos=view.qos,
                        retain=view.retain != 0,
                        dup=view.dup != 0,
                        payload_bytes=view.payload_size,
                        payload_base64=beginning(view.payload, view.payload_size, watch, view.topic, view.topic_size),
                        properties=property_names(decode_properties(view.props[:view.props_size])) if view.props_size
                        else None,
                    ))
        except Exception as error:
            self.break_off(watches, error)
        return 0

    cdef object malformed(self, object connection, uint8_t first, Py_ssize_t total):
        return PacketSeen(
            time_ms=self.wall_ms(), client_id=connection.client_id, connection=self.number_of(connection), direction="in",
            packet_type=PACKET_NAMES[first >> 4], size_bytes=total,
        )

    cdef int packet_out(self, object connection, const uint8_t* packet, Py_ssize_t size) except -1:
        cdef list watches = self.having_room(self.watches_of(connection), True)
        cdef uint32_t remaining = 0
        cdef int version = connection.version
        cdef int n
        cdef Watch watch
        if watches is None:
            return 0
        try:
            n = read_varint(packet + 1, size - 1, &remaining)
            if packet[0] >> 4 == PT_CONNACK:
                version = 4 if remaining == 2 else 5      # a refusal may be in another one than the connection's
            entry = packet_seen(
                decode_body(packet[0], packet + 1 + n, remaining, version), "out", size, self.wall_ms(),
                connection.client_id, self.number_of(connection),
            )
            for watch in watches:
                watch.give(entry)
        except Exception as error:
            self.break_off(watches, error)
        return 0

    cdef int publish_out(self, object connection, pub_t* pub, uint8_t first, uint16_t packet_id, Py_ssize_t size,
                         Py_ssize_t unsaid) except -1:
        cdef list watches = self.watches_of(connection)
        cdef Watch watch
        if pub.traced & TRACED_TOPIC:
            watches = self.with_topic(watches, pub.topic, pub.topic_size)
        watches = self.having_room(watches, True)
        if watches is None:
            return 0
        try:
            for watch in watches:
                watch.give(PacketSeen(
                    time_ms=self.wall_ms(),
                    client_id=connection.client_id,
                    connection=self.number_of(connection),
                    direction="out",
                    packet_type="publish",
                    size_bytes=size,
                    packet_id=packet_id or None,
                    topic=pub.topic[unsaid:pub.topic_size].decode("utf-8", "replace"),
                    qos=first >> 1 & 3,
                    retain=first & 1 != 0,
                    dup=first & 8 != 0,
                    payload_bytes=pub.payload_size,
                    payload_base64=beginning(pub.payload, pub.payload_size, watch, pub.topic, pub.topic_size),
                    properties=property_names(decode_properties(pub.props[:pub.props_size]))
                    if pub.props_size and connection.version == 5 else None,
                ))
        except Exception as error:
            self.break_off(watches, error)
        return 0

    # --- connections and sessions -----------------------------------------------------------------------------------

    cdef int failed(self, object connection, str reason) except -1:
        return self.tell(self.watches_of(connection), connection, ConnectionFailed, {
            "address": text_of(connection.peer), "listener": getattr(connection.listener, "name", None), "reason": reason,
        })

    cdef int accepting_paused(self, str listener, str reason) except -1:
        cdef Watch watch
        return self.tell(
            [watch for watch in self.watches if watch.subject == WATCH_ADDRESS], None, AcceptingPaused,
            {"listener": listener, "reason": reason},
        )

    cdef int outside(self, object address, object kind, dict fields) except -1:
        cdef Watch watch
        cdef list watches = []
        for watch in self.watches:
            try:
                if watch.subject == WATCH_ADDRESS and not watch.is_over and watch.covers(address):
                    watches.append(watch)
            except Exception as error:
                watch.fail(error)
        return self.tell(watches, None, kind, {"address": text_of(address), **fields})

    cdef int decided(self, object client, str hook, str plugin, str answer) except -1:
        return self.tell(self.watches_of(client), client, Decided, {"hook": hook, "plugin": plugin, "answer": answer})

    cdef int session_opened(self, object connection, object session, bint session_present) except -1:
        return self.tell(self.watches_of(connection), connection, SessionOpened, {
            "identity_name": getattr(session.identity, "name", None), "session_present": session_present,
            "session_expiry_s": session.session_expiry_s, "queued": session.queued,
        })

    cdef int connect_refused(self, object connection, uint8_t reason_code, str reason) except -1:
        return self.tell(self.watches_of(connection), connection, ConnectRefused, {
            "reason_code": reason_code, "reason": reason,
        })

    cdef int protocol_broken(self, object connection, object error) except -1:
        return self.tell(self.watches_of(connection), connection, ProtocolBroken, {
            "reason_code": int(error.reason_code), "clause": error.clause, "text": error.text,
        })

    cdef int subscribed(self, object session, bytes topic_filter, uint8_t options, uint64_t subid) except -1:
        return self.tell(self.watches_of(session), session, Subscribed, {
            "topic_filter": topic_filter.decode(), "options": options, "subscription_id": subid,
        })

    cdef int unsubscribed(self, object session, bytes topic_filter) except -1:
        return self.tell(self.watches_of(session), session, Unsubscribed, {"topic_filter": topic_filter.decode()})

    cdef int paused(self, object connection, uint8_t reason) except -1:
        if reason:
            return self.tell(self.watches_of(connection), connection, ConnectionPaused, {"reason": PAUSES[reason]})
        return self.tell(self.watches_of(connection), connection, ConnectionResumed, {})

    cdef int closed(self, object connection, int reason_code, str reason, str detail) except -1:
        if reason_code >= 0:
            detail = detail if reason is None else reason
            reason = REASONS.get(reason_code, "unspecified error")
        self.tell(self.watches_of(connection), connection, ConnectionClosed, {
            "reason_code": reason_code if reason_code >= 0 else None, "reason": reason or "closed", "detail": detail,
        })
        self.connections.pop(connection, None)
        return 0

    cdef int session_ended(self, object session) except -1:
        return self.tell(self.watches_of(session), session, SessionEnded, {})

    # --- messages ---------------------------------------------------------------------------------------------------

    cdef bint published(self, pub_t* pub, Py_ssize_t recipients) except -1:
        cdef object origin = None if pub.origin == NULL else <object>pub.origin
        cdef list watches = self.having_room(self.watches_of(origin), True) if pub.traced & TRACED_PUBLISHER else None
        cdef Watch watch
        cdef bint is_taken = False
        cdef int64_t now_ms = self.now_ms()
        if pub.traced & TRACED_TOPIC:
            for watch in self.watches:
                if (
                    watch.subject == WATCH_TOPIC and watch.matches(pub.topic, pub.topic_size)
                    and watch.has_room(now_ms, True)
                ):
                    is_taken = True
                    watches = [watch] if watches is None else [*watches, watch]
        if watches is None:
            return False
        try:
            for watch in watches:
                watch.give(Published(
                    time_ms=self.wall_ms(),
                    client_id=None if pub.publisher == NULL else (<Publisher>pub.publisher).client_id,
                    connection=self.number_of(origin),
                    topic=pub.topic[:pub.topic_size].decode("utf-8", "replace"),
                    qos=pub.qos,
                    retain=pub.retain != 0,
                    payload_bytes=pub.payload_size,
                    recipients=recipients,
                    payload_base64=beginning(pub.payload, pub.payload_size, watch, pub.topic, pub.topic_size),
                ))
        except Exception as error:
            self.break_off(watches, error)
        return is_taken

    cdef int queued(self, object session, pub_t* pub, uint8_t qos) except -1:
        cdef list watches = self.watches_of(session)
        if pub.traced & TRACED_TOPIC:
            watches = self.with_topic(watches, pub.topic, pub.topic_size)
        return self.tell(watches, session, MessageQueued, {
            "topic": pub.topic[:pub.topic_size].decode("utf-8", "replace"), "qos": qos,
            "payload_bytes": pub.payload_size, "queued": session.queued,
        })

    cdef int diverted(self, object client, const uint8_t* topic, Py_ssize_t size, uint8_t qos, Py_ssize_t payload_bytes,
                      uint8_t reason_code) except -1:
        cdef list watches = self.with_topic(self.watches_of(client), topic, size)
        return self.tell(watches, client, PublishRefused if reason_code >= 0x80 else PublishTaken, {
            "topic": topic[:size].decode("utf-8", "replace"), "qos": qos, "payload_bytes": payload_bytes,
            "reason_code": reason_code,
        })

    cdef int passed_by(self, object session, pub_t* pub, str reason) except -1:
        cdef list watches = self.watches_of(session)
        if pub.traced & TRACED_TOPIC:
            watches = self.with_topic(watches, pub.topic, pub.topic_size)
        return self.tell(watches, session, MessagePassedBy, {
            "topic": pub.topic[:pub.topic_size].decode("utf-8", "replace"), "reason": reason,
        })

    cdef int dropped(self, object session, int reason, int64_t count, const uint8_t* topic, Py_ssize_t size) except -1:
        cdef list watches = self.watches_of(session)
        if topic != NULL:
            watches = self.with_topic(watches, topic, size)
        return self.tell(watches, session, MessageDropped, {
            "reason": drop_names()[reason], "count": count,
            "topic": None if topic == NULL else topic[:size].decode("utf-8", "replace"),
        })
