"""From the bytes of a PUBLISH to the bytes for its subscribers, through the engine and no socket."""

from types import SimpleNamespace

import pytest

from mqttcore.codec import Connect, PubAck, Publish, Subscribe, Subscription
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine

LISTENER = SimpleNamespace(name="bench", allow_anonymous=True)
MESSAGES = 100


def connected(engine: Engine, client_id: str, version: int) -> Connection:
    connection = Connection(engine, LISTENER)
    connection.receive(Connect(client_id, protocol_version=version, keep_alive_s=0).encode(version))
    connection.take_output()
    return connection


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("subscribers", [1, 100])
@pytest.mark.parametrize("qos", [0, 1])
def test_deliver(benchmark, version: int, subscribers: int, qos: int):
    engine = Engine(Limits())
    publisher = connected(engine, "publisher", version)
    receivers = [connected(engine, f"subscriber-{n}", version) for n in range(subscribers)]
    for receiver in receivers:
        receiver.receive(Subscribe(1, [Subscription("sensors/+/temperature", qos)]).encode(version))
        receiver.take_output()
    burst = b"".join(
        Publish("sensors/17/temperature", bytes(64), qos=qos, packet_id=n + 1 if qos else 0).encode(version)
        for n in range(MESSAGES)
    )
    first_id = 1

    def deliver() -> int:
        nonlocal first_id
        publisher.receive(burst)
        sent = publisher.pending_bytes
        publisher.take_output()
        # What each subscriber would answer, so that the windows never fill.
        ids = [(first_id + n - 1) % 65535 + 1 for n in range(MESSAGES)]
        first_id = ids[-1] % 65535 + 1
        acks = b"".join(PubAck(n).encode(version) for n in ids) if qos else b""
        for receiver in receivers:
            sent += receiver.pending_bytes
            receiver.take_output()
            if acks:
                receiver.receive(acks)
        return sent

    assert benchmark(deliver) > MESSAGES * subscribers * 64
    benchmark.extra_info["messages_per_round"] = MESSAGES * subscribers
    metrics = engine.metrics()
    assert metrics["in_flight"] == metrics["queued"] == 0
