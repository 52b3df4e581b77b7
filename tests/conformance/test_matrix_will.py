"""Whether and when a will is published: every end of a connection, Will Delay Interval and session expiry crossed."""

from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import FOREVER_MS, NEVER_S, Peer, World
from mqttcore.codec import Disconnect, Publish, Will
from mqttcore.constants import PropertyId, ReasonCode

from .v5_wire import expect_silence

KEEP_ALIVE_S = 4
RESUME = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: NEVER_S}}

# how the connection ends: whether the will stays with the session then, with its delay
KEEPS_WILL = ["cut", "DISCONNECT 0x04", "DISCONNECT 0x80", "keep alive", "malformed", "closed by the server"]
ENDINGS = [*KEEPS_WILL, "DISCONNECT 0x00", "takeover", "takeover, clean start"]
DELAYS_S = [0, 3, 30, NEVER_S]
EXPIRIES_S = [0, 3, 60, NEVER_S]


async def end(world: World, peer: Peer, ending: str) -> None:
    """End the connection of client `c`, at this moment of the clock but for the keep alive."""
    if ending == "cut":
        await peer.lose()
    elif ending.startswith("DISCONNECT"):
        await peer.disconnect(int(ending.split()[1], 16))
    elif ending == "keep alive":
        world.advance(KEEP_ALIVE_S * 1500)
        await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)
    elif ending == "malformed":
        await peer.send(b"\x00\x00")
        await peer.expect_closed(ReasonCode.MALFORMED_PACKET)
    elif ending == "closed by the server":
        assert world.engine.disconnect("c", ReasonCode.ADMINISTRATIVE_ACTION)
        await peer.expect_closed(ReasonCode.ADMINISTRATIVE_ACTION)
    else:
        fields: dict[str, Any] = {**RESUME, "clean_start": ending.endswith("clean start")}
        session = world.engine.session("c")
        present = not fields["clean_start"] and session.session_expiry_s > 0
        await world.connect("c", session_present=present, **fields)
        await peer.expect_closed(ReasonCode.SESSION_TAKEN_OVER)


def due_s(ending: str, delay_s: int, expiry_s: int) -> int | None:
    """Return how long after its end the will of a connection is due, by §3.1.2.5 and §3.1.3.2.2; None: never."""
    if ending == "DISCONNECT 0x00":
        return None
    if ending == "takeover" and delay_s and expiry_s:
        return None  # the session has a connection again before the delay is over
    if ending.startswith("takeover"):
        return 0  # no delay, or the session has ended
    due = min(delay_s, expiry_s)
    return None if due == NEVER_S else due


def will(delay_s: int, **fields: Any) -> Will:
    properties = {PropertyId.WILL_DELAY_INTERVAL: delay_s} if delay_s else {}
    return Will("will/c", b"gone", properties={**properties, **fields.pop("properties", {})}, **fields)


async def watcher(world: World) -> Peer:
    """Return a client that sees all wills."""
    reader = await world.connect("r")
    await reader.subscribe("will/#")
    return reader


@pytest.mark.mqtt5("3.1.2-7", "3.1.2-8", "3.1.2-10", "3.1.3-9")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize("expiry_s", EXPIRIES_S)
async def test_will_is_published_when_it_is_due_and_once(
    start_clocked: Start, ending: str, delay_s: int, expiry_s: int
):
    world = await start_clocked(session_expiry_maximum_s=NEVER_S)
    reader = await watcher(world)
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s}
    peer = await world.connect("c", will=will(delay_s), keep_alive_s=KEEP_ALIVE_S, properties=properties)
    await end(world, peer, ending)
    due = due_s(ending, delay_s, expiry_s)
    if due:
        world.advance(due * 1000 - 200)
        await expect_silence(reader)
        world.advance(300)
    if due is not None:
        await reader.expect(Publish("will/c", b"gone"))
    world.advance(FOREVER_MS)
    await expect_silence(reader)


@pytest.mark.mqtt5("3.1.2-8", "3.1.3-9")
@pytest.mark.parametrize("ending", KEEPS_WILL)
@pytest.mark.parametrize("after_s", [0, 5, 15])
@pytest.mark.parametrize("clean_start", [False, True], ids=["resume", "clean"])
@pytest.mark.parametrize("has_will", [False, True], ids=["without will", "with will"])
async def test_next_connection_within_the_delay_decides(
    start_clocked: Start, ending: str, after_s: int, clean_start: bool, has_will: bool
):
    world = await start_clocked()
    reader = await watcher(world)
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 60}
    peer = await world.connect("c", will=will(10), keep_alive_s=KEEP_ALIVE_S, properties=properties)
    await end(world, peer, ending)
    world.advance(after_s * 1000)
    if after_s >= 10:
        await reader.expect(Publish("will/c", b"gone"))
    again = await world.connect(
        "c",
        session_present=not clean_start,
        clean_start=clean_start,
        properties=properties,
        will=Will("will/new", b"too") if has_will else None,
    )
    if clean_start and after_s < 10:
        await reader.expect(Publish("will/c", b"gone"))  # the session ended
    world.advance(1_000_000)
    await expect_silence(reader)
    await again.lose()
    if has_will:
        await reader.expect(Publish("will/new", b"too"))  # and the old one is forgotten
    world.advance(FOREVER_MS)
    await expect_silence(reader)


