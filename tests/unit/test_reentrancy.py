"""Python that is called from the middle of things - hooks, handlers, taps - and does what it likes to them.

What C holds at that moment has to outlive it. Under AddressSanitizer (tests/asan.sh) each of these failed once.
"""

import gc
from collections.abc import Callable
from typing import Any

import pytest

from mqttcore import Identity, PropertyId, ReasonCode
from mqttcore.codec import Auth, Connect, Decoder, Packet, PubAck, Publish, SubAck, Subscribe, Subscription, Will
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import HookTable
from mqttcore.engine.tap import Tap
from mqttcore.handlers import Consumed
from mqttcore.identity import Quotas

NOW_MS = 1000
DURABLE: dict[int, object] = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}


class Door:
    """A listener."""

    name = "unit"
    allow_anonymous = True


class Client:
    """A client of MQTT 5 on a connection in memory."""

    def __init__(self, engine: Engine, client_id: str, connect: Connect | None = None) -> None:
        self.connection = Connection(engine, Door(), ("peer", 1))
        self.decoder = Decoder(5, sender="server")
        self.say(connect or Connect(client_id, clean_start=False, properties=DURABLE))
        assert type(self.hear()[0]).__name__ == "ConnAck"

    def say(self, *packets: Packet) -> None:
        self.connection.receive(b"".join(packet.encode(5) for packet in packets))

    def hear(self) -> list[Packet]:
        return self.decoder.feed(self.connection.take_output())

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self.say(Subscribe(1, [Subscription(topic_filter, qos)]))
        assert any(isinstance(packet, SubAck) for packet in self.hear())

    def leave(self) -> None:
        self.connection.connection_lost()


class Once:
    """A hook that does *action* when it is first called, and has no opinion."""

    def __init__(self) -> None:
        self.action: Callable[[], Any] | None = None

    def __call__(self, *_: object) -> None:
        action, self.action = self.action, None
        if action is not None:
            action()


def aliased(topic: str, payload: bytes, **properties: object) -> Publish:
    """A PUBLISH that names its topic by alias 1, which was set before."""
    said = {PropertyId[name.upper()]: value for name, value in properties.items()}
    return Publish(topic, payload, properties={**said, PropertyId.TOPIC_ALIAS: 1})


def payloads(packets: list[Packet]) -> list[tuple[str, bytes]]:
    return [(packet.topic, packet.payload) for packet in packets if isinstance(packet, Publish)]


# --- sessions that end ------------------------------------------------------------------------------------------------


def test_shared_messages_of_an_ended_session_find_room_when_the_total_is_reached():
    engine = Engine(Limits(queued_total_bytes_maximum=20_000, queue_drop="oldest"), now_ms=NOW_MS)
    for client_id in ("a", "b"):
        client = Client(engine, client_id)
        client.subscribe("$share/g/t")
        client.leave()
    for n in range(40):  # until the oldest makes room
        engine.advance(NOW_MS + n)
        engine.publish_bytes(b"t", b"x" * 900, 1)
    queued = engine.metrics()["queued"]
    session = engine.session("b")
    assert session is not None
    assert 0 < session.queued < queued < 40
    engine.discard_session("a")
    assert session.queued == queued
    assert engine.metrics()["queued"] == queued
    engine.discard_session("b")
    metrics = engine.metrics()
    assert (metrics["queued"], metrics["queued_bytes"]) == (0, 0)


def test_hook_that_discards_the_session_it_is_asked_about():
    hook = Once()
    engine = Engine(Limits(output_high_water_bytes=1024), HookTable(authorize_deliver=hook), now_ms=NOW_MS)
    client = Client(engine, "a")
    client.subscribe("t")
    for n in range(4):
        engine.publish_bytes(b"t", bytes([n]) * 2000, 1)
    hook.action = lambda: engine.discard_session("a")
    client.hear()
    assert client.connection.is_closed
    gc.collect()
    assert engine.metrics()["sessions"] == 0
    assert engine.metrics()["queued"] == 0


def test_handler_that_discards_the_session_whose_will_it_gets():
    engine = Engine(Limits(), now_ms=NOW_MS)
    found = []

    def discard(client: Any, message: Any) -> Consumed:
        found.append(engine.discard_session(client.client_id))
        return Consumed()

    engine.add_handler(b"will", discard)
    client = Client(engine, "a", Connect("a", clean_start=False, will=Will("will", b"x"), properties=DURABLE))
    client.leave()
    engine.flush()
    assert found == [True]
    assert engine.metrics()["sessions"] == 0
    gc.collect()
    engine.advance(NOW_MS + 2_000_000)  # no timer of it is left
    assert engine.metrics()["sessions"] == 0


# --- topics by alias --------------------------------------------------------------------------------------------------


