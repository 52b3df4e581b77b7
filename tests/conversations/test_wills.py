"""Wills: when they are published, when they are not, and what they carry."""

from typing import Any

import pytest

from mqttcore.codec import Connect, Publish, Will
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start
from .harness import Peer, World

EXPIRY = PropertyId.SESSION_EXPIRY_INTERVAL
DELAY = PropertyId.WILL_DELAY_INTERVAL


async def watcher(world: World, version: int = 5) -> Peer:
    peer = await world.connect("watcher", version)
    await peer.subscribe("will/#")
    return peer


def will(payload: bytes = b"gone", **fields: Any) -> Will:
    return Will("will/a", payload, **fields)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_lost_connection_publishes_the_will(start: Start, any_version: int, qos: int):
    world = await start()
    watch = await watcher(world, any_version)
    peer = await world.connect("a", any_version, will=will(qos=qos, retain=True))
    await peer.lose()
    message = await watch.receive_publish()
    assert (message.topic, message.payload, message.qos, message.retain) == ("will/a", b"gone", qos, False)
    assert world.metrics["retained"] == 1


async def test_disconnect_deletes_the_will(start: Start, any_version: int):
    world = await start()
    watch = await watcher(world, any_version)
    peer = await world.connect("a", any_version, will=will())
    await peer.disconnect()
    await watch.expect_nothing()


@pytest.mark.parametrize("code", [ReasonCode.DISCONNECT_WITH_WILL_MESSAGE, ReasonCode.UNSPECIFIED_ERROR])
async def test_disconnect_with_another_reason_publishes_it(start: Start, code: int):
    world = await start()
    watch = await watcher(world)
    peer = await world.connect("a", will=will())
    await peer.disconnect(code)
    assert (await watch.receive_publish()).payload == b"gone"


async def test_protocol_error_publishes_it(start: Start, any_version: int):
    world = await start()
    watch = await watcher(world, any_version)
    peer = await world.connect("a", any_version, will=will())
    await peer.send(b"\x20\x02\x00\x00")
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR if any_version == 5 else None)
    assert (await watch.receive_publish()).payload == b"gone"


async def test_takeover_publishes_it(start: Start, any_version: int):
    world = await start()
    watch = await watcher(world, any_version)
    first = await world.connect("a", any_version, will=will(b"first"))
    await world.connect("a", any_version, will=will(b"second"))
    await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER if any_version == 5 else None)
    assert (await watch.receive_publish()).payload == b"first"
    await watch.expect_nothing()


async def test_takeover_that_resumes_cancels_a_delayed_will(start: Start):
    world = await start()
    watch = await watcher(world)
    delayed = will(properties={DELAY: 5})
    await world.connect("a", clean_start=False, will=delayed, properties={EXPIRY: 60})
    again = await world.connect("a", clean_start=False, session_present=True, properties={EXPIRY: 60})
    await again.lose()
    await watch.expect_nothing()


async def test_clean_takeover_publishes_a_delayed_will_at_once(start: Start):
    world = await start()
    watch = await watcher(world)
    await world.connect("a", clean_start=False, will=will(properties={DELAY: 5}), properties={EXPIRY: 60})
    await world.connect("a")
    assert (await watch.receive_publish()).payload == b"gone"


async def test_keep_alive(start_clocked: Start, any_version: int):
    world = await start_clocked()
    watch = await watcher(world, any_version)
    peer = await world.connect("a", any_version, keep_alive_s=10, will=will())
    world.advance(14_900)
    await peer.expect_nothing()  # counts from what was received last
    world.advance(14_900)
    await watch.expect_nothing()
    world.advance(200)
    await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT if any_version == 5 else None)
    assert (await watch.receive_publish()).payload == b"gone"


