"""Watching a client, an address or a topic: what is told, in what order, and that nobody else notices."""

import base64
import logging
from typing import Any

import msgspec
import pytest

from mqttcore import trace_entries as te
from mqttcore.codec import Auth, Connect, Publish, PubRel, Subscription, Will
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.engine.watch import Watch
from mqttcore.handlers import CONSUMED, Recipients
from mqttcore.identity import Action, Challenge, Identity, Permission, Refusal

from .conftest import Start
from .harness import World

WALL_MS = 1_700_000_000_000
LASTING = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 300}}


class Sight:
    """What one watch sees."""

    def __init__(self, world: World, subject: Any, value: str, **options: Any) -> None:
        self.world = world
        self.entries: list[Any] = []
        self.failures: list[Exception] = []
        world.engine.set_wall_clock(WALL_MS)
        self.watch = Watch(subject, value, self._put, self.failures.append, **options)
        world.engine.add_watch(self.watch)
        world.engine.watch_sessions(world.engine.sessions())

    def close(self) -> None:
        """See nothing more."""
        self.world.engine.remove_watch(self.watch)
        self.world.engine.free_connections(self.world.engine.watched_connections())

    def _put(self, entry: te.Entry) -> None:
        self.entries.append(entry)

    def take(self) -> list[Any]:
        """Return what was seen since the last time."""
        seen, self.entries = self.entries, []
        return seen


def short(entry: Any) -> tuple[Any, ...]:
    """Return an entry as its kind and what tells it from others of the kind."""
    if isinstance(entry, te.PacketSeen):
        return (entry.direction, entry.packet_type)
    return (type(entry).__name__,)


def shapes(entries: list[Any]) -> list[tuple[Any, ...]]:
    return [short(entry) for entry in entries]


async def test_life_of_a_client(start: Start, any_version: int):
    world = await start()
    sight = Sight(world, "client_id", "a")
    other = await world.connect("b", any_version)
    peer = await world.connect("a", any_version, user_name="dora", password=b"secret")
    await peer.subscribe("t/+", qos=1)
    await other.send(Publish("t/1", b"hello", qos=1, packet_id=9))
    await peer.receive_publish()
    await peer.send(Publish("nowhere", b"x"))
    await peer.expect_nothing()
    await peer.disconnect()
    entries = sight.take()
    assert shapes(entries) == [
        ("ConnectionOpened",),
        ("in", "connect"),
        ("SessionOpened",),
        ("out", "connack"),
        ("in", "subscribe"),
        ("Subscribed",),
        ("out", "suback"),
        ("out", "publish"),
        ("in", "puback"),
        ("in", "publish"),
        ("Published",),
        ("in", "pingreq"),
        ("out", "pingresp"),
        ("in", "disconnect"),
        ("ConnectionClosed",),
        ("SessionEnded",),
    ]
    opened, connect, session, connack, subscribe, subscribed, suback, sent, _, came, published, *_, closed, _ = entries
    assert opened.address is not None
    assert (connect.user_name, connect.has_password, connect.protocol_version) == ("dora", True, any_version)
    assert (session.identity_name, session.session_present, session.queued) == (None, False, 0)
    assert connack.reason_codes == [0]
    assert (subscribe.topic_filters, subscribe.options) == (["t/+"], [1])
    assert (subscribed.topic_filter, subscribed.options) == ("t/+", 1)
    assert (suback.packet_id, suback.reason_codes) == (subscribe.packet_id, [1])
    assert (sent.topic, sent.qos, sent.payload_bytes, sent.payload_base64) == ("t/1", 1, 5, None)
    assert sent.packet_id
    assert (came.topic, came.qos, came.retain, came.payload_bytes) == ("nowhere", 0, False, 1)
    assert (published.topic, published.recipients, published.client_id) == ("nowhere", 0, "a")
    assert closed.reason == "disconnected by client"
    assert {entry.client_id for entry in entries} == {"a"}
    assert {entry.connection for entry in entries[:-1]} == {opened.connection}
    assert all(entry.time_ms >= WALL_MS for entry in entries)
    assert not sight.failures
    assert b"secret" not in msgspec.json.encode(entries)