def test_hook_that_disconnects_the_publisher_of_a_topic_alias():
    hook = Once()
    engine = Engine(Limits(topic_alias_maximum=3), HookTable(authorize_deliver=hook), now_ms=NOW_MS)
    subscribers = [Client(engine, client_id) for client_id in ("a", "b", "c")]
    for subscriber in subscribers:
        subscriber.subscribe("some/topic", 0)
    publisher = Client(engine, "p")
    publisher.say(aliased("some/topic", b"1"))
    hook.action = lambda: engine.disconnect("p", 0x98)
    publisher.say(aliased("", b"2"))
    assert publisher.connection.is_closed
    for subscriber in subscribers:
        assert payloads(subscriber.hear()) == [("some/topic", b"1"), ("some/topic", b"2")]


def test_tap_that_disconnects_the_publisher_of_a_topic_alias():
    callback = Once()
    engine = Engine(Limits(topic_alias_maximum=3), now_ms=NOW_MS)
    before, after = Client(engine, "a"), Client(engine, "b")
    before.subscribe("some/topic", 0)
    tap = Tap(engine, callback, messages_maximum=10, bytes_maximum=10_000)
    engine.add_tap(b"some/topic", tap)
    after.subscribe("some/topic", 0)
    publisher = Client(engine, "p")
    publisher.say(aliased("some/topic", b"1"))
    tap.take()
    callback.action = lambda: engine.disconnect("p", 0x98)
    publisher.say(aliased("", b"2"))
    assert publisher.connection.is_closed
    for subscriber in (before, after):
        assert payloads(subscriber.hear()) == [("some/topic", b"1"), ("some/topic", b"2")]
    assert [message.topic for message in tap.take()] == ["some/topic"]


def test_hook_that_lets_another_publisher_go_on():
    hook = Once()
    slow = Identity("slow", quotas=Quotas(messages_per_s=1))
    engine = Engine(
        Limits(topic_alias_maximum=3),
        HookTable(
            authenticate=lambda client, _: slow if client.client_id == "q" else None,
            authorize_publish=hook,
        ),
        now_ms=NOW_MS,
    )
    subscriber = Client(engine, "a")
    subscriber.subscribe("t/#", 0)
    other, publisher = Client(engine, "q"), Client(engine, "p")
    while not other.connection.is_paused:
        other.say(Publish("nowhere", b""))
    other.say(aliased("t/q", b"q", content_type="q" * 3000))
    publisher.say(aliased("t/p", b"1", content_type="p" * 20))
    subscriber.hear()
    hook.action = lambda: engine.set_identity("q", Identity("fast"))
    publisher.say(aliased("", b"2", content_type="p" * 20))
    heard = {
        (packet.topic, packet.properties[PropertyId.CONTENT_TYPE])
        for packet in subscriber.hear()
        if isinstance(packet, Publish)
    }
    assert heard == {("t/q", "q" * 3000), ("t/p", "p" * 20)}


def test_limits_that_allow_more_aliases_than_a_connection_was_told():
    engine = Engine(Limits(topic_alias_maximum=3), now_ms=NOW_MS)
    publisher = Client(engine, "p")
    publisher.say(aliased("t", b""))
    engine.set_limits(Limits(topic_alias_maximum=60_000))
    publisher.say(Publish("t", b"", properties={PropertyId.TOPIC_ALIAS: 50_000}))
    assert publisher.connection.close_reason == ReasonCode.TOPIC_ALIAS_INVALID


# --- torn packets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_hook_that_ends_a_pause_of_the_connection_whose_packet_it_is(size: int):
    slow = Identity("slow", quotas=Quotas(bytes_per_s=100))  # less than any packet: each pauses it
    engine = Engine(
        Limits(),
        HookTable(
            authenticate=lambda *_: slow,
            authorize_publish=lambda client, *_: None if engine.set_identity(client.client_id, slow) else False,
        ),
        now_ms=NOW_MS,
    )
    subscriber = Client(engine, "a")
    subscriber.subscribe("t", 0)
    publisher = Client(engine, "p")
    said = b"".join(Publish("t", bytes([n]) * 200).encode(5) for n in range(6))
    for at in range(0, len(said), size):
        publisher.connection.receive(said[at : at + size])
    assert [payload[0] for _, payload in payloads(subscriber.hear())] == list(range(6))
    assert not publisher.connection.is_paused


# --- identities -------------------------------------------------------------------------------------------------------


def test_hook_that_gives_the_publisher_another_identity():
    hook = Once()
    engine = Engine(Limits(), HookTable(authorize_publish=hook), now_ms=NOW_MS)
    tap = Tap(engine, list, messages_maximum=10, bytes_maximum=10_000)
    engine.add_tap(b"#", tap)
    with_will: dict[int, object] = {PropertyId.SESSION_EXPIRY_INTERVAL: 1}
    publisher = Client(engine, "p", Connect("p", will=Will("will", b""), properties=with_will))
    for end in (lambda: publisher.say(Publish("t", b"")), publisher.leave):
        engine.set_identity("p", Identity("before"))
        hook.action = lambda: engine.set_identity("p", Identity("after"))
        end()
    assert [(message.topic, message.client_id, message.identity_name) for message in tap.take()] == [
        ("t", "p", "before"),
        ("will", "p", "before"),
    ]


# --- rights that are taken away ---------------------------------------------------------------------------------------


