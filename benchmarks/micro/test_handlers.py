"""What topic handlers, remembered recipients and taps cost beside a plain subscription: the engine without a socket."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mqttcore.codec import Connect, Publish, Subscribe, Subscription
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.tap import Tap
from mqttcore.handlers import CONSUMED, Recipients

LISTENER = SimpleNamespace(name="bench", allow_anonymous=True)
MESSAGES = 1000


def connected(engine: Engine, client_id: str) -> Connection:
    connection = Connection(engine, LISTENER)
    connection.receive(Connect(client_id, protocol_version=4, keep_alive_s=0).encode(4))
    connection.take_output()
    return connection


def asked_each_time(client: Any, message: Any) -> Recipients:
    return Recipients(("receiver",))


WAYS: dict[str, tuple[str | None, Callable[[Any, Any], object] | None]] = {
    "subscription": ("x/p2p/receiver", None),
    "fixed_recipients": (None, lambda client, message: Recipients(("receiver",), is_fixed=True)),
    "asked_recipients": (None, asked_each_time),
    "consumed": (None, lambda client, message: CONSUMED),
    "handler_without_opinion": ("x/p2p/receiver", lambda client, message: None),
    "unmatched": (None, None),
}


@pytest.mark.parametrize("way", WAYS)
def test_way(benchmark, way: str):
    topic_filter, handler = WAYS[way]
    engine = Engine(Limits())
    publisher, receiver = connected(engine, "publisher"), connected(engine, "receiver")
    if topic_filter is not None:
        receiver.receive(Subscribe(1, [Subscription(topic_filter, 0)]).encode(4))
        receiver.take_output()
    if handler is not None:
        engine.add_handler(b"x/p2p/+", handler)
    burst = Publish("x/p2p/receiver", bytes(64)).encode(4) * MESSAGES

    def deliver() -> int:
        publisher.receive(burst)
        return len(receiver.take_output())

    assert benchmark(deliver) == (0 if way in ("consumed", "unmatched") else len(burst))
    benchmark.extra_info["messages_per_round"] = MESSAGES


@pytest.mark.parametrize("taps", [0, 1])
def test_tap(benchmark, taps: int):
    engine = Engine(Limits())
    publisher = connected(engine, "publisher")
    tap = Tap(engine, lambda: None, messages_maximum=10_000, bytes_maximum=1 << 30)
    if taps:
        engine.add_tap(b"#", tap)
    burst = Publish("sensors/17/temperature", bytes(64)).encode(4) * MESSAGES

    def gather() -> int:
        publisher.receive(burst)
        return len(tap.take())

    assert benchmark(gather) == taps * MESSAGES
    benchmark.extra_info["messages_per_round"] = MESSAGES
