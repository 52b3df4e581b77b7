"""Work that hostile clients make, measured in a process of its own: `python -m conformance.memory_probe NAME`.

Each work runs once to warm up and then again; printed as JSON: bytes by which resident and address space grew the
second time, Python blocks that stayed, and what the work itself says. Nothing here looks at a clock.
"""

import gc
import json
import logging
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from conversations.harness import Door
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine

from .hardening_bytes import block, connect, packet, publish, subscribe, text, u16, u32, unsubscribe

Report = dict[str, int]
CLEAN_WITH_WILL = 0x06


def open_connection(engine: Engine, data: bytes = b"") -> Connection:
    connection = Connection(engine, Door(), ("probe", 0))
    connection.receive(data)
    return connection


def connected(engine: Engine, client_id: str, version: int = 5, **fields: bytes) -> Connection:
    connection = open_connection(engine, connect(version, client_id, **fields))
    assert connection.take_output()[3] == 0
    assert not connection.is_closed
    return connection


def silent_connections_with_a_declared_length() -> Iterator[Report]:
    """10,000 connections of which each announces a CONNECT of 130,000 bytes and sends one byte of it."""
    engine = Engine(Limits())
    held: list[Connection] = []
    yield {}
    held += [open_connection(engine, b"\x10\xd0\xf7\x07\x00") for _ in range(10_000)]
    assert not any(connection.is_closed for connection in held)
    yield {"connections": engine.metrics()["connections"]}


def connections_with_a_length_over_the_limit() -> Iterator[Report]:
    """100,000 connections that announce 256 MiB; each is closed at once."""
    engine = Engine(Limits())
    for _ in range(2):
        for _ in range(50_000):
            assert open_connection(engine, b"\x10\xff\xff\xff\x7f\x00").is_closed
            engine.flush()
        yield {"connections": engine.metrics()["connections"]}


def one_qos2_id_for_ever() -> Iterator[Report]:
    """QoS 2 messages that all have one packet id and are never released, a million in all."""
    engine = Engine(Limits())
    peer = connected(engine, "c")
    data = publish(5, "t", b"x" * 20, first=0x34, packet_id=7) * 1000
    for rounds in (100, 900):
        for _ in range(rounds):
            peer.receive(data)
            assert len(peer.take_output()) in (4000, 4001)
        yield {"awaiting_release": engine.metrics()["awaiting_release"]}


def every_qos2_id_unreleased() -> Iterator[Report]:
    """All 65,535 ids opened without PUBREL by a client that may, again and again."""
    engine = Engine(Limits(enforce_receive_maximum=False))
    peer = connected(engine, "c", 4)
    for _ in range(2):
        for n in range(1, 65_536):
            peer.receive(publish(4, "t", b"x" * 20, first=0x34, packet_id=n))
        assert len(peer.take_output()) == 4 * 65_535
        yield {"awaiting_release": engine.metrics()["awaiting_release"]}


def bad_connects() -> list[bytes]:
    """CONNECTs of which each fails at another place, most of them with much decoded before."""
    user = b"\x26" + text("name" * 50) + text("value" * 50)
    bad_properties = [
        b"\x21\x00\x00", b"\x27\x00\x00\x00\x00", b"\x17\x02", b"\x19\x07", b"\x7e\x00", b"\x11\x00", b"\x26\x00\x05ab",
        b"\x15" + text("m") + b"\x15" + text("m"), b"\x16" + text("alone"), b"\x23\x00\x01",
        b"\x26" + text(b"\xff") + text("v"),
    ]  # fmt: skip
    connects = [connect(5, properties=user + bad) for bad in bad_properties]
    bad_will_properties = [
        b"\x01\x02",
        b"\x08" + text("#"),
        b"\x18\x00",
        b"\x02" + u32(1) + b"\x02" + u32(1),
        b"\x11" + u32(1),
    ]
    for bad in bad_will_properties:
        will = block(5, user + bad) + text("t") + text("x" * 1000)
        connects.append(connect(5, properties=user, flags=CLEAN_WITH_WILL, tail=will))
    good_will = block(5, user) + text("t") + text("x" * 1000)
    connects += [
        connect(5, properties=user, flags=CLEAN_WITH_WILL, tail=good_will + b"trailing"),
        connect(5, properties=user, flags=CLEAN_WITH_WILL, tail=block(5, user) + text("a/#") + text("x" * 1000)),
        connect(5, properties=user, flags=CLEAN_WITH_WILL, tail=block(5, user) + text("$SYS/x") + text("x" * 1000)),
        connect(5, properties=user, flags=0xC6, tail=good_will + text("user") + b"\x00\x09pw"),
        connect(5, b"\xff\xfe", properties=user),
        connect(4, flags=CLEAN_WITH_WILL, tail=text("t") + b"\xff\xff" + b"x" * 100),
        connect(4, flags=0x07), connect(4, "", flags=0), connect(4, level=9),
    ]  # fmt: skip
    return connects


