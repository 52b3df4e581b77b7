"""Events: which, in what order, with what in them."""

from typing import Any

import pytest

from mqttcore.codec import Publish, Subscription
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.events import (
    ClientConnected,
    ClientDisconnected,
    ConnectionClosed,
    ConnectRefused,
    Event,
    MessageDropped,
    SessionEnded,
    Subscribed,
    Unsubscribed,
)

from .conftest import Start
from .harness import StreamPeer, World

EXPIRY = PropertyId.SESSION_EXPIRY_INTERVAL
LASTING = {"clean_start": False, "properties": {EXPIRY: 300}}
WALL_MS = 1_700_000_000_000


class Watch:
    """Takes the engine's events as a broker would."""

    def __init__(self, world: World, *kinds: type[Event], waiting_maximum: int = 1000) -> None:
        self.world = world
        self.wakes = 0
        world.engine.set_wall_clock(WALL_MS)
        world.engine.events.observe(kinds or (Event,), self._wake, waiting_maximum)

    def _wake(self) -> None:
        self.wakes += 1

    def take(self) -> list[Any]:
        """Return what happened since the last time."""
        return self.world.engine.events.take(self.world.engine.wall_clock_ms)


def shapes(events: list[Any]) -> list[tuple[Any, ...]]:
    """Return kinds and clients, in order."""
    return [(type(event), event.client_id) for event in events]


async def test_life_of_a_client(start: Start, any_version: int):
    world = await start()
    watch = Watch(world)
    peer = await world.connect("a", any_version, user_name="dora")
    await peer.subscribe("t/+", qos=1)
    await peer.disconnect()
    connected, subscribed, disconnected, closed, ended = watch.take()
    assert isinstance(connected, ClientConnected)
    assert (connected.client_id, connected.user_name, connected.identity_name) == ("a", "dora", None)
    assert (connected.protocol_version, connected.clean_start, connected.session_present) == (any_version, True, False)
    assert (connected.session_expiry_s, connected.keep_alive_s) == (0, 0)
    assert connected.time_ms >= WALL_MS
    assert connected.address is not None
    assert len(connected.connection_id) == 32
    assert int(connected.connection_id, 16)
    assert isinstance(subscribed, Subscribed)
    assert (subscribed.client_id, subscribed.topic_filter, subscribed.options) == ("a", "t/+", 1)
    assert isinstance(disconnected, ClientDisconnected)
    assert disconnected.reason_code == 0
    assert isinstance(closed, ConnectionClosed)
    assert (closed.reason_code, closed.reason) == (None, "disconnected by client")
    assert {e.connection_id for e in (connected, disconnected, closed)} == {connected.connection_id}
    assert {e.address for e in (connected, disconnected, closed)} == {connected.address}
    assert shapes([ended]) == [(SessionEnded, "a")]
    assert watch.wakes == 1


async def test_connection_ids_differ(start: Start):
    world = await start()
    watch = Watch(world, ClientConnected)
    for _ in range(3):
        await world.connect("a")
    assert len({event.connection_id for event in watch.take()}) == 3


async def test_closed_without_disconnect(start: Start, any_version: int):
    world = await start()
    watch = Watch(world, ConnectionClosed, ClientDisconnected)
    peer = await world.connect("a", any_version)
    if isinstance(peer, StreamPeer):
        peer.writer.close()
        peer.is_lost = True
        await world.until(lambda: world.metrics["connections"] == 0)  # type: ignore[attr-defined]
    else:
        await peer.lose()
    [closed] = watch.take()
    assert (closed.reason_code, closed.reason) == (None, "closed by client")


@pytest.mark.parametrize("start", ["tcp", "stream"], indirect=True)
async def test_connection_lost(start: Start):
    world = await start()
    watch = Watch(world, ConnectionClosed)
    peer = await world.connect("a")
    assert isinstance(peer, StreamPeer)
    sock = peer.writer.get_extra_info("socket")
    sock.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0: a reset
    await peer.lose()
    [closed] = watch.take()
    assert (closed.reason_code, closed.reason) == (None, "connection lost")


async def test_takeover(start: Start, any_version: int):
    world = await start()
    await world.connect("a", any_version, clean_start=False)
    watch = Watch(world)
    await world.connect("a", any_version, clean_start=True)
    closed, *rest = watch.take()
    assert isinstance(closed, ConnectionClosed)
    assert (closed.reason_code, closed.reason) == (ReasonCode.SESSION_TAKEN_OVER, "session taken over")
    assert shapes(rest) == [(SessionEnded, "a"), (ClientConnected, "a")]
    assert not rest[-1].session_present


async def test_takeover_that_resumes(start: Start):
    world = await start()
    await world.connect("a", **LASTING)
    watch = Watch(world)
    await world.connect("a", session_present=True, **LASTING)
    events = watch.take()
    assert shapes(events) == [(ConnectionClosed, "a"), (ClientConnected, "a")]
    assert events[-1].session_present
    assert events[-1].session_expiry_s == 300


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ReasonCode.ADMINISTRATIVE_ACTION, "administrative action"),
        (ReasonCode.NOT_AUTHORIZED, "not authorized"),
        (ReasonCode.SERVER_SHUTTING_DOWN, "server shutting down"),
    ],
)
async def test_closed_by_us(start: Start, code: int, reason: str):
    world = await start()
    watch = Watch(world, ConnectionClosed)
    await world.connect("a")
    world.engine.disconnect("a", code, "in detail")
    [closed] = watch.take()
    assert (closed.reason_code, closed.reason, closed.detail) == (code, reason, "in detail")