@pytest.mark.parametrize("delay_s", [0, 10])
@pytest.mark.parametrize("changed_s", [0, 5, 60])
async def test_expiry_changed_by_disconnect_0x04_counts_for_the_will(
    start_clocked: Start, delay_s: int, changed_s: int
):
    world = await start_clocked()
    reader = await watcher(world)
    peer = await world.connect("c", will=will(delay_s), properties={PropertyId.SESSION_EXPIRY_INTERVAL: 30})
    await peer.disconnect(4, {PropertyId.SESSION_EXPIRY_INTERVAL: changed_s})
    due = min(delay_s, changed_s)
    if due:
        world.advance(due * 1000 - 200)
        await expect_silence(reader)
        world.advance(300)
    await reader.expect(Publish("will/c", b"gone"))
    world.advance(FOREVER_MS)
    await expect_silence(reader)


@pytest.mark.mqtt5("3.1.2-12", "3.1.2-14", "3.1.2-15", "3.1.3-10")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("delay_s", [0, 10])
async def test_will_keeps_qos_retain_and_properties(start_clocked: Start, qos: int, retain: bool, delay_s: int):
    world = await start_clocked()
    reader = await watcher(world)
    properties = {
        PropertyId.CONTENT_TYPE: "x",
        PropertyId.CORRELATION_DATA: b"\x00",
        PropertyId.USER_PROPERTY: [("b", "1"), ("a", "2"), ("b", "1")],
    }
    peer = await world.connect("c", will=will(delay_s, qos=qos, retain=retain, properties=properties), **RESUME)
    await peer.lose()
    assert world.metrics["retained"] == (retain and not delay_s)
    world.advance(10_100)
    message = await reader.receive_publish()
    assert (message.qos, message.retain, message.properties) == (qos, False, properties)
    late = await world.connect("late")
    await late.subscribe("will/c")
    if retain:
        message = await late.receive_publish()
        assert (message.payload, message.qos, message.retain, message.properties) == (b"gone", qos, True, properties)
    await late.expect_nothing()


@pytest.mark.parametrize("delay_s", [0, 10])
@pytest.mark.parametrize(("away_s", "left_s"), [(0, 5), (3, 2), (6, None)])
async def test_message_expiry_of_a_will_starts_when_it_is_published(
    start_clocked: Start, delay_s: int, away_s: int, left_s: int | None
):
    world = await start_clocked()
    reader = await world.connect("r", **RESUME)
    await reader.subscribe("will/#")
    await reader.lose()
    expiring = will(delay_s, qos=1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 5})
    peer = await world.connect("c", will=expiring, **RESUME)
    world.advance(100_000)
    await peer.lose()
    world.advance(delay_s * 1000)
    world.advance(away_s * 1000)
    reader = await world.connect("r", **RESUME, session_present=True)
    if left_s is not None:
        assert (await reader.receive_publish()).properties == {PropertyId.MESSAGE_EXPIRY_INTERVAL: left_s}
    await reader.expect_nothing()


@pytest.mark.parametrize("clean_session", [False, True])
@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("ending", ["DISCONNECT", "cut", "keep alive", "malformed", "closed by the server", "takeover"])
async def test_will_before_mqtt_5(start_clocked: Start, version: int, clean_session: bool, ending: str):
    world = await start_clocked()
    reader = await watcher(world)
    peer = await world.connect(
        "c", version, will=Will("will/c", b"gone"), keep_alive_s=KEEP_ALIVE_S, clean_start=clean_session
    )
    if ending == "DISCONNECT":
        await peer.send(Disconnect())
    elif ending == "cut":
        await peer.lose()
    elif ending == "keep alive":
        world.advance(KEEP_ALIVE_S * 1500 + 100)
    elif ending == "malformed":
        await peer.send(b"\x00\x00")
    elif ending == "closed by the server":
        world.engine.disconnect("c", ReasonCode.ADMINISTRATIVE_ACTION)
    else:
        await world.connect("c", version, session_present=not clean_session and version > 3, clean_start=clean_session)
    await peer.expect_closed()  # nothing is said before MQTT 5
    if ending != "DISCONNECT":
        await reader.expect(Publish("will/c", b"gone"))
    world.advance(FOREVER_MS)
    await expect_silence(reader)


async def test_will_goes_to_its_own_session_that_stays(start: Start):
    world = await start()
    peer = await world.connect("c", will=Will("will/c", b"gone", qos=1), **RESUME)
    await peer.subscribe("will/#")
    await peer.lose()
    peer = await world.connect("c", **RESUME, session_present=True)
    assert (await peer.receive_publish()).payload == b"gone"
    await peer.expect_nothing()


@pytest.mark.parametrize("delay_s", [0, 10])
async def test_session_that_is_discarded_publishes_its_will(start: Start, delay_s: int):
    world = await start()
    reader = await watcher(world)
    await world.connect("c", will=will(delay_s), **RESUME)
    assert world.engine.discard_session("c")
    await reader.expect(Publish("will/c", b"gone"))
    await reader.expect_nothing()
