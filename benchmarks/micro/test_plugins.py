"""What a plugin on the packet path costs a message, and what authenticating costs a CONNECT: no socket."""

from types import SimpleNamespace
from typing import Any

import pytest

from mqttcore import Config, Identity, hookimpl
from mqttcore.codec import Connect, Publish
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.plugins.manager import Plugins

LISTENER = SimpleNamespace(name="bench", allow_anonymous=True)
MESSAGES = 1000


class Allows:
    """Answers from a dict."""

    def __init__(self, name: str = "allows", answer: bool | None = True) -> None:
        self.name = name
        self.answers = {f"t/{number}": answer for number in range(100)}

    @hookimpl
    def authorize_publish(self, client: Any, topic: str, qos: int, retain: bool) -> bool | None:
        return self.answers.get(topic)


class LetsIn:
    """Lets everybody in at once."""

    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Identity:
        return Identity(connect.client_id)


PUBLISHING = {"none": [], "one": [Allows()], "two": [Allows("first", None), Allows("second")]}


@pytest.mark.parametrize("who", PUBLISHING)
def test_authorize_publish(benchmark, who: str):
    engine = Engine(Limits(), Plugins(Config(), PUBLISHING[who]).hook_table())
    publisher = Connection(engine, LISTENER)
    publisher.receive(Connect("publisher", protocol_version=4, keep_alive_s=0).encode(4))
    burst = b"".join(Publish(f"t/{number % 100}", bytes(64)).encode(4) for number in range(MESSAGES))
    benchmark(publisher.receive, burst)
    assert engine.metrics()["messages_dropped_not_authorized"] == 0
    benchmark.extra_info["messages_per_round"] = MESSAGES


@pytest.mark.parametrize("who", ["nobody", "plugin"])
def test_authenticate(benchmark, who: str):
    plugins = Plugins(Config(), [LetsIn()] if who == "plugin" else [])
    engine = Engine(Limits(), plugins.hook_table())
    plugins.decisions.serve(engine)
    packet = Connect("client", protocol_version=4).encode(4)

    def connect() -> bytes:
        connection = Connection(engine, LISTENER)
        connection.receive(packet)
        answer = connection.take_output()
        connection.connection_lost()
        return answer

    assert benchmark(connect) == b"\x20\x02\x00\x00"
