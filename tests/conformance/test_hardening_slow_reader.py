"""Hardening case 48: a client that does not read what it is sent, over real sockets."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from conversations.conftest import Start, starter_of
from conversations.harness import DEADLINE_S, Peer, StreamPeer, World

from .hardening_bytes import publish, subscribe, unsubscribe, versions

HIGH_WATER_BYTES = 65_536
READ_BYTES = 262_144  # the most that is read from a socket in one turn of the loop
TURNS = 200  # of the loop that the broker and the test share; each serves every socket that is ready


@pytest_asyncio.fixture(params=["tcp", "stream"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    async for starter in starter_of(request.param):
        yield starter


def unsent_bytes(world: World) -> int:
    """What the broker holds for the client `slow` and has not written."""
    session = world.engine.session("slow")
    assert session
    assert session.connection
    return session.connection.pending_bytes


async def turn(world: World, turns: int = TURNS) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def read_all(peer: Peer, size: int) -> bytes:
    assert isinstance(peer, StreamPeer)
    return await asyncio.wait_for(peer.reader.readexactly(size), DEADLINE_S * 2)


@versions
async def test_case_48_reader_that_stalls_loses_qos_0_and_costs_no_more_than_its_buffer(start: Start, version: int):
    world = await start(output_high_water_bytes=HIGH_WATER_BYTES, queued_messages_maximum=50, publisher_pause_ms=0)
    slow, reader = await world.connect("slow", version), await world.connect("r", version)
    await slow.subscribe("t", qos=0)
    await reader.subscribe("t", qos=0)
    writer = await world.connect("w", version)
    message = publish(version, "t", bytes(10_000))
    sent = 0
    while world.metrics["messages_dropped_slow_reader"] < 100:
        await writer.send(*[message] * 10)
        sent += 10
        for _ in range(10):
            await reader.receive_publish()  # the other reader has everything, in time
        assert unsent_bytes(world) <= HIGH_WATER_BYTES + len(message)
        assert world.metrics["queued"] <= 50
        assert sent * len(message) < 100_000_000
    kept = sent - world.metrics["messages_dropped_slow_reader"]
    for _ in range(kept):
        await slow.receive_publish()
    await slow.expect_nothing()


FLOODS = {
    "PINGREQ": (lambda v: b"\xc0\x00", 2),
    "PUBLISH QoS 1": (lambda v: publish(v, "t", first=0x32, packet_id=1), {4: 4, 5: 5}),
    "PUBLISH QoS 2": (lambda v: publish(v, "t", first=0x34, packet_id=1), {4: 4, 5: 4}),
    "PUBREL": (lambda v: b"\x62\x02\x00\x01", {4: 4, 5: 5}),
    "PUBREC": (lambda v: b"\x50\x02\x00\x01", {4: 4, 5: 5}),
    "SUBSCRIBE": (lambda v: subscribe(v, ("t", 0)), {4: 5, 5: 6}),
    "UNSUBSCRIBE": (lambda v: unsubscribe(v, "t"), {4: 4, 5: 6}),
}


@pytest.mark.parametrize(("make", "answer"), FLOODS.values(), ids=FLOODS.keys())
@versions
async def test_case_48_client_that_asks_and_never_reads_is_not_read_from(start: Start, version: int, make, answer):
    world = await start(output_high_water_bytes=HIGH_WATER_BYTES)
    slow = await world.connect("slow", version)
    assert isinstance(slow, StreamPeer)
    packet = make(version)
    await slow.send(packet)
    await slow.receive()  # from now on every answer is the same
    slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
    segment = packet * (READ_BYTES // len(packet))
    before = world.metrics["bytes_received"]
    asked = 0
    # until the kernel's buffers both ways, and ours, are full
    while unsent_bytes(world) < 2 * HIGH_WATER_BYTES or slow.writer.transport.get_write_buffer_size() == 0:
        if slow.writer.transport.get_write_buffer_size() == 0:
            slow.writer.write(segment)
            asked += len(segment) // len(packet)
        await turn(world, 1)
        assert asked * len(packet) < 100_000_000
    held = world.metrics["bytes_received"]
    await turn(world)
    assert world.metrics["bytes_received"] == held
    assert unsent_bytes(world) <= 2 * HIGH_WATER_BYTES + 2 * READ_BYTES
    # others are served meanwhile, and nothing is lost when the client reads after all
    other = await world.connect("o", version)
    await other.publish("u", b"x", qos=2)
    slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
    size = answer if isinstance(answer, int) else answer[version]
    said = await read_all(slow, asked * size)
    assert said == said[:size] * asked
    assert world.metrics["bytes_received"] - before >= asked * len(packet)
    await slow.expect_nothing()