def test_hook_that_disconnects_whose_messages_are_being_given_to_others():
    hook = Once()
    everything = Identity("user")
    nothing = Identity("user", permissions=())
    engine = Engine(
        Limits(),
        HookTable(authenticate=lambda *_: everything, authorize_deliver=hook),
        now_ms=NOW_MS,
    )
    client = Client(engine, "a")
    client.subscribe("$share/g/t")
    for n in range(20):
        engine.publish_bytes(b"t", bytes([n]), 1)
    client.leave()
    other = Client(engine, "b")
    other.subscribe("$share/g/t")
    few: dict[int, object] = {**DURABLE, PropertyId.RECEIVE_MAXIMUM: 2}
    client = Client(engine, "a", Connect("a", clean_start=False, properties=few))
    hook.action = lambda: engine.disconnect("a", 0x98)
    engine.set_identity("a", nothing)
    gc.collect()
    assert client.connection.is_closed
    while acknowledged := [PubAck(packet.packet_id) for packet in other.hear() if isinstance(packet, Publish)]:
        other.say(*acknowledged)
    session = engine.session("b")
    assert session is not None
    assert session.queued == session.in_flight == 0


def test_hook_that_disconnects_who_authenticates_anew():
    hook = Once()
    answers = [Identity("user"), Identity("user", permissions=())]
    engine = Engine(
        Limits(),
        HookTable(
            authenticate=lambda *_: Identity("user"),
            continue_authentication=lambda *_: answers[1],
            authorize_deliver=hook,
        ),
        now_ms=NOW_MS,
    )
    method: dict[int, object] = {PropertyId.AUTHENTICATION_METHOD: "m"}
    client = Client(
        engine, "a", Connect("a", clean_start=False, properties={**DURABLE, **method, PropertyId.RECEIVE_MAXIMUM: 1})
    )
    client.subscribe("$share/g/t")
    for n in range(5):
        engine.publish_bytes(b"t", bytes([n]), 1)
    other = Client(engine, "b")
    other.subscribe("$share/g/t")
    hook.action = lambda: engine.disconnect("a", 0x98)
    client.say(Auth(0x19, method))
    assert client.connection.is_closed
    assert engine.metrics()["sessions_connected"] == 1


# --- clients that are let in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean_start", [False, True])
@pytest.mark.parametrize("what", ["refuse", "discard"])
@pytest.mark.parametrize("when", ["will", "shared"])
def test_hook_that_changes_its_mind_about_who_is_being_let_in(when: str, what: str, clean_start: bool):
    hook = Once()
    clients: list[Any] = []
    named = [Identity("a"), Identity("a", permissions=())]
    engine = Engine(
        Limits(),
        HookTable(
            authenticate=lambda client, _: clients.append(client) or named[len(clients) > 2],
            authorize_deliver=hook if when == "shared" else None,
            authorize_publish=hook if when == "will" else None,
        ),
        now_ms=NOW_MS,
    )
    Client(engine, "b").subscribe("$share/g/t")
    first = Client(engine, "a", Connect("a", clean_start=True, will=Will("w", b""), properties=DURABLE))
    first.subscribe("$share/g/t")
    for n in range(6):
        engine.publish_bytes(b"t", bytes([n]), 1)
    if when == "shared":
        first.leave()
    hook.action = lambda: engine.refuse(clients[2], 0x87) if what == "refuse" else engine.discard_session("a")
    second = Connection(engine, Door(), ("peer", 1))
    second.receive(Connect("a", clean_start=clean_start, properties=DURABLE).encode(5))
    assert hook.action is None
    assert second.is_closed == (what == "refuse" or (when == "shared" and not clean_start))
    second.connection_lost()
    engine.disconnect("b", 0x98)
    engine.flush()
    engine.advance(NOW_MS + 3_000_000)
    engine.flush()
    gc.collect()
    metrics = engine.metrics()
    gauges = ("connections", "sessions", "sessions_connected", "subscriptions", "queued", "in_flight")
    assert [metrics[name] for name in gauges] == [0] * len(gauges)


# --- connections that never came to be --------------------------------------------------------------------------------


def test_connection_that_cannot_be_made():
    class Broken(Door):
        @property
        def connect_timeout_ms(self) -> int:
            raise OSError("no clock")

    engine = Engine(Limits(), now_ms=NOW_MS)
    make: Any = Connection
    with pytest.raises(OSError, match="no clock"):
        make(engine, Broken())
    for arguments in ((), (None,), (object(),)):
        with pytest.raises(TypeError):
            make(*arguments)
    gc.collect()
    assert engine.metrics()["connections"] == 0


# --- output -----------------------------------------------------------------------------------------------------------


def test_more_payloads_wait_than_sixteen_bits_count():
    engine = Engine(Limits(output_high_water_bytes=1 << 30), now_ms=NOW_MS)
    engine.set_retained(b"t", b"x" * 8192)
    client = Client(engine, "a")
    subscribe = Subscribe(1, [Subscription("t", 0)]).encode(5)
    for _ in range(70):
        client.connection.receive(subscribe * 1000)
    assert client.connection.pending_bytes > 0x8000 * 8192
    client.leave()
    engine.flush()
