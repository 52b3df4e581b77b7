"""Connections as drivers see them: what is kept of torn packets, pausing, the engine's end."""

import gc

import pytest

from mqttcore.codec import Connect, Publish
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine


class Door:
    """A listener."""

    name = "unit"
    allow_anonymous = True


def connected(engine: Engine, client_id: str = "a") -> Connection:
    connection = Connection(engine, Door(), ("peer", 1))
    connection.receive(Connect(client_id).encode(5))
    assert connection.take_output()[0] == 0x20
    return connection


def test_new_connection():
    engine = Engine(Limits(), now_ms=1000)
    connection = Connection(engine, Door(), ("peer", 1))
    assert connection.peer == ("peer", 1)
    assert connection.client_id is None
    assert connection.current_session is None
    assert not connection.is_closed
    assert connection.take_output() == b""
    connection.receive(b"")
    assert engine.metrics()["connections"] == 1


def test_connection_that_is_dropped_unclosed_is_counted_off():
    engine = Engine(Limits(), now_ms=1000)
    connection = Connection(engine, Door())
    del connection
    gc.collect()
    assert engine.metrics()["connections"] == 0
    engine.advance(1_000_000)  # its timer is gone with it


def test_engine_that_is_dropped_with_everything_open():
    engine = Engine(Limits(), now_ms=1000)
    connection = connected(engine)
    connection.receive(Publish("t", b"x", properties={35: 1}).encode(5))
    engine.flush()
    del engine, connection
    gc.collect()


def test_close_tells_the_reason_once():
    engine = Engine(Limits(), now_ms=1000)
    connection = connected(engine)
    connection.close(0x98, "enough")
    said = connection.take_output()
    assert said[:3] == b"\xe0\x0b\x98"
    assert b"enough" in said
    connection.close(0x8B)
    connection.receive(b"\xc0\x00")
    connection.connection_lost()
    assert connection.take_output() == b""
    assert connection.close_reason == 0x98
    assert engine.metrics()["sessions"] == 0


def test_callback_is_told_of_output_outside_a_turn():
    engine = Engine(Limits(), now_ms=1000)
    connection = connected(engine)
    connection.receive(b"\x82\x07\x00\x01\x00\x00\x01t\x00")
    connection.take_output()
    engine.flush()
    woken: list[bool] = []
    engine.set_wake(lambda: woken.append(engine.has_output))
    assert engine.publish_bytes(b"t", b"1") == 1
    assert woken == [True]
    assert engine.publish_bytes(b"nobody", b"1") == 0
    engine.disconnect("a", 0x98)
    assert woken[-1] is True
    engine.set_wake(None)


@pytest.mark.parametrize(
    ("topic", "qos", "error"),
    [(b"a/#", 0, ValueError), (b"", 0, ValueError), (b"\xff", 0, ValueError), (b"t", 3, ValueError)],
)
def test_broker_publishes_only_what_is_allowed(topic: bytes, qos: int, error: type[Exception]):
    engine = Engine(Limits(), now_ms=1000)
    with pytest.raises(error):
        engine.publish_bytes(topic, b"1", qos)


def test_discarding_a_connected_session():
    engine = Engine(Limits(), now_ms=1000)
    connection = Connection(engine, Door())
    connection.receive(Connect("a", properties={17: 60}).encode(5))
    connection.take_output()
    assert engine.discard_session("a")
    assert connection.take_output()[:3] == b"\xe0\x01\x98"
    assert engine.metrics()["sessions"] == 0
    assert not engine.discard_session("a")
    engine.advance(1_000_000)


def test_closing_the_engine_with_clients_connected():
    engine = Engine(Limits(), now_ms=1000)
    connection = connected(engine)
    connection.receive(b"\x82\x07\x00\x01\x00\x00\x01t\x02")
    connection.receive(Publish("t", b"x", qos=1, packet_id=1).encode(5))
    engine.close()
    connection.receive(Publish("t", b"x", qos=1, packet_id=2).encode(5))
    connection.receive(b"\x40\x02\x00\x01")
    connection.connection_lost()
    metrics = engine.metrics()
    for gauge in ("connections", "sessions", "sessions_connected", "in_flight", "queued", "subscriptions"):
        assert metrics[gauge] == 0, gauge
