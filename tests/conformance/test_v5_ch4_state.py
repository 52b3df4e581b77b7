"""Session state and network connections: MQTT 5 §4.1 and §4.2."""

import asyncio

import pytest

from conversations.conftest import Start
from conversations.harness import BrokerWorld, make_world
from mqttcore.codec import PubAck, Publish, PubRec
from mqttcore.constants import PropertyId, ReasonCode

from .peers import expect_bytes, lasting


@pytest.mark.mqtt5("4.1.0-1")
@pytest.mark.parametrize("expiry_s", [0, 5])
async def test_session_lasts_at_least_as_long_as_its_connection(start_clocked: Start, expiry_s: int):
    world = await start_clocked()
    reader = await world.connect("r", properties={PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s})
    await reader.subscribe("t")
    writer = await world.connect("w")
    await writer.publish("t", b"1", qos=2)
    message = await reader.receive()
    await reader.send(Publish("u", qos=2, packet_id=3))
    await reader.expect(PubRec(3, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    for _ in range(100):
        world.advance(3_600_000)
    gauges = ("sessions", "subscriptions", "in_flight", "awaiting_release")
    assert [world.metrics[name] for name in gauges] == [2, 1, 1, 1]
    await reader.send(PubRec(message.packet_id))
    await expect_bytes(reader, b"\x62\x02" + message.packet_id.to_bytes(2))
    await writer.publish("t", b"2", qos=1)
    assert (await reader.receive_publish()).payload == b"2"


@pytest.mark.mqtt5("4.1.0-2")
@pytest.mark.parametrize("cleanly", [False, True], ids=["cut", "disconnected"])
@pytest.mark.parametrize("expiry_s", [1, 60, 86_400])
async def test_session_is_gone_when_its_expiry_interval_has_passed(start_clocked: Start, expiry_s: int, cleanly: bool):
    world = await start_clocked()
    writer = await world.connect("w")
    reader = await lasting(world, "r", expiry_s=expiry_s)
    await reader.subscribe("t")
    await writer.publish("t", b"in flight", qos=1)
    await reader.receive()
    await (reader.disconnect() if cleanly else reader.lose())
    await writer.publish("t", b"queued", qos=1)
    world.advance(expiry_s * 1000 - 1)
    assert (world.metrics["sessions"], world.metrics["queued"], world.metrics["in_flight"]) == (2, 1, 1)
    world.advance(200)  # the timer's grain
    gauges = ("sessions", "subscriptions", "queued", "queued_bytes", "in_flight")
    assert [world.metrics[name] for name in gauges] == [1, 0, 0, 0, 0]
    reader = await lasting(world, "r", present=False)
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.1.0-2")
async def test_expiry_starts_again_with_each_connection(start_clocked: Start):
    world = await start_clocked()
    for present in (False, True, True):
        peer = await lasting(world, "a", expiry_s=10, present=present)
        world.advance(60_000)
        await peer.lose()
        world.advance(9_000)
    world.advance(2_000)
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("4.1.0-2")
async def test_session_without_expiry_interval_ends_with_its_connection(start: Start):
    world = await start()
    peer = await world.connect("a", clean_start=False)
    await peer.subscribe("t")
    await peer.disconnect()
    assert (world.metrics["sessions"], world.metrics["subscriptions"]) == (0, 0)


@pytest.mark.mqtt5("4.1.0-2")
async def test_interval_given_at_disconnect_counts(start_clocked: Start):
    world = await start_clocked()
    peer = await lasting(world, "a", expiry_s=1000)
    await peer.disconnect(0, {PropertyId.SESSION_EXPIRY_INTERVAL: 5})
    world.advance(4_000)
    assert world.metrics["sessions"] == 1
    world.advance(1_200)
    assert world.metrics["sessions"] == 0
    peer = await lasting(world, "a", expiry_s=1000)
    await peer.disconnect(0, {PropertyId.SESSION_EXPIRY_INTERVAL: 0})
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("4.2-1", "4.2.0-1")
async def test_tcp_carries_packets_cut_and_joined_anywhere():
    world = await make_world("tcp")
    assert isinstance(world, BrokerWorld)
    try:
        reader = await world.connect("r")
        await reader.subscribe("t")
        stream = b"".join(Publish("t", b"%d" % i * (i + 1), qos=1, packet_id=i + 1).encode(5) for i in range(60))
        writer = await world.connect("w")
        for at in range(0, len(stream), 7):
            await writer.send(stream[at : at + 7])
            await asyncio.sleep(0)  # the broker, which shares our loop, may read this piece by itself
        assert [await writer.receive() for _ in range(60)] == [PubAck(i + 1) for i in range(60)]
        got = [(await reader.receive_publish()).payload for _ in range(60)]
        assert got == [b"%d" % i * (i + 1) for i in range(60)]
        await world.end()
    finally:
        await world.close()