def connects_that_fail() -> Iterator[Report]:
    """Each kind of bad CONNECT, 10,000 times and more."""
    engine = Engine(Limits())
    connects = bad_connects()
    for rounds in (100, 2_000):
        for _ in range(rounds):
            for data in connects:
                connection = open_connection(engine, data)
                assert connection.is_closed
                connection.take_output()
                engine.flush()
        yield {"connections": engine.metrics()["connections"], "sessions": engine.metrics()["sessions"]}


def wills_that_are_replaced() -> Iterator[Report]:
    """Clients with large wills that take over from each other, leave cleanly, or with the will."""
    engine = Engine(Limits())
    will = block(5, b"\x26" + text("n" * 200) + text("v" * 200)) + text("t") + text("x" * 5_000)
    data = connect(5, "c", flags=CLEAN_WITH_WILL, tail=will)
    for rounds in (1_000, 30_000):
        for n in range(rounds):
            connection = open_connection(engine, data)
            if n % 3 == 0:
                connection.receive(b"\xe0\x00" if n % 2 else b"\xe0\x01\x04")
            connection.take_output()
            engine.flush()
        yield {"sessions": engine.metrics()["sessions"]}


def property_bombs() -> Iterator[Report]:
    """Messages that are all user properties, the smallest there are, to a reader that never takes them."""
    engine = Engine(Limits(queued_messages_maximum=20, publisher_pause_ms=0))
    reader = connected(engine, "r")
    reader.receive(subscribe(5, ("t", 1)))
    writer = connected(engine, "w")
    data = publish(5, "t", first=0x32, packet_id=1, properties=b"\x26\x00\x00\x00\x00" * 40_000)
    for rounds in (1100, 3000):  # the first fills window and queue
        for _ in range(rounds):
            writer.receive(data)
            writer.take_output()
            reader.take_output()
        metrics = engine.metrics()
        yield {"queued": metrics["queued"], "queued_bytes": metrics["queued_bytes"], "message_bytes": len(data)}


def subscribe_bombs() -> Iterator[Report]:
    """SUBSCRIBE, UNSUBSCRIBE and acknowledgements that are all user properties."""
    engine = Engine(Limits())
    peer = connected(engine, "c")
    bomb = b"\x26\x00\x01a\x00\x01b" * 20_000
    packets = [
        subscribe(5, ("t", 0), properties=bomb),
        packet(0xA2, u16(1), block(5, bomb), text("t")),
        packet(0x62, u16(1), b"\x00", block(5, bomb)),
        packet(0x40, u16(1), b"\x00", block(5, bomb)),
    ]
    for rounds in (3, 30):
        for _ in range(rounds):
            for data in packets:
                peer.receive(data)
                assert len(peer.take_output()) < 100
        assert not peer.is_closed
        yield {}


def subscriptions_again_and_again() -> Iterator[Report]:
    """A subscriber that acknowledges nothing asks for the retained messages again and again."""
    engine = Engine(Limits(in_flight_maximum=10))
    for n in range(100):
        engine.publish_bytes(b"t/%d" % n, b"x", 1, True)
    peer = connected(engine, "c")
    for rounds in (1_000, 100_000):
        for n in range(rounds):
            topic_filter = ("t/#", "+/+", f"t/+/{n}/#")[n % 3]
            peer.receive(subscribe(5, (topic_filter, 1)))
            if n % 3 == 2:
                peer.receive(unsubscribe(5, topic_filter))
            peer.take_output()
        yield {"in_flight": engine.metrics()["in_flight"], "subscriptions": engine.metrics()["subscriptions"]}


def deep_topics() -> Iterator[Report]:
    """Filters, retained messages and topics of 60,000 levels, where the limits allow them."""
    engine = Engine(Limits(topic_levels_maximum=65_535, retained_messages_maximum=100))
    deep = "/" * 60_000
    for _ in range(2):
        peer = connected(engine, "c")
        peer.receive(publish(5, deep, b"kept", first=0x31))
        for topic_filter in (deep, "+/" * 30_000 + "#", "+" + "/+" * 60_000):
            if len(topic_filter) < 65_536:
                peer.receive(subscribe(5, (topic_filter, 0)))
        peer.receive(subscribe(5, ("#", 0)))
        while peer.take_output():
            pass
        before = engine.topics.steps
        peer.receive(publish(5, deep, b"live"))
        assert peer.take_output().count(b"live") == 1
        steps = engine.topics.steps - before
        peer.receive(publish(5, deep, first=0x31))
        peer.receive(b"\xe0\x00")
        engine.flush()
        assert engine.metrics()["subscriptions"] == engine.metrics()["retained"] == 0
        yield {"steps": steps, "nodes_left": engine.topics.node_count}


