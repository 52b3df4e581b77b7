"""Hardening cases 43-46: takeover, session expiry, keep alive, wills."""

import time
from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import Peer, World
from mqttcore.codec import Will
from mqttcore.constants import PropertyId

from .hardening_bytes import assert_fatal, everything_until_closed, packet, u32, versions

EXPIRY = PropertyId.SESSION_EXPIRY_INTERVAL

TICK_MS = 100  # timers ring up to one tick late, never early


async def reader_of(world: World, version: int, topic: str = "will") -> Peer:
    reader = await world.connect("reader", version)
    await reader.subscribe(topic)
    return reader


def with_will(version: int, *, delay_s: int = 0, expiry_s: int = 0) -> dict[str, Any]:
    properties = {PropertyId.WILL_DELAY_INTERVAL: delay_s} if delay_s else {}
    fields: dict[str, Any] = {"will": Will("will", b"gone", properties=properties)}
    if version == 5 and expiry_s:
        fields |= {"clean_start": False, "properties": {EXPIRY: expiry_s}}
    return fields


@pytest.mark.mqtt3("3.1.4-2")
@pytest.mark.mqtt5("3.1.4-3")
@versions
async def test_case_43_second_connection_ends_the_first_and_its_will_goes_out(start: Start, version: int):
    world = await start()
    reader = await reader_of(world, version)
    first = await world.connect("same", version, **with_will(version))
    second = await world.connect("same", version)
    said = await everything_until_closed(first)
    assert said[:3] == b"\xe0" + bytes([len(said) - 2]) + b"\x8e" if version == 5 else said == b""
    assert (await reader.receive_publish()).payload == b"gone"
    await second.expect_nothing()
    assert (world.metrics["takeovers"], world.metrics["sessions_connected"]) == (1, 2)


async def test_case_43_takeover_into_the_same_session_cancels_a_delayed_will(start_clocked: Start):
    world = await start_clocked()
    reader = await reader_of(world, 5)
    fields = with_will(5, delay_s=10, expiry_s=100)
    await world.connect("same", 5, **fields)
    await world.connect("same", 5, session_present=True, clean_start=False, properties={EXPIRY: 100})
    world.advance(3_600_000)
    await reader.expect_nothing()


@versions
async def test_case_43_devices_that_take_over_by_turns_leave_nothing(start: Start, version: int):
    world = await start()
    # how many are too many is a policy of a plugin; here all are served
    for n in range(200):
        peer = await world.connect("same", version)
        await peer.subscribe(f"t/{n}")
    assert world.metrics["takeovers"] == 199
    assert (world.metrics["connections"], world.metrics["sessions"], world.metrics["subscriptions"]) == (1, 1, 1)


async def test_case_44_disconnect_cannot_raise_session_expiry_from_0(start: Start):
    world = await start()
    reader = await reader_of(world, 5)
    peer = await world.connect("guilty", 5, **with_will(5))
    await assert_fatal(world, 5, packet(0xE0, b"\x00\x05\x11", u32(10)), 0x82, peer=peer)
    assert (await reader.receive_publish()).payload == b"gone"


@pytest.mark.parametrize(("connect_s", "disconnect_s", "ends_after_s"), [(100, 10, 10), (10, 100, 100), (10, None, 10)])
async def test_case_44_disconnect_may_change_session_expiry_otherwise(
    start_clocked: Start, connect_s: int, disconnect_s: int | None, ends_after_s: int
):
    world = await start_clocked()
    peer = await world.connect("c", 5, properties={EXPIRY: connect_s})
    await peer.disconnect(properties=None if disconnect_s is None else {EXPIRY: disconnect_s})
    world.advance(ends_after_s * 1000 - 1)
    assert world.metrics["sessions"] == 1
    world.advance(1 + TICK_MS)
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt3("3.1.2-24")
@pytest.mark.mqtt5("3.1.2-22")
@versions
async def test_case_45_silence_of_one_and_a_half_keep_alives_closes(start_clocked: Start, version: int):
    world = await start_clocked()
    reader = await reader_of(world, version)
    peer = await world.connect("c", version, keep_alive_s=10, **with_will(version))
    world.advance(14_999)
    await peer.expect_nothing()  # a PINGREQ, so counted anew
    world.advance(14_999)
    await reader.expect_nothing()
    world.advance(1 + TICK_MS)
    assert (await everything_until_closed(peer))[:1] == (b"\xe0" if version == 5 else b"")
    assert (await reader.receive_publish()).payload == b"gone"
    assert world.metrics["sessions"] == 1


@versions
async def test_case_45_half_a_packet_is_no_silence_but_an_unfinished_one_is(start_clocked: Start, version: int):
    world = await start_clocked()
    peer = await world.connect("c", version, keep_alive_s=10)
    world.advance(14_000)
    await peer.send(b"\x30\x7f")
    world.advance(14_999)
    assert world.metrics["connections"] == 1
    world.advance(1 + TICK_MS)
    assert world.metrics["connections"] == 0


@versions
async def test_case_45_keep_alive_0_never_closes(start_clocked: Start, version: int):
    world = await start_clocked()
    peer = await world.connect("c", version, keep_alive_s=0)
    world.advance(10 * 86_400_000)
    await peer.expect_nothing()


@pytest.mark.parametrize("jump_s", [86_400, -86_400], ids=["a day forth", "a day back"])
async def test_case_45_wall_clock_that_jumps_changes_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, jump_s: int
):
    world = await start()
    peer = await world.connect("c", 5, keep_alive_s=1, properties={EXPIRY: 100})
    real = time.time
    before = world.engine.clock_ms
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    await peer.expect_nothing()
    assert world.metrics["connections"] == 1
    assert 0 <= world.engine.clock_ms - before < 86_400_000


@pytest.mark.mqtt3("3.14.4-3", "3.1.2-10")
@pytest.mark.mqtt5("3.14.4-3")
@versions
async def test_case_46_normal_disconnect_deletes_the_will(start_clocked: Start, version: int):
    world = await start_clocked()
    reader = await reader_of(world, version)
    peer = await world.connect("c", version, **with_will(version))
    await peer.send(b"\xe0\x00")
    await peer.expect_closed()
    world.advance(3_600_000)
    await reader.expect_nothing()


@pytest.mark.parametrize("reason_code", [0x04, 0x80, 0x81, 0x93, 0x97])
async def test_case_46_disconnect_with_another_reason_sends_the_will(start: Start, reason_code: int):
    world = await start()
    reader = await reader_of(world, 5)
    peer = await world.connect("c", 5, **with_will(5))
    await peer.send(bytes([0xE0, 1, reason_code]))
    await peer.expect_closed()
    assert (await reader.receive_publish()).payload == b"gone"


@pytest.mark.mqtt5("3.1.3-9")
async def test_case_46_resuming_in_time_cancels_a_delayed_will(start_clocked: Start):
    world = await start_clocked()
    reader = await reader_of(world, 5)
    fields = with_will(5, delay_s=10, expiry_s=100)
    peer = await world.connect("c", 5, **fields)
    await peer.lose()
    world.advance(9_999)
    await reader.expect_nothing()
    peer = await world.connect("c", 5, session_present=True, **fields)
    world.advance(60_000)
    await reader.expect_nothing()
    await peer.lose()
    world.advance(10_000 + TICK_MS)
    assert (await reader.receive_publish()).payload == b"gone"
