"""A mounted pair of clients gets byte for byte what a pair on a broker without mount points gets.

The same packets go into two engines: one has a plain listener; in the other the pair is behind a mount point, and
others publish around it, to names that no client of the pair may hear of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqttcore.codec import (
    Connect,
    Decoder,
    Disconnect,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from mqttcore.config import Limits
from mqttcore.constants import PropertyId
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine

MOUNT = "m/é/"
LEVELS = ["", "a", "b", "é", "a$", "temperature"]
CLIENTS = ("left", "right")
LIMITS = Limits(
    in_flight_maximum=3,
    queued_messages_maximum=5,
    topic_alias_maximum=2,
    topic_alias_maximum_out=3,
    queue_qos0_offline=True,
)
# What others publish in the mounted engine: above, beside and below the mount point, with RETAIN and without.
NOISE = ("m", "m/", "m/é", MOUNT, f"{MOUNT}$x", f"{MOUNT}$SYS/a", "a", "a/b", "m/e/a", "n/é/a", "m/éa")

levels = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=3)
topics = levels.map("/".join).filter(bool)
plain_filters = st.builds(
    lambda parts, rest: "/".join([*parts, *rest]),
    st.lists(st.sampled_from([*LEVELS, "+"]), min_size=0, max_size=3),
    st.sampled_from([["#"], ["+"], ["a"], [""]]),
).filter(bool)
filters = st.one_of(plain_filters, plain_filters.map("$share/g/{}".format))
bad_filters = st.sampled_from(["a#", "#/a", "+a", "$share/g/", "$share//a", "$share/g"])
clients = st.sampled_from(CLIENTS)
qos = st.integers(0, 2)


@dataclass
class Door:
    """A listener."""

    mount_point: str
    name: str = "door"
    allow_anonymous: bool = True


@dataclass
class Side:
    """One of the two engines."""

    mount_point: str
    engine: Engine = field(init=False)
    connections: dict[str, Connection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(LIMITS, now_ms=1000)

    def connect(self, client_id: str, mount_point: str, data: bytes) -> None:
        connection = self.connections[client_id] = Connection(self.engine, Door(mount_point), ("peer", 1))
        connection.receive(data)

    def take(self, client_id: str) -> bytes:
        self.engine.flush()
        connection = self.connections.get(client_id)
        return b"" if connection is None else connection.take_output()


@st.composite
def steps(draw: Any) -> list[tuple[Any, ...]]:
    kind = st.one_of(
        st.tuples(st.just("connect"), clients, st.sampled_from([3, 4, 5]), st.booleans(), st.none() | topics),
        st.tuples(
            st.just("subscribe"), clients, st.lists(st.tuples(filters | bad_filters, qos), min_size=1, max_size=3)
        ),
        st.tuples(st.just("unsubscribe"), clients, filters | bad_filters),
        st.tuples(st.just("publish"), clients, topics, qos, st.booleans(), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("acknowledge"), clients),
        st.tuples(st.just("release"), clients),
        st.tuples(st.just("lose"), clients, st.booleans()),
        st.tuples(st.just("noise"), st.sampled_from(NOISE), qos, st.booleans()),
    )
    return draw(st.lists(kind, min_size=5, max_size=40))


class Pair:
    """Plays the steps on both sides, and compares all that comes out."""

    def __init__(self) -> None:
        self.sides = (Side(""), Side(MOUNT))
        self.sides[1].connect("noise", "", Connect("noise", protocol_version=4, keep_alive_s=0).encode(4))
        self.versions: dict[str, int] = {}
        self.decoders: dict[str, Decoder] = {}
        self.waiting: dict[str, list[Any]] = {}
        self.aliases: dict[str, set[int]] = {}
        self.heard = 0

    def send(self, client_id: str, packet: Any) -> None:
        data = packet.encode(self.versions[client_id])
        for side in self.sides:
            side.connections[client_id].receive(data)
        self.compare()

    def compare(self) -> None:
        for client_id in CLIENTS:
            plain, mounted = (side.take(client_id) for side in self.sides)
            assert mounted == plain, f"to {client_id}"
            if not plain:
                continue
            for packet in self.decoders[client_id].feed(plain):
                if isinstance(packet, Publish):
                    self.heard += 1
                self.waiting[client_id].append(packet)
        states = [
            {client_id: side.connections[client_id].is_closed for client_id in CLIENTS if client_id in side.connections}
            for side in self.sides
        ]
        assert states[0] == states[1]
        for client_id, is_closed in states[0].items():
            if is_closed:
                self.versions.pop(client_id, None)

    def connect(self, client_id: str, version: int, is_clean: bool, will: str | None) -> None:
        self.versions[client_id] = version
        self.decoders[client_id] = Decoder(version, sender="server")
        self.waiting[client_id] = []
        self.aliases[client_id] = set()
        properties: dict[int, Any] = {}
        if version == 5:
            properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 100, PropertyId.TOPIC_ALIAS_MAXIMUM: 2}
        packet = Connect(
            client_id,
            protocol_version=version,
            clean_start=is_clean,
            keep_alive_s=0,
            properties=properties,
            will=None if will is None else Will(will, b"will", qos=1),
        )
        for side in self.sides:
            before = side.connections.get(client_id)
            side.connect(client_id, side.mount_point, packet.encode(version))
            if before is not None:
                assert before.is_closed
        self.compare()

    def subscribe(self, client_id: str, wanted: list[tuple[str, int]]) -> None:
        properties = {PropertyId.SUBSCRIPTION_IDENTIFIER: len(wanted)} if self.versions[client_id] == 5 else None
        self.send(client_id, Subscribe(1, [Subscription(one, granted) for one, granted in wanted], properties))

    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        self.send(client_id, Unsubscribe(2, [topic_filter]))

    def publish(self, client_id: str, topic: str, level: int, retain: bool, alias: int, by_alias: bool) -> None:
        properties: dict[int, Any] = {}
        if alias and self.versions[client_id] == 5:
            properties[PropertyId.TOPIC_ALIAS] = alias
            if by_alias and alias in self.aliases[client_id]:
                topic = ""
            self.aliases[client_id].add(alias)
        packet_id = 7 if level else 0
        packet = Publish(topic, b"payload", qos=level, retain=retain, packet_id=packet_id, properties=properties)
        self.send(client_id, packet)

    def acknowledge(self, client_id: str) -> None:
        for packet in self.waiting[client_id]:
            match packet:
                case Publish(qos=1):
                    self.send(client_id, PubAck(packet.packet_id))
                case Publish(qos=2):
                    self.send(client_id, PubRec(packet.packet_id))
                case PubRel():
                    self.send(client_id, PubComp(packet.packet_id))
                case _:
                    continue
            self.waiting[client_id].remove(packet)
            break

    def release(self, client_id: str) -> None:
        self.send(client_id, PubRel(7))

    def lose(self, client_id: str, in_order: bool) -> None:
        if in_order:
            self.send(client_id, Disconnect())
        for side in self.sides:
            side.connections[client_id].connection_lost()
        self.compare()

    def noise(self, topic: str, level: int, retain: bool) -> None:
        self.sides[1].connections["noise"].receive(
            Publish(topic, b"noise", qos=level, retain=retain, packet_id=9 if level else 0).encode(4)
        )
        if level == 2:
            self.sides[1].connections["noise"].receive(PubRel(9).encode(4))
        self.sides[1].take("noise")
        assert not self.sides[1].connections["noise"].is_closed
        self.compare()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps())
def test_mounted_pair_gets_what_a_plain_pair_gets(played: list[tuple[Any, ...]]):
    pair = Pair()
    pair.connect("left", 5, False, None)
    pair.connect("right", 4, False, None)
    for name, *arguments in played:
        if name not in ("connect", "noise") and arguments[0] not in pair.versions:
            continue
        getattr(pair, name)(*arguments)
    plain, mounted = (side.engine for side in pair.sides)
    whole = [
        (message.topic.removeprefix(MOUNT), message.payload)
        for message in mounted.retained_messages(f"{MOUNT}#".encode())
        if message.payload != b"noise"
    ]
    assert sorted(whole) == sorted((message.topic, message.payload) for message in plain.retained_messages(b"#"))
    for client_id in CLIENTS:
        sessions = [engine.session(client_id) for engine in (plain, mounted)]
        held = [one and (one.queued, one.in_flight, one.awaiting_release, one.dropped) for one in sessions]
        assert held[0] == held[1]


def test_a_group_gives_no_turn_to_what_is_outside():
    pair = Pair()
    for client_id in CLIENTS:
        pair.connect(client_id, 4, False, None)
        pair.subscribe(client_id, [("$share/g/#", 1)])
    for topic in NOISE:
        pair.noise(topic, 1, False)
        pair.publish("left", "a", 1, False, 0, False)
    assert pair.heard
    assert pair.sides[1].engine.metrics()["messages_dropped_not_authorized"] == 0


def test_the_pair_hears_something():
    # The comparison is worth what passes through it.
    pair = Pair()
    pair.connect("left", 5, False, None)
    pair.connect("right", 4, False, None)
    pair.subscribe("left", [("#", 2), ("$share/g/+/b", 1)])
    for topic in NOISE:
        pair.noise(topic, 1, True)
    pair.publish("right", "a/b", 1, True, 0, False)
    pair.subscribe("right", [("+/+", 0)])
    assert pair.heard == 3