async def test_keep_alive(start_clocked: Start):
    world = await start_clocked()
    watch = Watch(world, ConnectionClosed)
    await world.connect("a", keep_alive_s=10)
    world.advance(15_001)
    [closed] = watch.take()
    assert (closed.reason_code, closed.reason) == (ReasonCode.KEEP_ALIVE_TIMEOUT, "keep alive timeout")
    assert closed.time_ms == WALL_MS + 15_001


async def test_protocol_error(start: Start):
    world = await start()
    watch = Watch(world, ConnectionClosed)
    peer = await world.connect("a")
    await peer.send(b"\x20\x02\x00\x00")
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    [closed] = watch.take()
    assert closed.reason == "protocol error"
    assert "packet type 2" in closed.detail


async def test_session_that_expires(start_clocked: Start):
    world = await start_clocked()
    watch = Watch(world)
    peer = await world.connect("a", **LASTING)
    await peer.disconnect()
    assert shapes(watch.take())[-1] == (ConnectionClosed, "a")
    world.advance(300_001)
    assert shapes(watch.take()) == [(SessionEnded, "a")]


async def test_refused_connects(start: Start):
    world = await start(client_id_bytes_maximum=23)
    watch = Watch(world)
    for version in (5, 4):
        peer = await world.open(version)
        await peer.connect("x" * 24, expect=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, user_name="eve")
        await peer.expect_closed()
    peer = await world.open(5)
    await peer.send(b"\x10\x0d\x00\x04MQTT\x05\x01\x00\x00\x00\x00\x00")  # reserved flag
    await peer.receive()
    first, second, third = watch.take()
    assert {type(event) for event in (first, second, third)} == {ConnectRefused}
    assert (first.client_id, first.user_name, first.reason_code) == ("x" * 24, "eve", 0x85)
    assert first.reason == "client id over 23 bytes"
    assert second.reason_code == 0x85
    assert (third.client_id, third.reason_code) == ("", 0x81)


async def test_not_mqtt_at_all_is_no_event(start: Start):
    world = await start()
    watch = Watch(world)
    peer = await world.open(5)
    await peer.send(b"GET / HTTP/1.1\r\n")
    await peer.expect_closed()
    assert watch.take() == []


async def test_subscriptions(start: Start):
    world = await start(maximum_qos=1)
    watch = Watch(world, Subscribed, Unsubscribed)
    peer = await world.connect("a")
    await peer.subscribe(Subscription("t", 1, no_local=True), subscription_id=7)
    await peer.subscribe(Subscription("t", 0))
    world.engine.subscribe_client("a", b"u", 2, 0)
    assert world.engine.unsubscribe_client("a", b"t") == 0
    assert world.engine.unsubscribe_client("a", b"t") == 0x11
    await peer.disconnect()
    events = watch.take()
    assert [(type(e), e.topic_filter) for e in events] == [
        (Subscribed, "t"),
        (Subscribed, "t"),
        (Subscribed, "u"),
        (Unsubscribed, "t"),
    ]
    assert [(e.options, e.subscription_id) for e in events[:3]] == [(0b101, 7), (0, 0), (1, 0)]


async def test_dropped_messages_are_summed_up_behind_the_others(start: Start):
    world = await start(queued_messages_maximum=2, authorization=Authorization(refused_publish="drop"))
    peer = await world.connect("b", **LASTING)
    await peer.subscribe("t")
    await peer.disconnect()
    watch = Watch(world)
    publisher = await world.connect("a")
    for _ in range(5):
        await publisher.publish("t", qos=1)
    await publisher.send(Publish("$SYS/x"), Publish("$SYS/x"))
    await publisher.disconnect()
    events = watch.take()
    assert [type(event) for event in events[-2:]] == [MessageDropped, MessageDropped]
    assert [(e.client_id, e.reason, e.count) for e in events[-2:]] == [
        ("b", "queue_full", 3),
        ("a", "not_authorized", 2),
    ]
    assert {type(event) for event in events[:-2]} == {
        ClientConnected,
        ClientDisconnected,
        ConnectionClosed,
        SessionEnded,
    }
    assert world.engine.discard_session("b")
    ended, dropped = watch.take()
    assert isinstance(ended, SessionEnded)
    assert (dropped.client_id, dropped.reason, dropped.count) == ("b", "session_ended", 2)


async def test_only_what_is_observed_is_recorded(start: Start):
    world = await start()
    watch = Watch(world, Subscribed)
    peer = await world.connect("a")
    await peer.subscribe("t")
    await peer.disconnect()
    assert shapes(watch.take()) == [(Subscribed, "a")]
    world.engine.events.observe((), None, 0)
    await world.connect("b")
    assert watch.take() == []
    assert world.metrics["events_dropped"] == 0


async def test_what_waits_is_bounded(start: Start):
    world = await start()
    watch = Watch(world, waiting_maximum=3)
    for _ in range(2):
        peer = await world.connect("a")
        await peer.disconnect()
    assert len(watch.take()) == 3
    assert world.metrics["events_dropped"] == 5


async def test_events_of_others_stand_in_their_place(start: Start):
    world = await start()
    watch = Watch(world)
    await world.connect("a")
    mine = SessionEnded(time_ms=1, client_id="mine")
    world.engine.events.put(mine)
    await world.connect("b")
    assert [event.client_id for event in watch.take()] == ["a", "mine", "b"]
    world.engine.events.observe((), None, 0)
    world.engine.events.put(mine)
    assert watch.take() == []


async def test_observer_that_raises_does_no_harm(start: Start):
    world = await start()
    world.engine.events.observe((Event,), lambda: 1 // 0, 10)
    await (await world.connect("a")).disconnect()
    assert len(world.engine.events.take(0)) == 4