async def test_client_that_is_there_already(start: Start):
    world = await start()
    peer = await world.connect("a", **LASTING)
    await peer.subscribe("t", qos=1)
    sight = Sight(world, "client_id", "a")
    await peer.expect_nothing()
    await peer.lose()
    await (await world.connect("b")).publish("t", qos=1)
    back = await world.connect("a", session_present=True, **LASTING)
    await back.receive_publish()
    sight.close()
    await back.expect_nothing()
    assert shapes(sight.take()) == [
        ("ConnectionOpened",),
        ("in", "pingreq"),
        ("out", "pingresp"),
        ("ConnectionClosed",),
        ("MessageQueued",),
        ("ConnectionOpened",),
        ("in", "connect"),
        ("SessionOpened",),
        ("out", "connack"),
        ("out", "publish"),
        ("in", "puback"),
    ]
    assert world.engine.discard_session("a")
    assert not sight.take()


async def test_messages_of_a_topic_and_who_gets_them(start: Start, version: int):
    world = await start()
    sight = Sight(world, "topic_filter", "t/#", payload_bytes=3)
    one, two, three = [await world.connect(name, version) for name in ("one", "two", "three")]
    await one.subscribe("t/+", qos=0)
    await two.subscribe("#", qos=1)
    await three.subscribe("$share/g/t/x", qos=0)
    await one.publish("u", b"other")
    await two.receive_publish()
    await two.publish("t/x", b"hello", qos=1, retain=True)
    for peer in (one, two, three):
        await peer.receive_publish()
    assert world.engine.publish_bytes(b"t/y", b"") == 2
    published, *sent, own, first, second = sight.take()
    assert (published.topic, published.client_id, published.recipients) == ("t/x", "two", 3)
    assert (published.qos, published.retain, published.payload_bytes) == (1, True, 5)
    assert base64.b64decode(published.payload_base64) == b"hel"
    assert {(one.client_id, one.qos, one.payload_base64) for one in sent} == {
        ("one", 0, published.payload_base64),
        ("two", 1, published.payload_base64),
        ("three", 0, published.payload_base64),
    }
    assert (own.client_id, own.recipients, own.payload_base64) == (None, 2, "")
    assert {first.client_id, second.client_id} == {"one", "two"}
    late = await world.connect("late", version)
    await late.subscribe("t/#")
    await late.receive_publish()
    assert [(one.client_id, one.topic, one.retain) for one in sight.take()] == [("late", "t/x", True)]
    sight.close()
    await two.publish("t/x", qos=1)
    assert not sight.take()


async def test_why_a_subscriber_does_not_get_a_message(start: Start):
    world = await start(queued_messages_maximum=1)
    sight = Sight(world, "topic_filter", "t")
    away = await world.connect("away", **LASTING)
    await away.subscribe("t", qos=1)
    await away.lose()
    peer = await world.connect("peer")
    await peer.subscribe(Subscription("t", 1, no_local=True))
    small = await world.connect("small", properties={PropertyId.MAXIMUM_PACKET_SIZE: 20})
    await small.subscribe("t", qos=0)
    await peer.publish("t", b"x" * 30)
    await peer.publish("t", qos=1)
    await peer.publish("t", qos=1)
    seen = [
        (entry.client_id, short(entry)[-1], getattr(entry, "reason", None))
        for entry in sight.take()
        if not isinstance(entry, te.Published) and entry.client_id != "small"
    ]
    assert ("away", "MessagePassedBy", "away") in seen
    assert seen.count(("peer", "MessagePassedBy", "no_local")) == 3
    assert seen.count(("away", "MessageQueued", None)) == 2
    assert ("away", "MessageDropped", "queue_full") in seen
    sight.world.engine.discard_session("away")
    [ended] = sight.take()
    assert (ended.client_id, ended.reason, ended.topic) == ("away", "session_ended", "t")


