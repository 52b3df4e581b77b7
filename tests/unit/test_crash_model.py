"""Two clients that remember, a broker that forgets all that its disk does not have, at any moment.

The writer sends again what was not acknowledged, the reader knows which QoS 2 ids it has; both as the standard says,
over any number of lost connections and crashes. However it went: what was acknowledged arrives; QoS 2 arrives once; and
first arrivals have the order of publishing, for each QoS by itself, unless the disk refused some.
"""

from __future__ import annotations

from typing import Any

import pytest
from durable_world import World, publish
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from mqttcore.codec import ConnAck, PubAck, PubComp, Publish, PubRec, PubRel, Subscribe, Subscription
from mqttcore.store import records


class Writer:
    """A client that keeps what it published until it is acknowledged (MQTT 5 §4.3)."""

    def __init__(self, world: World, is_durable: bool) -> None:
        self.world = world
        self.expiry_s = 3600 if is_durable else 0
        self.peer: Any = None
        self.unfinished: dict[int, tuple[int, int] | None] = {}  # packet id -> (number, qos); None: PUBREL sent
        self.acknowledged: set[int] = set()
        self.qos_of: dict[int, int] = {}
        self.packet_id = 0
        self.sent: set[int] = set()  # packet ids

    def connect(self) -> None:
        self.peer = self.world.connect("writer", expiry_s=self.expiry_s)

    def publish(self, qos: int) -> None:
        number = len(self.qos_of) + 1
        self.qos_of[number] = qos
        self.packet_id += 1
        self.unfinished[self.packet_id] = (number, qos)
        if self.peer is not None and self.is_accepted:
            self.sent.add(self.packet_id)
            self.peer.send(publish("a", b"%d" % number, qos, self.packet_id))

    is_accepted = False

    def work(self) -> None:
        """Answer what came."""
        for packet in self.peer.take():
            if isinstance(packet, ConnAck):
                if packet.reason_code:
                    self.lost()
                    return
                self.is_accepted = True
                if not packet.session_present:  # an exchange of QoS 2 that the broker forgot is over
                    self.unfinished = {
                        packet_id: message
                        for packet_id, message in self.unfinished.items()
                        if message is not None and (message[1] == 1 or packet_id not in self.sent)
                    }
                for packet_id, message in list(self.unfinished.items()):
                    if message is None:
                        self.peer.send(PubRel(packet_id))
                    else:
                        dup = packet_id in self.sent
                        self.sent.add(packet_id)
                        self.peer.send(publish("a", b"%d" % message[0], message[1], packet_id, dup=dup))
            elif isinstance(packet, PubAck | PubRec):
                message = self.unfinished.get(packet.packet_id)
                if message is None and isinstance(packet, PubAck):
                    continue
                if packet.reason_code < 0x80 and message is not None:
                    self.acknowledged.add(message[0])
                if isinstance(packet, PubRec) and packet.reason_code < 0x80:
                    del self.unfinished[packet.packet_id]
                    self.unfinished[packet.packet_id] = None
                    self.peer.send(PubRel(packet.packet_id))
                else:
                    del self.unfinished[packet.packet_id]
            elif isinstance(packet, PubComp):
                self.unfinished.pop(packet.packet_id, None)
        if self.peer.connection.is_closed:
            self.lost()

    def lost(self) -> None:
        self.peer = None
        self.is_accepted = False


