"""The state machine of one network connection, sans-io: feed() in, packets and requests to the engine out."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from mqttcore.codec.codes cimport (
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
    PT_SUBSCRIBE,
    PT_UNSUBSCRIBE,
    RC_IMPLEMENTATION_SPECIFIC_ERROR,
    RC_PACKET_TOO_LARGE,
    RC_PROTOCOL_ERROR,
    RC_SUCCESS,
)
from mqttcore.codec.packets cimport decode_body
from mqttcore.codec.wire cimport varint_size
from mqttcore.engine.events cimport EVENT_CLIENT_DISCONNECTED, EVENT_CONNECT_REFUSED
from mqttcore.engine.hooks cimport HOOK_AUTHORIZE_SUBSCRIBE
from mqttcore.engine.message cimport TRACED_PUBLISHER
from mqttcore.engine.mount cimport mounted_filter, mounted_subscribe
from mqttcore.engine.network_connection cimport STATE_ADMITTING, STATE_CONNECTED, STATE_NEW, refusal_code
from mqttcore.engine.outbuf cimport out_reserve, out_take, out_wrote
from mqttcore.engine.subscriber cimport OPT_QOS
from mqttcore.engine.timers cimport timer_arm, timer_disarm

import logging

from mqttcore.codec import ConnAck, SubAck, UnsubAck
from mqttcore.errors import MalformedPacket, ProtocolError

log = logging.getLogger("mqttcore.connection")


cdef class Connection(Incoming):
    """One network connection; drivers subclass it to read and write, tests drive it as it is.

    listener: an object with `name` and `allow_anonymous`; `connect_timeout_ms` and `maximum_packet_size_bytes` where it has
    its own. peer: the client's address in whatever form the driver has.
    """

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

    # --- CONNECT ----------------------------------------------------------------------------------------------------------

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

    # --- everything else --------------------------------------------------------------------------------------------------

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
