"""What is remembered of recipients is bounded by the cache of routes, in number and in bytes."""

from mqttcore.codec import Connect, Publish
from mqttcore.config import Limits
from mqttcore.constants import PropertyId
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.handlers import Recipients

ROUTES_BYTES_MAXIMUM = 64 << 20


class Door:
    """A listener."""

    name = "unit"
    allow_anonymous = True


def connected(engine: Engine, client_id: str, **fields: object) -> Connection:
    connection = Connection(engine, Door())
    connection.receive(Connect(client_id, keep_alive_s=0, **fields).encode(5))
    return connection


def test_remembered_recipients_count_among_the_bytes_of_routes():
    engine = Engine(Limits())
    names = [f"client{number}" for number in range(2000)]
    for name in names:
        connected(engine, name, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60}).connection_lost()
    calls: list[str] = []

    def everybody(client: object, message: object) -> Recipients:
        calls.append(message.topic)  # type: ignore[attr-defined]
        return Recipients(names, is_fixed=True)

    engine.add_handler(b"#", everybody)
    publisher = connected(engine, "publisher")
    most = 0
    for number in range(1000):
        publisher.receive(Publish(f"topic/{number}").encode(5))
        most = max(most, engine.topics.cache_bytes)
    assert ROUTES_BYTES_MAXIMUM // 2 < most <= ROUTES_BYTES_MAXIMUM
    assert engine.topics.cache_evictions > 100
    assert len(calls) == 1000
    publisher.receive(Publish("topic/999").encode(5))
    assert len(calls) == 1000  # the newest is remembered
    engine.topics.clear()
    assert engine.topics.cache_bytes == 0


def test_cache_of_routes_that_is_off_remembers_nothing_for_long():
    engine = Engine(Limits(routes_cached_maximum=0))
    calls: list[str] = []
    engine.add_handler(b"+", lambda client, message: calls.append(message.topic) or Recipients(["a"], is_fixed=True))
    receiver = connected(engine, "a")
    receiver.take_output()
    for topic in ("t", "u", "t"):
        receiver.receive(Publish(topic, b"x").encode(5))
        assert receiver.take_output() == Publish(topic, b"x").encode(5)
    assert calls == ["t", "u", "t"]
    assert engine.topics.cache_bytes == 0