class Reader:
    """A client that keeps QoS 2 ids until they are released (MQTT 5 §4.3.3, method A)."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.peer: Any = None
        self.arrived: list[tuple[int, int]] = []  # (number, qos)
        self.held: set[int] = set()
        self.backlog: list[Any] = []

    def connect(self) -> None:
        self.peer = self.world.connect("reader", properties={33: 3})
        self.backlog = []

    def work(self, count: int = 1000) -> None:
        """Handle so many of the packets that came."""
        self.backlog += self.peer.take()
        for _ in range(min(count, len(self.backlog))):
            packet = self.backlog.pop(0)
            if isinstance(packet, ConnAck):
                if packet.reason_code:
                    self.lost()
                    return
                assert packet.session_present
            elif isinstance(packet, Publish):
                number = int(packet.payload)
                if packet.qos == 1:
                    self.arrived.append((number, 1))
                    self.peer.send(PubAck(packet.packet_id))
                else:
                    if packet.packet_id not in self.held:
                        self.held.add(packet.packet_id)
                        self.arrived.append((number, 2))
                    self.peer.send(PubRec(packet.packet_id))
            elif isinstance(packet, PubRel):
                self.held.discard(packet.packet_id)
                self.peer.send(PubComp(packet.packet_id))
        if self.peer.connection.is_closed:
            self.lost()

    def lost(self) -> None:
        self.peer = None
        self.backlog = []


class Crashes(RuleBasedStateMachine):
    @initialize(
        is_durable=st.booleans(),
        resident=st.sampled_from([1, 2, 1000]),
        window=st.sampled_from([1, 3, 100]),
    )
    def begin(self, is_durable: bool, resident: int, window: int) -> None:
        self.world = World(queued_resident_messages=resident, in_flight_maximum=window)
        self.writer, self.reader = Writer(self.world, is_durable), Reader(self.world)
        self.reader.connect()
        self.world.settle()
        self.reader.peer.send(Subscribe(1, [Subscription("a", 2)], {}))
        self.world.settle()
        self.reader.peer.take()
        self.is_failing = self.has_failed = False
        self.come_back()

    def come_back(self) -> None:
        """Both connect, and what that takes is on disk."""
        self.writer.connect()
        self.reader.connect()
        self.world.settle()
        self.writer.work()
        self.reader.work()

    @precondition(lambda self: len(self.writer.qos_of) < 40)
    @rule(qos=st.sampled_from([1, 2]), count=st.integers(1, 5))
    def publishes(self, qos: int, count: int) -> None:
        for _ in range(count):
            self.writer.publish(qos)

    @rule(who=st.sampled_from(["writer", "reader", "both"]))
    def they_connect(self, who: str) -> None:
        if who != "reader":
            self.writer.connect()
            self.writer.is_accepted = False
        if who != "writer":
            self.reader.connect()

    @rule(count=st.integers(0, 6))
    def they_work(self, count: int) -> None:
        if self.writer.peer is not None:
            self.writer.work()
        if self.reader.peer is not None:
            self.reader.work(count)

    @precondition(lambda self: self.reader.peer is not None)
    @rule()
    def reader_is_lost(self) -> None:
        self.reader.peer.lose()
        self.reader.lost()

    @rule(hands_over=st.booleans(), count=st.integers(0, 3))
    def disk_writes(self, hands_over: bool, count: int) -> None:
        if hands_over:
            self.world.take()
        if self.world.commit(count):
            self.is_failing = False

    @rule()
    def broker_reads(self) -> None:
        self.world.take()
        if not self.is_failing:
            self.world.commit()
        self.world.read()

    @precondition(lambda self: not self.is_failing)
    @rule(kind=st.sampled_from(["full", "io"]))
    def disk_fails(self, kind: Any) -> None:
        self.world.take()
        if self.world.waiting:
            self.world.fail(kind)
            self.is_failing = self.has_failed = True

    @rule(kept=st.integers(0, 2), they_return=st.booleans())
    def broker_crashes(self, kept: int, they_return: bool) -> None:
        # What was handed over may have reached the disk in part: whole batches, in order, without anybody being told.
        for batch in self.world.waiting[:kept]:
            self.world.disk.apply(batch)
        self.world.crash()
        self.writer.lost()
        self.reader.lost()
        self.is_failing = False
        if they_return:
            self.come_back()

    @rule()
    def time_passes(self) -> None:
        self.world.tick(200)

    def teardown(self) -> None:
        if not hasattr(self, "reader"):
            return
        self.world.settle()
        self.writer.connect()
        self.reader.connect()
        for _ in range(400):
            self.world.settle()
            for client in (self.writer, self.reader):
                if client.peer is None:
                    client.connect()
                client.work()
            if not self.writer.unfinished and not self.world.engine.metrics()["in_flight"] and not self.reader.backlog:
                self.world.settle()
                if not self.world.engine.metrics()["queued"]:
                    break
        else:
            pytest.fail(f"it does not end: {self.writer.unfinished}, {self.world.engine.metrics()['in_flight']}")
        self.check()

    def check(self) -> None:
        for qos in (1, 2):
            numbers = [number for number, arrived_qos in self.reader.arrived if arrived_qos == qos]
            first = list(dict.fromkeys(numbers))
            # Of two messages, the first may have been refused, and sent again because nobody heard of it.
            assert first == sorted(first) or self.has_failed
            acknowledged = {number for number in self.writer.acknowledged if self.writer.qos_of[number] == qos}
            assert acknowledged <= set(numbers)
            if qos == 2:
                assert numbers == first
        self.world.settle()
        assert not self.world.disk.rows(records.MessageRecord)
        assert not self.world.disk.rows(records.EntryRecord)
        assert not self.world.disk.rows(records.ReceivedRecord)
        assert self.world.engine.metrics()["queued_bytes"] == 0


def test_no_crash_loses_or_doubles_anything():
    run_state_machine_as_test(
        Crashes,
        settings=settings(
            max_examples=150,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
