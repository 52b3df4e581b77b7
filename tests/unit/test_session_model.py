"""QoS 1 and 2 delivery against a model in plain Python, over lost connections, clean starts, windows and the clock.

A writer publishes to one reader. The model says, after every step, exactly which packets the reader gets: order,
packet ids, DUP, what is left of the expiry interval. It also counts what the broker must hold.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mqttcore.codec import (
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
)
from mqttcore.config import Limits
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine

EXPIRY = PropertyId.MESSAGE_EXPIRY_INTERVAL
IN_FLIGHT_MAXIMUM = 4
QUEUED_MAXIMUM = 6
SESSION_EXPIRY_S = 100
RECEIVE_MAXIMUM = 5  # of the broker

LIMITS = Limits(
    in_flight_maximum=IN_FLIGHT_MAXIMUM,
    queued_messages_maximum=QUEUED_MAXIMUM,
    session_expiry_maximum_s=SESSION_EXPIRY_S,
    receive_maximum=RECEIVE_MAXIMUM,
    publisher_pause_ms=0,
)


class Door:
    """A listener."""

    name = "model"
    allow_anonymous = True


@dataclass
class Message:
    """A message on its way to the reader."""

    payload: bytes
    qos: int
    expires_ms: int | None
    packet_id: int = 0
    is_released: bool = False  # PUBREC came, PUBCOMP has not
    is_on_the_way: bool = False  # sent on the present connection


class Model:
    """What the broker holds for the reader, and what it sends."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.is_connected = False
        self.begin()

    def begin(self) -> None:
        """A session without a past."""
        self.has_session = False
        self.in_flight: list[Message] = []
        self.queue: deque[Message] = deque()
        self.last_id = 0
        self.is_resending = False
        self.expires_ms: int | None = None
        self.window = 1
        self.sent: list[Any] = []

    def _publish(self, m: Message, now_ms: int, *, dup: bool = False) -> None:
        properties = {}
        if self.version == 5 and m.expires_ms is not None:
            properties[EXPIRY] = max(0, -(-(m.expires_ms - now_ms) // 1000))
        self.sent.append(Publish("t", m.payload, qos=m.qos, packet_id=m.packet_id, dup=dup, properties=properties))

    def _send_new(self, m: Message, now_ms: int) -> None:
        used = {other.packet_id for other in self.in_flight}
        self.last_id += 1
        while self.last_id in used:
            self.last_id += 1
        m.packet_id = self.last_id
        m.is_on_the_way = True
        self.in_flight.append(m)
        self._publish(m, now_ms)

    def deliver(self, m: Message, now_ms: int) -> None:
        if not self.has_session:
            return
        if m.qos == 0:
            if self.is_connected:
                self._publish(m, now_ms)
            return
        has_room = not self.queue and not self.is_resending and len(self.in_flight) < self.window
        if self.is_connected and has_room:
            self._send_new(m, now_ms)
            return
        while self.queue and (first := self.queue[0]).expires_ms is not None and first.expires_ms <= now_ms:
            self.queue.popleft()
        if len(self.queue) == QUEUED_MAXIMUM:
            self.queue.popleft()
        self.queue.append(m)

    def pump(self, now_ms: int) -> None:
        if not self.is_connected:
            return
        for m in self.in_flight if self.is_resending else ():
            if m.is_on_the_way:
                continue
            if sum(other.is_on_the_way for other in self.in_flight) >= self.window:
                return
            m.is_on_the_way = True
            if m.is_released:
                self.sent.append(PubRel(m.packet_id))
            else:
                self._publish(m, now_ms, dup=True)
        self.is_resending = False
        while self.queue:
            m = self.queue[0]
            if m.expires_ms is None or m.expires_ms > now_ms:
                if len(self.in_flight) >= self.window:
                    return
                self._send_new(m, now_ms)
            self.queue.popleft()

    def connect(self, receive_maximum: int, now_ms: int, *, clean: bool) -> bool:
        """Whether a session was present."""
        if clean:
            self.begin()
        present = self.has_session
        self.has_session = self.is_connected = True
        self.expires_ms = None
        self.window = min(receive_maximum, IN_FLIGHT_MAXIMUM)
        self.is_resending = bool(self.in_flight)
        for m in self.in_flight:
            m.is_on_the_way = False
        self.pump(now_ms)
        return present

    def lose(self, now_ms: int) -> None:
        self.is_connected = False
        self.expires_ms = now_ms + SESSION_EXPIRY_S * 1000

    def clock(self, now_ms: int) -> None:
        if self.expires_ms is not None and now_ms >= self.expires_ms:
            self.begin()

    @property
    def acknowledgeable(self) -> list[Message]:
        return [m for m in self.in_flight if m.is_on_the_way] if self.is_connected else []


class Delivery(RuleBasedStateMachine):
    """The steps."""

    @initialize(version=st.sampled_from([4, 5]))
    def start(self, version: int) -> None:
        self.version = version
        self.now_ms = 1000
        self.engine = Engine(LIMITS, now_ms=self.now_ms)
        self.model = Model(version)
        self.reader: Connection | None = None
        self.reader_decoder = Decoder(version, sender="server")
        self.writer: Connection | None = None
        self.taken: set[int] = set()  # QoS 2 ids that the broker has taken and not released
        self.open: dict[int, tuple[Message, bool]] = {}  # the writer's exchanges: message, whether PUBREC came
        self.number = 0
        self.connect_writer()
        self.connect_reader(clean=True, receive_maximum=65535, is_told=False)

    # --- connections ------------------------------------------------------------------------------------------------

    def _connection(
        self, client_id: str, version: int, *, clean: bool, receive_maximum: int = 65535
    ) -> tuple[Connection, Any]:
        connection = Connection(self.engine, Door())
        properties = {}
        if version == 5:
            properties = {
                PropertyId.SESSION_EXPIRY_INTERVAL: SESSION_EXPIRY_S,
                PropertyId.RECEIVE_MAXIMUM: receive_maximum,
            }
        connection.receive(
            Connect(
                client_id, protocol_version=version, clean_start=clean, keep_alive_s=0, properties=properties
            ).encode(version)
        )
        return connection, Decoder(version, sender="server")

    def connect_writer(self) -> None:
        self.writer, decoder = self._connection("writer", 5, clean=False)
        (connack,) = decoder.feed(self.writer.take_output())
        assert isinstance(connack, ConnAck)
        if not connack.session_present:
            self.taken.clear()
            self.open.clear()

    def _write(self, packet: Any) -> list[Any]:
        """What the broker answers the writer."""
        assert self.writer is not None
        self.writer.receive(packet.encode(5))
        return Decoder(5, sender="server").feed(self.writer.take_output())

    @precondition(lambda self: self.writer is not None)
    @rule(is_told=st.booleans())
    def lose_writer(self, is_told: bool) -> None:
        assert self.writer is not None
        self.writer.receive(Disconnect().encode(5)) if is_told else self.writer.connection_lost()
        self.writer = None

    @precondition(lambda self: self.writer is None)
    @rule()
    def resume_writer(self) -> None:
        """Reconnect, send everything again that is not acknowledged."""
        self.connect_writer()
        for packet_id, (message, has_pubrec) in list(self.open.items()):
            if has_pubrec:
                assert self._write(PubRel(packet_id)) in (
                    [PubComp(packet_id)],
                    [PubComp(packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)],
                )
                self.taken.discard(packet_id)
                del self.open[packet_id]
            else:
                self._send_qos2(packet_id, message, dup=True)

    @rule(
        clean=st.booleans(),
        receive_maximum=st.sampled_from([1, 2, 3, 65535]),
        is_told=st.booleans(),
    )
    def connect_reader(self, clean: bool, receive_maximum: int, is_told: bool) -> None:
        """Come back, or take over when still connected; is_told: DISCONNECT goes first."""
        before = self.reader
        if before is not None and is_told:
            self.lose_reader(is_told=True)
        elif before is not None:
            self.model.lose(self.now_ms)
        if self.version == 4:
            receive_maximum = 65535
            # 3.1.1 ends a clean session with its connection
        self.reader, self.reader_decoder = self._connection(
            "reader", self.version, clean=clean, receive_maximum=receive_maximum
        )
        present = self.model.connect(receive_maximum, self.now_ms, clean=clean)
        self.model.sent.insert(0, ConnAck(present))
        if before is not None:
            assert before.is_closed
        got = self._take()
        assert isinstance(got[0], ConnAck)
        got[0].properties.clear()
        self._compare(got)
        if not present:
            self.reader.receive(Subscribe(1, [Subscription("t", 2)]).encode(self.version))
            self.model.sent.append(SubAck(1, [2]))
        if self.version == 4 and clean:
            # only sessions that last are of interest here: the same client, now to stay
            self.connect_again_to_stay()

    def connect_again_to_stay(self) -> None:
        self._compare(self._take())
        self.model.is_connected = False
        self.model.begin()
        self.reader, self.reader_decoder = self._connection("reader", 4, clean=False)
        assert not self.model.connect(65535, self.now_ms, clean=False)
        self.reader.receive(Subscribe(1, [Subscription("t", 2)]).encode(4))
        self.model.sent += [ConnAck(False), SubAck(1, [2])]

    @precondition(lambda self: self.reader is not None)
    @rule(is_told=st.booleans())
    def lose_reader(self, is_told: bool) -> None:
        assert self.reader is not None
        self.reader.receive(Disconnect().encode(self.version)) if is_told else self.reader.connection_lost()
        self.reader = None
        self.model.lose(self.now_ms)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _message(self, qos: int, expiry_s: int | None) -> Message:
        self.number += 1
        return Message(b"%d" % self.number, qos, None if expiry_s is None else self.now_ms + expiry_s * 1000)

    def _packet(self, m: Message, packet_id: int, *, dup: bool = False) -> Publish:
        properties = {} if m.expires_ms is None else {EXPIRY: max(0, (m.expires_ms - self.now_ms) // 1000)}
        return Publish("t", m.payload, qos=m.qos, packet_id=packet_id, dup=dup, properties=properties)

    @precondition(lambda self: self.writer is not None)
    @rule(qos=st.sampled_from([0, 1]), expiry_s=st.none() | st.integers(0, 90), count=st.integers(1, 4))
    def publish(self, qos: int, expiry_s: int | None, count: int) -> None:
        for _ in range(count):
            m = self._message(qos, expiry_s)
            answer = self._write(self._packet(m, 7 if qos else 0))
            reason_code = 0 if self.model.has_session else ReasonCode.NO_MATCHING_SUBSCRIBERS
            assert answer == ([PubAck(7, reason_code)] if qos else [])
            self.model.deliver(m, self.now_ms)

    def _send_qos2(self, packet_id: int, message: Message, *, dup: bool, is_answer_lost: bool = False) -> None:
        is_new = packet_id not in self.taken
        if is_new and dup and message.expires_ms is not None:
            # what arrives now is what the broker counts from
            left_s = max(0, (message.expires_ms - self.now_ms) // 1000)
            message.expires_ms = self.now_ms + left_s * 1000
        answer = self._write(self._packet(message, packet_id, dup=dup))
        reason_code = 0 if self.model.has_session or not is_new else ReasonCode.NO_MATCHING_SUBSCRIBERS
        assert answer == [PubRec(packet_id, reason_code)]
        if is_new:
            self.taken.add(packet_id)
            self.model.deliver(message, self.now_ms)
        self.open[packet_id] = (message, not is_answer_lost)

    @precondition(lambda self: self.writer is not None and len(self.open) < RECEIVE_MAXIMUM)
    @rule(
        expiry_s=st.none() | st.integers(0, 90),
        fate=st.sampled_from(["arrives", "arrives", "is lost", "answer is lost"]),
    )
    def publish_qos2(self, expiry_s: int | None, fate: str) -> None:
        packet_id = min(set(range(1, RECEIVE_MAXIMUM + 1)) - self.open.keys())
        m = self._message(2, expiry_s)
        if fate == "is lost":
            self.open[packet_id] = (m, False)
        else:
            self._send_qos2(packet_id, m, dup=False, is_answer_lost=fate == "answer is lost")
        if fate != "arrives":
            self.lose_writer(is_told=False)

    @precondition(lambda self: self.writer is not None and any(done for _, done in self.open.values()))
    @rule(data=st.data(), is_answer_lost=st.booleans())
    def release(self, data: st.DataObject, is_answer_lost: bool) -> None:
        packet_id = data.draw(st.sampled_from([i for i, (_, done) in self.open.items() if done]))
        assert self._write(PubRel(packet_id)) == [PubComp(packet_id)]
        self.taken.discard(packet_id)
        if is_answer_lost:
            self.lose_writer(is_told=False)
        else:
            del self.open[packet_id]

    # --- the reader's answers ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.acknowledgeable)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """Some of what is on the way, in any order, in one write."""
        assert self.reader is not None
        chosen = data.draw(st.lists(st.sampled_from(self.model.acknowledgeable), unique_by=id, min_size=1))
        answers: list[Any] = []
        for m in chosen:
            if m.qos == 1:
                answers.append(PubAck(m.packet_id))
                self.model.in_flight.remove(m)
            elif m.is_released:
                answers.append(PubComp(m.packet_id))
                self.model.in_flight.remove(m)
            elif self.version == 5 and data.draw(st.integers(0, 9)) == 0:
                answers.append(PubRec(m.packet_id, ReasonCode.UNSPECIFIED_ERROR))
                self.model.in_flight.remove(m)
            else:
                answers.append(PubRec(m.packet_id))
                m.is_released = True
                self.model.in_flight.remove(m)  # PUBREL goes again in the order of PUBREC [MQTT-4.6.0-4]
                self.model.in_flight.append(m)
                self.model.sent.append(PubRel(m.packet_id))
        self.reader.receive(b"".join(a.encode(self.version) for a in answers))

    @precondition(lambda self: self.reader is not None)
    @rule(kind=st.sampled_from([PubAck, PubComp]), packet_id=st.integers(30_000, 65_535))
    def acknowledge_what_was_never_sent(self, kind: Any, packet_id: int) -> None:
        assert self.reader is not None
        self.reader.receive(kind(packet_id).encode(self.version))

    @rule(seconds=st.sampled_from([1, 5, 30, 60]))
    def wait(self, seconds: int) -> None:
        self.now_ms += seconds * 1000
        self.engine.advance(self.now_ms)
        self.model.clock(self.now_ms)
        if self.writer is None and self.engine.session("writer") is None:
            self.taken.clear()  # its session has expired: the broker knows none of its ids

    # --- what must hold ---------------------------------------------------------------------------------------------

    def _take(self) -> list[Any]:
        got: list[Any] = []
        while self.reader is not None and (data := self.reader.take_output()):
            got += self.reader_decoder.feed(data)
        return got

    def _compare(self, got: list[Any]) -> None:
        self.model.pump(self.now_ms)
        assert got == self.model.sent
        self.model.sent = []

    @invariant()
    def reader_and_broker_are_as_the_model_says(self) -> None:
        if self.reader is None:
            assert not self.model.sent
        else:
            assert not self.reader.is_closed
            self._compare(self._take())
        metrics = self.engine.metrics()
        assert metrics["in_flight"] == len(self.model.in_flight)
        assert metrics["queued"] == len(self.model.queue)
        assert metrics["awaiting_release"] == len(self.taken)
        assert (self.engine.session("reader") is not None) == self.model.has_session
        assert (metrics["queued_bytes"] == 0) == (metrics["queued"] == 0)

    def teardown(self) -> None:
        for connection in (self.reader, self.writer):
            if connection is not None:
                connection.connection_lost()
        self.engine.advance(self.now_ms + SESSION_EXPIRY_S * 1000)
        metrics = self.engine.metrics()
        for gauge in (
            "in_flight",
            "queued",
            "queued_bytes",
            "awaiting_release",
            "sessions",
            "connections",
            "subscriptions",
        ):
            assert metrics[gauge] == 0, gauge
        assert self.engine.topics.count == 0


@pytest.mark.parametrize("examples", [150])
def test_delivery_follows_the_model(examples: int):
    run_state_machine_as_test(
        Delivery,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
