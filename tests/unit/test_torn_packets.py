"""Packets that have not come whole, of many connections: bounded together, and what is handled in place stays there."""

import gc
import random

from mqttcore.codec import Connect, Publish
from mqttcore.config import Limits
from mqttcore.constants import ReasonCode
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import HookTable
from mqttcore.identity import Identity, Quotas

BODY = 60_000
HELD = 65_536  # what keeping most of it takes
MAXIMUM = 4 * HELD


class Door:
    """A listener."""

    name = "unit"
    allow_anonymous = True


def engine_of(**limits: int) -> Engine:
    return Engine(Limits(incomplete_bytes_maximum=MAXIMUM, **limits), now_ms=1000)


def opened(engine: Engine, client_id: str) -> Connection:
    connection = Connection(engine, Door(), ("peer", 1))
    connection.receive(Connect(client_id).encode(5))
    assert connection.take_output()[0] == 0x20
    return connection


def torn(engine: Engine, client_id: str) -> Connection:
    connection = opened(engine, client_id)
    connection.receive(PACKET[:-1])
    return connection


PACKET = Publish("t", bytes(BODY)).encode(5)


def counts(engine: Engine) -> tuple[int, int]:
    metrics = engine.metrics()
    return metrics["incomplete_bytes"], metrics["incomplete_packets_cut"]


def test_who_began_first_is_closed():
    engine = engine_of()
    crowd = [torn(engine, f"c{number}") for number in range(4)]
    assert counts(engine) == (MAXIMUM, 0)
    last = torn(engine, "last")
    assert [one.is_closed for one in (*crowd, last)] == [True, False, False, False, False]
    assert crowd[0].close_reason == ReasonCode.QUOTA_EXCEEDED
    assert crowd[0].take_output()[0] == 0xE0
    assert counts(engine) == (MAXIMUM, 1)
    for one in (*crowd[1:], last):
        one.receive(PACKET[-1:])
    assert engine.metrics()["messages_received_qos0"] == 4
    assert counts(engine) == (0, 1)


def test_who_says_a_little_at_a_time_keeps_its_place():
    engine = engine_of()
    slow = opened(engine, "slow")
    slow.receive(PACKET[:-100])
    others = []
    for number in range(3):
        others.append(torn(engine, f"c{number}"))
        slow.receive(PACKET[-100 + number : -99 + number])
    more = torn(engine, "more")
    assert slow.is_closed
    assert not more.is_closed


def test_one_that_began_first_and_wants_more_is_the_one_that_goes():
    engine = engine_of()
    slow = opened(engine, "slow")
    slow.receive(PACKET[:2000])
    others = [torn(engine, f"c{number}") for number in range(3)]
    assert not slow.is_closed
    slow.receive(PACKET[2000:-1])
    assert not slow.is_closed  # just as much as there may be
    others.append(torn(engine, "c3"))
    assert [one.is_closed for one in (slow, *others)] == [True, False, False, False, False]


def test_only_one_has_the_bound_of_a_packet():
    engine = engine_of(maximum_packet_size_bytes=2_000_000)
    large = Publish("t", bytes(1_900_000)).encode(5)
    alone = opened(engine, "alone")
    alone.receive(large[:-1])
    assert not alone.is_closed
    alone.receive(large[-1:])
    assert engine.metrics()["messages_received_qos0"] == 1
    assert counts(engine) == (0, 0)


def test_small_packets_are_not_counted():
    engine = engine_of()
    crowd = [opened(engine, f"c{number}") for number in range(10)]
    for one in crowd:
        one.receive(PACKET[:500])
    assert counts(engine) == (0, 0)


def test_strangers_count_as_well():
    engine = engine_of()
    connects = [Connection(engine, Door(), ("peer", 1)) for _ in range(5)]
    for one in connects:
        one.receive(Connect("x", user_name="u", password=bytes(BODY)).encode(5)[:-1])
    assert [one.is_closed for one in connects] == [True, False, False, False, False]
    assert connects[0].take_output() == b""


def test_full_memory_has_little_room_for_them():
    engine = Engine(Limits(maximum_packet_size_bytes=10_000_000), now_ms=1000)
    large = Publish("t", bytes(8_000_000)).encode(5)
    crowd = [opened(engine, f"c{number}") for number in range(5)]
    for one in crowd:
        one.receive(large[:-1])
    assert counts(engine) == (5 * 8_388_608, 0)
    engine.set_memory(is_short=True, is_full=True)
    assert [one.is_closed for one in crowd] == [True, True, True, False, False]
    assert counts(engine) == (2 * 8_388_608, 3)
    engine.set_memory(is_short=False, is_full=False)
    crowd[0] = opened(engine, "new")
    crowd[0].receive(large[:-1])
    assert counts(engine) == (3 * 8_388_608, 3)


def test_nothing_is_counted_of_who_is_gone():
    engine = engine_of()
    lost, closed, broken = (torn(engine, name) for name in ("lost", "closed", "broken"))
    dropped = Connection(engine, Door())
    dropped.receive(Connect("x", user_name="u", password=bytes(BODY)).encode(5)[:-1])
    assert counts(engine) == (4 * HELD, 0)
    lost.connection_lost()
    closed.close(ReasonCode.ADMINISTRATIVE_ACTION)
    del dropped
    gc.collect()
    assert counts(engine) == (HELD, 0)
    broken.receive(b"\xff" + b"\xff" * 10)  # the packet's end, and no packet
    assert broken.is_closed
    assert counts(engine) == (0, 0)


def test_crowd_that_comes_and_goes_is_counted_right():
    choose = random.Random(5)
    engine = engine_of()
    there: dict[int, tuple[Connection, int]] = {}
    for number in range(2000):
        key = choose.randrange(12)
        connection, at = there.get(key, (None, 0))
        if connection is None or connection.is_closed:
            connection, at = opened(engine, f"c{key}-{number}"), 0
        match choose.randrange(6):
            case 0:
                connection.connection_lost()
            case 1:
                connection.receive(PACKET[at:])
                at = 0
            case _:
                end = min(len(PACKET) - 1, at + choose.choice((10, 1500, 30_000)))
                connection.receive(PACKET[at:end])
                at = end
        there[key] = (connection, at)
        assert engine.metrics()["incomplete_bytes"] <= MAXIMUM
    assert engine.metrics()["incomplete_packets_cut"] > 0
    for connection, _ in there.values():
        connection.connection_lost()
    assert engine.metrics()["incomplete_bytes"] == 0


def test_packet_that_ends_its_own_pause_is_handled_once():
    """A handler gives its publisher other rates while the packet that was one too many lies where torn ones do."""
    table = HookTable(authenticate=lambda *_: Identity("user", quotas=Quotas(messages_per_s=1)))
    engine = Engine(Limits(), now_ms=1000, hooks=table)
    handled: list[bytes] = []

    def handler(client: object, message: object) -> None:
        handled.append(message.payload[:1])  # type: ignore[attr-defined]
        engine.set_identity("a", Identity("user", quotas=Quotas(messages_per_s=1000)))

    connection = opened(engine, "a")
    packets = [Publish("t", bytes([number]) * BODY).encode(5) for number in range(4)]
    connection.receive(packets[0])
    engine.add_handler(b"t", handler)
    connection.receive(packets[1][:-1])
    connection.receive(packets[1][-1:] + packets[2] + packets[3])
    assert handled == [b"\1", b"\2", b"\3"]
    assert not connection.is_paused
    assert engine.metrics()["messages_received_qos0"] == 4