async def test_too_large_for_the_receiver(start: Start):
    world = await start()
    sight = Sight(world, "topic_filter", "t")
    small = await world.connect("small", properties={PropertyId.MAXIMUM_PACKET_SIZE: 20})
    await small.subscribe("t", qos=1)
    world.engine.publish_bytes(b"t", b"x" * 30, 1)
    _, dropped = sight.take()
    assert (dropped.client_id, dropped.reason, dropped.topic, dropped.count) == ("small", "too_large", "t", 1)


async def test_message_waits_and_expires(start_clocked: Start):
    world = await start_clocked()
    sight = Sight(world, "topic_filter", "t")
    away = await world.connect("away", **LASTING)
    await away.subscribe("t", qos=1)
    await away.lose()
    world.engine.publish_bytes(b"t", b"", 1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 1})
    world.advance(2000)
    await world.connect("away", session_present=True, **LASTING)
    *_, dropped = sight.take()
    assert (dropped.client_id, dropped.reason, dropped.topic) == ("away", "expired", "t")


async def test_clients_of_an_address(start: Start):
    world = await start()
    seen: list[Any] = []

    def covers(address: Any) -> bool:
        seen.append(address)
        return True

    there = await world.connect("there")
    sight = Sight(world, "address", "127.0.0.1", covers=covers)
    stranger = await world.open()
    await stranger.send(b"\x10\x80\x80\x80\x80\x80")
    await stranger.expect_closed()
    await world.connect("new")
    await there.expect_nothing()
    entries = sight.take()
    assert seen
    assert shapes(entries) in (
        [
            ("ConnectionOpened",),
            ("ConnectionOpened",),
            ("ProtocolBroken",),
            ("ConnectionClosed",),
            ("ConnectionOpened",),
            *[("in", "connect"), ("SessionOpened",), ("out", "connack")],
            *[("in", "pingreq"), ("out", "pingresp")],
        ],
        [  # without a network nobody says where a connection is from before its CONNECT
            ("ConnectionOpened",),
            ("ConnectionOpened",),
            *[("in", "connect"), ("SessionOpened",), ("out", "connack")],
            *[("in", "pingreq"), ("out", "pingresp")],
        ],
    )
    assert len({entry.connection for entry in entries}) == len(
        [1 for one in entries if short(one)[0] == "ConnectionOpened"]
    )


async def test_refused_and_why(start_clocked: Start):
    world = await start_clocked(hooks=HookTable(authenticate=lambda client, connect: Refusal(0x86, "no such user")))
    sight = Sight(world, "client_id", "a")
    peer = await world.open()
    await peer.connect("a", expect=ReasonCode.BAD_USER_NAME_OR_PASSWORD, password=b"secret")
    assert shapes(entries := sight.take()) == [
        ("ConnectionOpened",),
        ("in", "connect"),
        ("out", "connack"),
        ("ConnectRefused",),
        ("ConnectionClosed",),
    ]
    assert (entries[3].reason_code, entries[3].reason) == (0x86, "no such user")
    assert entries[2].properties == ["reason_string"]


@pytest.mark.parametrize(("level", "code"), [(6, 0x84), (0x85, 0x84), (9, 0x84), (2, 0x84)])
async def test_refused_in_another_version(start: Start, level: int, code: int):
    world = await start()
    peer = await world.open(5 if level & 0x7F > 4 else 4)
    sight = Sight(world, "address", "", covers=lambda address: True)
    if hasattr(world, "until"):  # it opened before the watch began, so it is found by its CONNECT alone
        await peer.lose()
        peer = await world.open(5 if level & 0x7F > 4 else 4)
    await peer.send(b"\x10\x0d\x00\x04MQTT" + bytes([level]) + b"\x02\x00\x00\x00\x01a")
    answer = await peer.receive()
    assert answer.reason_code in (code, 1)
    if hasattr(world, "until"):
        await world.until(lambda: any(isinstance(one, te.ConnectionClosed) for one in sight.entries))
        [connack] = [one for one in sight.entries if isinstance(one, te.PacketSeen)]
        assert connack.reason_codes == [code]
    assert not sight.failures


