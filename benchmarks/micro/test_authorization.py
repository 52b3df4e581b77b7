"""What asking costs a PUBLISH: nobody asked, permissions, a hook; and a CONNECT with permissions."""

from types import SimpleNamespace
from typing import Any

import pytest

from mqttcore.codec import Connect, Publish, Subscribe, Subscription
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import HookTable
from mqttcore.identity import Action, Identity, Permission

LISTENER = SimpleNamespace(name="bench", allow_anonymous=True)
MESSAGES = 1000
PERMISSIONS = (
    Permission(Action.ALL, "devices/%c/#"),
    Permission(Action.PUBLISH, "logs/#", is_allowed=False),
    Permission(Action.PUBLISH, "alarms/+", qos_maximum=1),
    Permission(Action.SUBSCRIBE, "commands/%c"),
    Permission(Action.ALL, "sensors/+/temperature"),
)
RIGHTS = {("publisher", "sensors/17/temperature"): True}


def hooks(kind: str) -> HookTable:
    if kind == "permissions":
        identity = Identity("device", PERMISSIONS)
        return HookTable(authenticate=lambda client, connect: identity)
    if kind == "hook":
        return HookTable(authorize_publish=lambda client, topic, qos, retain: RIGHTS.get((client.client_id, topic)))
    return HookTable()


def connected(engine: Engine, client_id: str) -> Connection:
    connection = Connection(engine, LISTENER)
    connection.receive(Connect(client_id, protocol_version=4, keep_alive_s=0).encode(4))
    connection.take_output()
    return connection


@pytest.mark.parametrize("kind", ["nobody", "permissions", "hook"])
def test_publish(benchmark: Any, kind: str):
    engine = Engine(Limits(), hooks(kind))
    publisher, subscriber = connected(engine, "publisher"), connected(engine, "subscriber")
    subscriber.receive(Subscribe(1, [Subscription("sensors/+/temperature", 0)]).encode(4))
    subscriber.take_output()
    burst = Publish("sensors/17/temperature", bytes(64)).encode(4) * MESSAGES

    def deliver() -> int:
        publisher.receive(burst)
        sent = subscriber.pending_bytes
        subscriber.take_output()
        return sent

    assert benchmark(deliver) > MESSAGES * 64
    benchmark.extra_info["messages_per_round"] = MESSAGES


@pytest.mark.parametrize("kind", ["nobody", "permissions"])
def test_connect(benchmark: Any, kind: str):
    engine = Engine(Limits(), hooks(kind))
    data = [Connect(f"device-{number}", protocol_version=4).encode(4) for number in range(100)]

    def connect() -> None:
        for one in data:
            connection = Connection(engine, LISTENER)
            connection.receive(one)
            connection.take_output()
            connection.connection_lost()

    benchmark(connect)
    assert engine.metrics()["sessions"] == 0