async def test_will_delay(start_clocked: Start):
    world = await start_clocked()
    watch = await watcher(world)
    properties = {DELAY: 5, PropertyId.MESSAGE_EXPIRY_INTERVAL: 7, PropertyId.CONTENT_TYPE: "x"}
    peer = await world.connect("a", will=will(properties=properties), properties={EXPIRY: 60})
    await peer.lose()
    world.advance(4_900)
    await watch.expect_nothing()
    world.advance(200)
    # the message's own interval starts when it is published, and the delay is not part of it
    assert (await watch.receive_publish()).properties == {
        PropertyId.MESSAGE_EXPIRY_INTERVAL: 7,
        PropertyId.CONTENT_TYPE: "x",
    }


async def test_will_delay_is_cancelled_by_coming_back(start_clocked: Start):
    world = await start_clocked()
    watch = await watcher(world)
    fields: dict[str, Any] = {"clean_start": False, "properties": {EXPIRY: 60}}
    peer = await world.connect("a", will=will(properties={DELAY: 5}), **fields)
    await peer.lose()
    world.advance(4_000)
    peer = await world.connect("a", session_present=True, **fields)
    world.advance(10_000)
    await peer.lose()
    world.advance(10_000)
    await watch.expect_nothing()


async def test_session_expiry_before_the_delay_publishes_it(start_clocked: Start):
    world = await start_clocked()
    watch = await watcher(world)
    peer = await world.connect("a", will=will(properties={DELAY: 500}), properties={EXPIRY: 3})
    await peer.lose()
    world.advance(2_900)
    await watch.expect_nothing()
    world.advance(200)
    assert (await watch.receive_publish()).payload == b"gone"
    assert world.metrics["sessions"] == 1


async def test_delay_without_a_session_is_none(start: Start):
    world = await start()
    watch = await watcher(world)
    peer = await world.connect("a", will=will(properties={DELAY: 500}))
    await peer.lose()
    assert (await watch.receive_publish()).payload == b"gone"


async def test_disconnect_that_ends_the_session_publishes_a_delayed_will(start: Start):
    world = await start()
    watch = await watcher(world)
    peer = await world.connect("a", will=will(properties={DELAY: 500}), properties={EXPIRY: 60})
    await peer.disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE, {EXPIRY: 0})
    assert (await watch.receive_publish()).payload == b"gone"


async def test_will_waits_for_a_session_that_is_away_and_expires(start_clocked: Start):
    world = await start_clocked()
    fields: dict[str, Any] = {"clean_start": False, "properties": {EXPIRY: 600}}
    watch = await world.connect("watcher", **fields)
    await watch.subscribe("will/#")
    await watch.lose()
    for name, expiry_s in (("a", 10), ("b", 100)):
        peer = await world.connect(
            name, will=Will(f"will/{name}", b"", qos=1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: expiry_s})
        )
        await peer.lose()
    world.advance(30_000)
    watch = await world.connect("watcher", session_present=True, **fields)
    message = await watch.receive_publish()
    assert message.topic == "will/b"
    assert message.properties == {PropertyId.MESSAGE_EXPIRY_INTERVAL: 70}
    await watch.expect_nothing()
    assert world.metrics["messages_dropped_expired"] == 1


async def test_will_to_sys_and_impossible_wills_are_refused(start: Start):
    world = await start(maximum_qos=1, retain_available=False)
    await world.connect("a", will=Will("$SYS/x"), expect=ReasonCode.NOT_AUTHORIZED)
    await world.connect("a", will=will(qos=2), expect=ReasonCode.QOS_NOT_SUPPORTED)
    await world.connect("a", will=will(retain=True), expect=ReasonCode.RETAIN_NOT_SUPPORTED)
    for impossible in (will(qos=2), will(retain=True)):
        peer = await world.open(4)  # 3.1.1 has no return code for it
        await peer.send(Connect("a", protocol_version=4, will=impossible))
        await peer.expect_closed()


async def test_own_will_reaches_the_resumed_session(start: Start):
    world = await start()
    fields: dict[str, Any] = {"clean_start": False, "properties": {EXPIRY: 60}}
    peer = await world.connect("a", will=will(qos=1), **fields)
    await peer.subscribe("will/#")
    await peer.lose()
    peer = await world.connect("a", session_present=True, **fields)
    assert (await peer.receive_publish()) == Publish("will/a", b"gone", qos=1, packet_id=1)