async def test_authentication_data_is_not_seen(start_clocked: Start):
    answers = iter([Challenge(b"secret1"), Identity("ann")])
    ask = lambda client, packet: next(answers)  # noqa: E731
    world = await start_clocked(hooks=HookTable(authenticate=ask, continue_authentication=ask))
    sight = Sight(world, "client_id", "a", payload_bytes=100)
    peer = await world.open()
    method = {PropertyId.AUTHENTICATION_METHOD: "m"}
    data = method | {PropertyId.AUTHENTICATION_DATA: b"secret2"}
    await peer.send(Connect("a", properties=data, will=Will("w", b"secret3"), keep_alive_s=0))
    await peer.receive()
    await peer.send(Auth(0x18, method | {PropertyId.AUTHENTICATION_DATA: b"secret4"}))
    await peer.receive()
    await peer.send(Publish("$token/upload", b"secret5"))
    await peer.send(
        Publish("a", b"seen", properties={PropertyId.TOPIC_ALIAS: 1, PropertyId.USER_PROPERTY: [("k", "secret6")]})
    )
    await peer.send(Publish("", b"hidden", properties={PropertyId.TOPIC_ALIAS: 1}))
    await peer.expect_nothing()
    text = msgspec.json.encode(entries := sight.take())
    assert b"secret" not in text
    for number in range(1, 7):
        assert base64.b64encode(f"secret{number}".encode()).rstrip(b"=")[:8] not in text
    assert base64.b64encode(b"seen") in text
    packets = [entry for entry in entries if isinstance(entry, te.PacketSeen)]
    assert packets[1].properties == ["authentication_method", "authentication_data"]
    assert (packets[0].topic, packets[0].payload_bytes) == ("w", 7)
    [aliased] = [one for one in packets if one.topic == "" and one.topic_alias]
    assert aliased.payload_base64 is None
    assert [one.topic for one in entries if isinstance(one, te.Published)][1:] == ["a", "a"]


async def test_broken_packets_are_named(start: Start, version: int):
    world = await start()
    sight = Sight(world, "client_id", "a")
    peer = await world.connect("a", version)
    sight.take()
    await peer.send(b"\x32\x05\x00\x01t\x00\x00")  # packet id 0
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR if version == 5 else None)
    entries = sight.take()
    assert shapes(entries)[:2] == [("in", "publish"), ("ProtocolBroken",)]
    assert (entries[0].size_bytes, entries[0].topic) == (7, None)
    assert entries[1].clause
    closed = next(one for one in entries if isinstance(one, te.ConnectionClosed))
    assert closed.reason_code == entries[1].reason_code
    assert closed.detail == entries[1].text


async def test_publish_that_is_refused(start_clocked: Start, version: int):
    world = await start_clocked(
        hooks=HookTable(authenticate=lambda client, connect: Identity("user")),
        authorization=Authorization(refused_publish="drop"),
    )
    mine = Sight(world, "client_id", "a")
    topic = Sight(world, "topic_filter", "no/+")
    peer = await world.connect("a", version, will=Will("no/will", b"x"))
    world.engine.set_identity("a", Identity("user", (Permission(Action.PUBLISH, "yes"),)))
    await peer.publish("no/1", b"12", qos=1)
    await peer.publish("yes", qos=0)
    await peer.lose()
    [refused, will] = topic.take()
    assert (refused.client_id, refused.topic, refused.reason_code, refused.payload_bytes) == ("a", "no/1", 0x87, 2)
    assert (will.client_id, will.topic, will.reason_code) == ("a", "no/will", 0x87)
    assert [one for one in mine.take() if isinstance(one, te.PublishRefused)] == [refused, will]


async def test_publish_that_a_handler_takes(start: Start):
    world = await start()
    answers: Any = iter([CONSUMED, Recipients(["b"])])
    handler = world.engine.add_handler(b"h", lambda client, message: next(answers))
    sight = Sight(world, "topic_filter", "h")
    peer, other = await world.connect("a"), await world.connect("b")
    await peer.publish("h", b"1")
    await peer.publish("h", b"2")
    await other.receive_publish()
    world.engine.remove_handler(handler)
    taken, sent, again = sight.take()
    assert (taken.client_id, taken.topic, taken.reason_code) == ("a", "h", 0)
    assert (sent.client_id, sent.direction, sent.topic) == ("b", "out", "h")
    assert isinstance(again, te.PublishTaken)