def sessions_that_take_over_from_each_other() -> Iterator[Report]:
    """Clients of five ids that connect, subscribe, publish to each other, unsubscribe and vanish, at random."""
    engine = Engine(Limits(session_expiry_maximum_s=5), now_ms=1)
    dice = random.Random(5)
    filters = ["a", "a/+", "+/b", "#", "$share/g/a/b", "$share/g/#", "$share/h/+/b"]
    now_ms = 1
    for operations in (5_000, 60_000):
        peers: list[Connection] = []
        for _ in range(operations):
            if not peers or dice.random() < 0.1:
                flags = dice.choice([0, 2])
                data = connect(5, f"c{dice.randrange(5)}", flags=flags, properties=b"\x11" + u32(dice.choice([0, 5])))
                peers.append(open_connection(engine, data))
            peer = dice.choice(peers)
            topic, topic_filter = dice.choice(["a", "a/b", "b/b"]), dice.choice(filters)
            qos, packet_id = dice.randrange(3), dice.randrange(1, 6)
            peer.receive(
                dice.choice(
                    [
                        subscribe(5, (topic_filter, dice.randrange(3))),
                        unsubscribe(5, topic_filter),
                        publish(5, topic, b"x", first=0x30 | qos << 1, packet_id=packet_id if qos else None),
                        publish(5, topic, b"" if packet_id > 3 else b"y", first=0x31),
                        packet(dice.choice([0x40, 0x50, 0x62, 0x70]), u16(packet_id)),
                        b"\xe0\x00",
                        b"\xe0\x01\x04",
                    ]
                )
            )
            if dice.random() < 0.05:
                peer.connection_lost()
            if dice.random() < 0.3:
                peer.take_output()
            now_ms += 10
            engine.advance(now_ms)
            engine.flush()
            peers = [peer for peer in peers if not peer.is_closed]
        for peer in peers:
            peer.connection_lost()
        peers.clear()
        now_ms += 60_000
        engine.advance(now_ms)
        engine.retained.clear()
        engine.flush()
        left = {
            name: engine.metrics()[name] for name in ("sessions", "subscriptions", "in_flight", "queued", "connections")
        }
        yield {**left, "shared_groups": engine.metrics()["shared_groups"], "filters": engine.topics.count}


def reader_that_never_takes_anything() -> Iterator[Report]:
    """A flood at every QoS towards a subscriber whose network stands still."""
    limits = Limits(
        queued_messages_maximum=100, output_high_water_bytes=65_536, in_flight_maximum=100, publisher_pause_ms=0
    )
    engine = Engine(limits)
    reader = connected(engine, "r")
    reader.receive(subscribe(5, ("t", 2)))
    writer = connected(engine, "w")
    data = b"".join(
        publish(5, "t", b"x" * 1000, first=0x30 | qos << 1, packet_id=qos if qos else None) for qos in range(3)
    )
    data += b"\x62\x02\x00\x02"
    for rounds in (1_000, 50_000):
        for _ in range(rounds):
            writer.receive(data)
            writer.take_output()
        yield {"pending": reader.pending_bytes, "queued": engine.metrics()["queued"]}


WORKS: dict[str, Callable[[], Iterator[Report]]] = {
    work.__name__: work
    for work in (
        silent_connections_with_a_declared_length,
        connections_with_a_length_over_the_limit,
        one_qos2_id_for_ever,
        every_qos2_id_unreleased,
        connects_that_fail,
        wills_that_are_replaced,
        property_bombs,
        subscribe_bombs,
        subscriptions_again_and_again,
        deep_topics,
        sessions_that_take_over_from_each_other,
        reader_that_never_takes_anything,
    )
}


def memory() -> tuple[int, int, int]:
    """Bytes of address space and resident, and Python's blocks."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text().split()
    size = os.sysconf("SC_PAGE_SIZE")
    return int(pages[0]) * size, int(pages[1]) * size, sys.getallocatedblocks()


def main(name: str) -> None:
    logging.disable(logging.ERROR)  # peers' faults are what this is made of
    work = WORKS[name]()
    next(work)
    before = memory()
    said = next(work)
    after = memory()
    growth = dict(
        zip(("address_space", "resident", "blocks"), (b - a for a, b in zip(before, after, strict=True)), strict=True)
    )
    sys.stdout.write(json.dumps(said | growth))


if __name__ == "__main__":
    main(sys.argv[1])
