"""Connections as drivers see them: what is kept of torn packets, pausing, the engine's end."""

import gc
import logging

import pytest

from mqttcore.codec import Connect, PubAck, Publish, Subscribe, Subscription
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.tap import Tap
from mqttcore.errors import QuotaExceeded


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


def test_collected_connection_leaves_no_timer_behind():
    class Drivers(Connection):
        """A driver's connection that refers to itself: only the collector can end it."""

    engine = Engine(Limits(connect_timeout_s=1), now_ms=1000)
    for _ in range(100):
        connection = Drivers(engine)
        connection.itself = connection
    del connection
    gc.collect()
    assert engine.metrics()["connections"] == 0
    engine.advance(5000)


def test_failing_consumer_disturbs_nobody(caplog: pytest.LogCaptureFixture):
    engine = Engine(Limits(), now_ms=1000)

    def fail() -> None:
        raise RuntimeError("consumer")

    broken = Tap(engine, fail, messages_maximum=10, bytes_maximum=10_000)
    engine.add_tap(b"t/#", broken)
    reader = connected(engine, "reader")
    reader.receive(Subscribe(1, [Subscription("t/1", 0)]).encode(5))
    reader.take_output()
    writer = connected(engine, "writer")
    writer.receive(Publish("t/1", b"x", qos=1, packet_id=1).encode(5))
    assert writer.take_output() == PubAck(1).encode(5)
    assert reader.take_output() == Publish("t/1", b"x").encode(5)
    assert [message.payload for message in broken.take()] == [b"x"]
    assert "RuntimeError: consumer" in caplog.text


def test_payload_over_what_a_packet_can_say_is_refused():
    engine = Engine(Limits(), now_ms=1000)
    with pytest.raises(ValueError, match="268435455"):
        engine.publish_bytes(b"t", bytes(268_435_456))


def test_log_handler_may_subscribe_while_a_message_is_routed():
    engine = Engine(Limits(retained_messages_maximum=0), now_ms=1000)
    reader = connected(engine, "reader")
    reader.receive(Subscribe(1, [Subscription("t", 0)]).encode(5))
    reader.take_output()
    tap = Tap(engine, lambda: None, messages_maximum=10, bytes_maximum=10_000)

    class Subscribing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            engine.add_tap(b"t", tap)  # takes the route out of the cache
            for i in range(100):
                engine.publish_bytes(b"other/%d" % i, b"")

    handler = Subscribing()
    logging.getLogger("mqttcore.engine").addHandler(handler)
    try:
        with pytest.raises(QuotaExceeded):
            engine.publish_bytes(b"t", b"x", 0, True)
    finally:
        logging.getLogger("mqttcore.engine").removeHandler(handler)
    assert reader.take_output() == Publish("t", b"x").encode(5)


def test_retained_quota_is_logged_once(caplog: pytest.LogCaptureFixture):
    engine = Engine(Limits(retained_messages_maximum=1), now_ms=1000)
    engine.publish_bytes(b"a", b"x", 0, True)

    def refuse_some() -> None:
        for topic in (b"b", b"c", b"d"):
            with pytest.raises(QuotaExceeded):
                engine.publish_bytes(topic, b"x", 0, True)

    refuse_some()
    assert caplog.text.count("retained message refused") == 1
    engine.publish_bytes(b"a", b"", 0, True)
    engine.publish_bytes(b"b", b"x", 0, True)
    with pytest.raises(QuotaExceeded):
        engine.publish_bytes(b"e", b"x", 0, True)
    assert caplog.text.count("retained message refused") == 2
    assert engine.metrics()["messages_dropped_quota"] == 4