async def test_what_a_client_does_not_read(start: Start):
    world = await start(messages_per_s=1.0)
    sight = Sight(world, "client_id", "a")
    peer = await world.connect("a")
    for _ in range(3):
        await peer.send(Publish("t"))
    if hasattr(world, "until"):
        await world.until(lambda: any(isinstance(one, te.ConnectionPaused) for one in sight.entries))
    paused = next(one for one in sight.take() if isinstance(one, te.ConnectionPaused))
    assert paused.reason == "rate"


async def test_entries_over_the_rate_are_counted(start_clocked: Start):
    world = await start_clocked()
    sight = Sight(world, "client_id", "a", entries_per_s=20)
    peer = await world.connect("a")
    for _ in range(100):
        await peer.publish("t")
    await peer.disconnect()
    entries = sight.take()
    assert len(entries) == 20
    assert isinstance(entries[-1], te.SessionEnded)  # a little room is left for what is rare
    assert sight.watch.skipped > 100
    world.advance(1000)
    await world.connect("a")
    assert len(sight.take()) == 4


async def test_failure_ends_the_watch_alone(start: Start, caplog: pytest.LogCaptureFixture):
    world = await start()
    sight = Sight(world, "client_id", "a")
    broken = Sight(world, "client_id", "a")
    error = ValueError("no room")

    def put(entry: te.Entry) -> None:
        raise error

    broken._put = put  # type: ignore[method-assign]
    broken.close()
    broken.watch = Watch("client_id", "a", put, broken.failures.append)
    world.engine.add_watch(broken.watch)
    with caplog.at_level(logging.ERROR):
        peer = await world.connect("a")
        await peer.publish("t", qos=1)
    assert broken.failures == [error]
    assert broken.watch.is_over
    assert ("in", "publish") in shapes(sight.take())


async def test_failing_address_ends_the_watch_alone(start: Start):
    world = await start()
    sight = Sight(world, "address", "x", covers=lambda address: 1 // 0)
    await (await world.connect("a")).publish("t", qos=1)
    assert isinstance(sight.failures[0], ZeroDivisionError)
    assert len(sight.failures) == 1


async def test_qos_2_to_the_end(start: Start, version: int):
    world = await start()
    sight = Sight(world, "client_id", "a")
    peer = await world.connect("a", version)
    sight.take()
    await peer.publish("t", qos=2, packet_id=7)
    await peer.send(PubRel(99))
    await peer.receive()
    packets = [one for one in sight.take() if isinstance(one, te.PacketSeen)]
    assert [(*short(one), one.packet_id) for one in packets] == [
        ("in", "publish", 7),
        ("out", "pubrec", 7),
        ("in", "pubrel", 7),
        ("out", "pubcomp", 7),
        ("in", "pubrel", 99),
        ("out", "pubcomp", 99),
    ]
    assert packets[1].reason_codes == ([0x10] if version == 5 else [0])
    assert packets[-1].reason_codes == ([0x92] if version == 5 else [0])


async def test_nobody_is_watched_any_more(start: Start):
    world = await start()
    peer = await world.connect("a", **LASTING)
    sights = [
        Sight(world, "client_id", "a"),
        Sight(world, "topic_filter", "#"),
        Sight(world, "address", "", covers=bool),
    ]
    for sight in sights:
        sight.close()
        sight.close()
        sight.take()
    assert world.engine.watched_connections() == []
    await peer.publish("t", qos=1)
    await world.connect("b")
    assert not any(sight.take() for sight in sights)
    assert not world.engine.is_watched


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "x" * 65536])
async def test_filter_that_is_none(start_clocked: Start, topic_filter: str):
    world = await start_clocked()
    with pytest.raises(ValueError, match="no Topic Filter"):
        Sight(world, "topic_filter", topic_filter)
    world.engine.publish_bytes(b"t", b"")
