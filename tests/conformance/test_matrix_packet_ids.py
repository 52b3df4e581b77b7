"""Packet identifiers that wrap at 65,535 around those in use, and the two sides' identifiers beside each other."""

import pytest

from conversations.conftest import Start
from conversations.harness import Peer, World
from mqttcore.codec import PubAck, PubComp, Publish, PubRec, PubRel

from .peers import lasting

LAST = 65_535
BATCH = 500


async def two(world: World) -> tuple[Peer, Peer]:
    """Return a lasting subscriber of `t` and a publisher."""
    reader = await lasting(world, "r")
    await reader.subscribe("t")
    return reader, await world.connect("w")


async def hold(reader: Peer, writer: Peer, *, qos: int = 1) -> int:
    """Have a message sent that stays in flight; its packet identifier."""
    await writer.publish("t", b"held", qos=qos)
    return (await reader.receive_publish(acknowledge=False)).packet_id


async def pass_through(reader: Peer, writer: Peer, count: int) -> list[int]:
    """Have messages of QoS 1 sent and acknowledged; their packet identifiers."""
    ids: list[int] = []
    for done in range(0, count, BATCH):
        size = min(BATCH, count - done)
        await writer.send(Publish("t", qos=1, packet_id=1).encode(5) * size)
        for _ in range(size):
            await writer.receive()
        batch = [(await reader.receive()).packet_id for _ in range(size)]
        await reader.send(b"".join(b"\x40\x02" + i.to_bytes(2) for i in reversed(batch)))
        ids += batch
    return ids


async def test_wrap_goes_around_gaps_of_every_kind(start_clocked: Start):
    world = await start_clocked()
    reader, writer = await two(world)
    held = [await hold(reader, writer)]  # 1: QoS 1
    await pass_through(reader, writer, 1)
    held += [await hold(reader, writer, qos=2)]  # 3: QoS 2, PUBREC awaited
    held += [await hold(reader, writer, qos=2)]  # 4: PUBCOMP awaited
    await reader.send(PubRec(held[-1]))
    await reader.expect(PubRel(held[-1]))
    await pass_through(reader, writer, 30_000 - 5)
    held += [await hold(reader, writer) for _ in range(3)]  # three in a row
    await pass_through(reader, writer, LAST - 30_003)
    held += [await hold(reader, writer)]  # 65,535 itself
    assert held == [1, 3, 4, 30_000, 30_001, 30_002, 65_535]
    free = [i for i in range(1, LAST + 1) if i not in held]
    assert await pass_through(reader, writer, len(free) + 5) == free + free[:5]
    # Released ones come into use again.
    await reader.send(PubAck(1), PubAck(30_001), PubComp(4))
    following = await pass_through(reader, writer, len(free))
    assert [i for i in following if i in held] == [30_001, 1, 4]
    assert 0 not in following
    assert world.metrics["in_flight"] == len(held) - 3


async def test_gaps_outlive_the_connection(start_clocked: Start):
    world = await start_clocked()
    reader, writer = await two(world)
    held = [await hold(reader, writer), await hold(reader, writer, qos=2)]
    await pass_through(reader, writer, LAST - 5)
    held.append(await hold(reader, writer))
    assert held == [1, 2, LAST - 2]
    await reader.lose()
    reader = await lasting(world, "r", present=True)
    for packet_id, qos in zip(held, (1, 2, 1), strict=True):
        await reader.expect(Publish("t", b"held", qos=qos, packet_id=packet_id, dup=True))
    assert await pass_through(reader, writer, 5) == [LAST - 1, LAST, 3, 4, 5]
    await reader.send(*[PubAck(i) for i in held if i != 2], PubRec(2))
    await reader.expect(PubRel(2))
    await reader.send(PubComp(2))
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


async def test_full_table_waits_for_the_one_that_becomes_free(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=LAST, queued_messages_maximum=1000)
    reader, writer = await two(world)
    ids: list[int] = []
    for _ in range(0, LAST, BATCH):
        await writer.send(Publish("t", qos=1, packet_id=1).encode(5) * BATCH)
        ids += [(await reader.receive()).packet_id for _ in range(min(BATCH, LAST - len(ids)))]
    assert ids == list(range(1, LAST + 1))
    await reader.expect_nothing()
    assert (world.metrics["in_flight"], world.metrics["queued"]) == (LAST, BATCH - LAST % BATCH)
    for packet_id in (40_000, LAST, 1):
        await reader.send(PubAck(packet_id))
        assert (await reader.receive()).packet_id == packet_id
        await reader.expect_nothing()


@pytest.mark.parametrize("qos", [1, 2])
async def test_both_sides_use_the_same_identifier_at_a_time(start: Start, qos: int):
    world = await start()
    reader, writer = await two(world)
    packet_id = await hold(reader, writer, qos=2)
    await reader.send(Publish("u", b"mine", qos=qos, packet_id=packet_id))
    answer = await reader.receive()
    assert (type(answer).__name__, answer.packet_id) == ("PubAck" if qos == 1 else "PubRec", packet_id)
    await reader.send(PubRec(packet_id))
    await reader.expect(PubRel(packet_id))
    if qos == 2:
        await reader.send(PubRel(packet_id))
        await reader.expect(PubComp(packet_id))
    assert (world.metrics["in_flight"], world.metrics["awaiting_release"]) == (1, 0)
    await reader.send(PubComp(packet_id))
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


async def test_client_may_use_all_identifiers_up_to_our_receive_maximum(start_clocked: Start):
    world = await start_clocked(receive_maximum=LAST)
    reader, writer = await two(world)
    await reader.disconnect()
    world.engine.discard_session("r")
    none = b"\x10"
    for first in range(1, LAST + 1, BATCH):
        ids = range(first, min(first + BATCH, LAST + 1))
        await writer.send(*[b"\x34\x06\x00\x01t" + i.to_bytes(2) + b"\x00" for i in ids])
        for i in ids:
            await writer.expect(PubRec(i, none[0]))
    assert world.metrics["awaiting_release"] == LAST
    for first in range(1, LAST + 1, BATCH):
        ids = range(first, min(first + BATCH, LAST + 1))
        await writer.send(*[b"\x62\x02" + i.to_bytes(2) for i in ids])
        for i in ids:
            await writer.expect(PubComp(i))
    assert world.metrics["awaiting_release"] == 0
