"""A message from its publisher to one subscriber, watched and not: what a trace costs who is traced, and who is not."""

from types import SimpleNamespace
from typing import Any

import pytest

from mqttcore.codec import Connect, Publish, Subscribe, Subscription
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.watch import Watch

LISTENER = SimpleNamespace(name="bench", allow_anonymous=True)
MESSAGES = 100
WATCHES: dict[str, tuple[Any, str, int]] = {
    "client": ("client_id", "publisher", 0),
    "topic": ("topic_filter", "sensors/#", 0),
    "topic over its rate": ("topic_filter", "#", 1),
    "another client": ("client_id", "somebody", 0),
    "another topic": ("topic_filter", "actors/#", 0),
}


def connected(engine: Engine, client_id: str) -> Connection:
    connection = Connection(engine, LISTENER)
    connection.receive(Connect(client_id, protocol_version=5, keep_alive_s=0).encode(5))
    connection.take_output()
    return connection


@pytest.mark.parametrize("watched", ["nobody", *WATCHES])
def test_publish_and_deliver(benchmark, watched: str):
    engine = Engine(Limits())
    entries: list[object] = []
    failures: list[Exception] = []
    if watched in WATCHES:
        subject, value, rate = WATCHES[watched]
        engine.add_watch(Watch(subject, value, entries.append, failures.append, entries_per_s=rate))
    publisher, subscriber = connected(engine, "publisher"), connected(engine, "subscriber")
    subscriber.receive(Subscribe(1, [Subscription("sensors/+/temperature", 0)]).encode(5))
    subscriber.take_output()
    burst = Publish("sensors/17/temperature", bytes(64)).encode(5) * MESSAGES
    entries.clear()

    def deliver() -> int:
        entries.clear()
        publisher.receive(burst)
        return len(subscriber.take_output())

    assert benchmark(deliver) > MESSAGES * 64
    benchmark.extra_info["messages_per_round"] = MESSAGES
    assert len(entries) == (2 * MESSAGES if watched in ("client", "topic") else 0)
    assert not failures
