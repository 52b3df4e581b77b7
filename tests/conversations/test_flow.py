"""Queues and their limits, slow readers, paused publishers, big payloads."""

from typing import Any

import pytest

from mqttcore.codec import PubAck, Publish
from mqttcore.constants import PropertyId

from .conftest import Start
from .harness import MemoryPeer, Peer, StreamPeer, World

EXPIRY = PropertyId.SESSION_EXPIRY_INTERVAL


async def away(world: World, client_id: str = "r", topic_filter: str = "t") -> None:
    """A session that subscribes and is not connected."""
    peer = await world.connect(client_id, clean_start=False, properties={EXPIRY: 60})
    await peer.subscribe(topic_filter)
    await peer.lose()


async def back(world: World, client_id: str = "r") -> Peer:
    return await world.connect(client_id, clean_start=False, session_present=True, properties={EXPIRY: 60})


async def payloads(peer: Peer) -> list[bytes]:
    """Everything that is there, acknowledged, in order."""
    seen = []
    while True:
        await peer.send(b"\xc0\x00")
        before = len(seen)
        while type(packet := await peer.receive()).__name__ == "Publish":
            seen.append(packet.payload)
            if packet.qos:
                await peer.send(PubAck(packet.packet_id))
        if len(seen) == before:
            return seen


@pytest.mark.parametrize("policy", ["oldest", "newest"])
async def test_full_queue_drops_by_policy(start: Start, policy: str):
    world = await start(queued_messages_maximum=3, queue_drop=policy)
    await away(world)
    writer = await world.connect("w")
    for i in range(5):
        await writer.publish("t", b"%d" % i, qos=1)
    assert world.metrics["queued"] == 3
    assert world.metrics["messages_dropped_queue_full"] == 2
    reader = await back(world)
    assert await payloads(reader) == ([b"2", b"3", b"4"] if policy == "oldest" else [b"0", b"1", b"2"])


async def test_qos0_is_dropped_first(start: Start):
    world = await start(queued_messages_maximum=3, queue_drop="newest", queue_qos0_offline=True)
    await away(world)
    writer = await world.connect("w")
    for qos, payload in [(0, b"a"), (1, b"b"), (0, b"c"), (1, b"d"), (1, b"e"), (1, b"f"), (0, b"g")]:
        await writer.publish("t", payload, qos=qos)
    assert world.metrics["messages_dropped_slow_reader"] == 3
    assert world.metrics["messages_dropped_queue_full"] == 1
    reader = await back(world)
    assert await payloads(reader) == [b"b", b"d", b"e"]


async def test_queue_is_limited_in_bytes(start: Start):
    world = await start(queued_bytes_maximum=2500)
    await away(world)
    writer = await world.connect("w")
    for i in range(4):
        await writer.publish("t", b"%d" % i + bytes(999), qos=1)
    assert 2000 < world.metrics["queued_bytes"] <= 2500
    await writer.publish("t", bytes(3000), qos=1)  # larger than the whole queue: it costs no other message its place
    assert world.metrics["queued"] == 2
    reader = await back(world)
    assert [payload[:1] for payload in await payloads(reader)] == [b"2", b"3"]


async def test_all_queues_together_are_limited(start: Start):
    world = await start(queued_total_bytes_maximum=2500)
    await away(world, "a")
    await away(world, "b")
    writer = await world.connect("w")
    for _ in range(2):
        await writer.publish("t", bytes(1000), qos=1)
    assert world.metrics["queued"] == 2
    assert world.metrics["messages_dropped_total_full"] == 2


async def test_no_queue_at_all(start: Start):
    world = await start(queued_messages_maximum=0)
    await away(world)
    writer = await world.connect("w")
    await writer.publish("t", b"1", qos=1)
    assert world.metrics["messages_dropped_queue_full"] == 1
    reader = await back(world)
    await writer.publish("t", b"2", qos=1)
    assert await payloads(reader) == [b"2"]


async def test_never_acknowledging_reader_does_not_disturb_others(start: Start):
    world = await start(in_flight_maximum=5, queued_messages_maximum=10, publisher_pause_ms=0)
    stuck, good = await world.connect("stuck"), await world.connect("good")
    for peer in (stuck, good):
        await peer.subscribe("t")
    writer = await world.connect("w")
    for i in range(50):
        await writer.publish("t", b"%d" % i, qos=1)
        assert (await good.receive_publish()).payload == b"%d" % i
    await good.expect_nothing()  # its last acknowledgement has arrived
    assert world.metrics["in_flight"] == 5
    assert world.metrics["queued"] == 10
    assert world.metrics["messages_dropped_queue_full"] == 35
    first = [(await stuck.receive()).payload for _ in range(5)]
    assert first == [b"%d" % i for i in range(5)]
    assert world.engine.session("stuck").dropped == 35


async def test_publisher_is_paused_for_a_full_queue(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=1, queued_messages_maximum=8, publisher_pause_ms=500)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    await writer.send(*[Publish("t", b"%d" % i, qos=1, packet_id=i + 1) for i in range(12)])
    # one in flight, and above three quarters of the queue nothing is read from the publisher
    assert world.metrics["publishers_paused"] == 1
    assert world.metrics["queued"] == 7
    assert [(await writer.receive()).packet_id for _ in range(8)] == list(range(1, 9))
    seen = [await reader.receive_publish() for _ in range(5)]
    world.advance(100)
    await writer.expect(*[PubAck(i) for i in (9, 10, 11)])
    seen += [await reader.receive_publish() for _ in range(6)]
    world.advance(100)
    await writer.expect(PubAck(12))
    seen.append(await reader.receive_publish())
    assert [m.payload for m in seen] == [b"%d" % i for i in range(12)]
    assert world.metrics["messages_dropped_queue_full"] == 0


async def test_publisher_is_paused_for_so_long_only(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=1, queued_messages_maximum=4, publisher_pause_ms=500)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w", keep_alive_s=1)
    await writer.send(*[Publish("t", b"%d" % i, qos=1, packet_id=i + 1) for i in range(9)])
    assert world.metrics["publishers_paused"] == 1
    world.advance(400)
    assert world.metrics["publishers_paused"] == 1
    world.advance(200)  # the rest is taken: a reader that hangs holds nobody a second time
    assert world.metrics["publishers_paused"] == 1
    assert world.metrics["messages_received_qos1"] == 9
    await reader.receive_publish()  # it lives: from here on publishers wait for it again
    await writer.send(*[Publish("t", b"%d" % i, qos=1, packet_id=i + 1) for i in range(9)])
    assert world.metrics["publishers_paused"] == 2
    await writer.lose()
    world.advance(1000)
    await reader.lose()


async def test_publisher_is_held_once_for_bytes_that_hang(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=1, queued_bytes_maximum=10_000, publisher_pause_ms=500)
    stuck = await world.connect("stuck")
    await stuck.subscribe("t")
    writer = await world.connect("w")
    await writer.send(*[Publish("t", bytes(1000), qos=1, packet_id=i + 1) for i in range(30)])
    for _ in range(6):
        world.advance(100)
    assert world.metrics["messages_received_qos1"] == 30
    assert world.metrics["publishers_paused"] == 1
    await stuck.lose()


async def test_messages_in_flight_are_limited_in_bytes(start: Start):
    world = await start(in_flight_bytes_maximum=5000, publisher_pause_ms=0)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(12):
        await writer.publish("t", b"%02d" % i + bytes(998), qos=1 + i % 2)
    assert world.metrics["in_flight"] == 5
    assert world.metrics["queued"] == 7
    await writer.publish("t", bytes(6000), qos=1)
    seen = [(await reader.receive_publish()).payload for _ in range(13)]  # each acknowledged one makes room
    assert [payload[:2] for payload in seen[:12]] == [b"%02d" % i for i in range(12)]
    assert len(seen[12]) == 6000
    await reader.expect_nothing()


async def test_congested_session_that_ends_is_forgotten(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=1, queued_messages_maximum=2, publisher_pause_ms=500)
    reader = await world.connect("r")
    await reader.subscribe("t")
    for _ in range(4):
        world.engine.publish_bytes(b"t", b"1", 1)  # the broker itself is not paused
    await reader.lose()
    writer = await world.connect("w")
    await writer.publish("other", b"1", qos=1)
    assert world.metrics["publishers_paused"] == 0


async def test_reader_that_does_not_read(start_clocked: Start):
    world = await start_clocked(output_high_water_bytes=10_000, queued_messages_maximum=20, publisher_pause_ms=0)
    reader = await world.connect("r")
    assert isinstance(reader, MemoryPeer)
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(100):
        await writer.publish("t", b"%03d" % i + bytes(997), qos=i % 2)
    assert reader.connection.pending_bytes < 12_000
    assert world.metrics["queued"] <= 20
    assert world.metrics["messages_dropped_slow_reader"] > 30
    dropped = sum(world.metrics[f"messages_dropped_{why}"] for why in ("slow_reader", "queue_full"))
    seen = [int(p[:3]) for p in await payloads(reader)]
    assert len(seen) == 100 - dropped
    assert seen[:9] == list(range(9))
    odd = [i for i in seen if i % 2]
    assert odd == sorted(odd)
    assert odd[-1] == 99


async def test_control_packets_of_a_reader_that_does_not_read(start_clocked: Start):
    world = await start_clocked(output_high_water_bytes=1024)
    peer = await world.connect("a")
    await peer.send(*[b"\xc0\x00"] * 10_000)
    seen = 0
    while seen < 10_000:
        await peer.receive()
        seen += 1
    await peer.expect_nothing()


@pytest.mark.parametrize("size", [8_191, 8_192, 8_193, 100_000, 1_000_000])
@pytest.mark.parametrize("qos", [0, 1])
async def test_big_payloads(start: Start, size: int, qos: int):
    world = await start()
    readers = [await world.connect(f"r{i}", 4 + i % 2) for i in range(4)]
    for reader in readers:
        await reader.subscribe("t")
    writer = await world.connect("w")
    payload = bytes(range(251)) * (size // 251 + 1)
    payload = payload[:size]
    await writer.publish("t", payload, qos=qos)
    await writer.publish("t", b"behind", qos=qos)
    for reader in readers:
        assert (await reader.receive_publish()).payload == payload
        assert (await reader.receive_publish()).payload == b"behind"


async def test_big_and_small_payloads_to_slow_readers(start: Start):
    world = await start(publisher_pause_ms=0, queued_bytes_maximum=64_000_000)
    readers = [await world.connect(f"r{i}") for i in range(3)]
    for reader in readers:
        await reader.subscribe("t")
    writer = await world.connect("w")
    sizes = [1_000_000, 10, 9_000, 0, 8_192, 70_000, 1, 1_000_000, 300_000, 5] * 3
    for i, size in enumerate(sizes):
        await writer.publish("t", bytes([i]) * size, qos=1)
    for reader in readers:
        for i, size in enumerate(sizes):
            assert (await reader.receive_publish()).payload == bytes([i]) * size
        await reader.expect_nothing()


async def test_slow_reader_is_lost_with_output_pending(start: Start):
    world = await start(publisher_pause_ms=0, queued_bytes_maximum=64_000_000)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    for _ in range(20):
        await writer.publish("t", bytes(1_000_000), qos=1)
    assert world.metrics["in_flight"] + world.metrics["queued"] == 20
    await reader.lose()
    await writer.expect_nothing()


async def test_takeover_of_a_slow_reader_resumes(start: Start):
    world = await start(publisher_pause_ms=0)
    fields: dict[str, Any] = {"clean_start": False, "properties": {EXPIRY: 60}}
    reader = await world.connect("r", **fields)
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(12):
        await writer.publish("t", bytes([i]) * 1_000_000, qos=1)
    second = await world.connect("r", session_present=True, **fields)
    for i in range(12):
        message = await second.receive_publish()
        assert message.payload == bytes([i]) * 1_000_000
    await second.expect_nothing()
    if isinstance(reader, StreamPeer):
        await reader.lose()


async def test_torn_big_packet_arrives_whole(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    data = Publish("t", bytes(range(256)) * 1000).encode(5)
    for at in range(0, len(data), 7_001):
        await writer.send(data[at : at + 7_001])
    assert (await reader.receive_publish()).payload == bytes(range(256)) * 1000


async def test_a_thousand_packets_in_one_write(start: Start, version: int):
    world = await start(receive_maximum=65535)
    reader = await world.connect("r", version)
    await reader.subscribe("t/#", qos=0)
    writer = await world.connect("w", version)
    await writer.send(*[Publish(f"t/{i}", b"%d" % i, qos=i % 3, packet_id=i if i % 3 else 0) for i in range(1, 1001)])
    seen = [(await reader.receive_publish()).payload for _ in range(1000)]
    assert seen == [b"%d" % i for i in range(1, 1001)]
    acks = [await writer.receive() for _ in range(667)]
    assert [a.packet_id for a in acks] == [i for i in range(1, 1001) if i % 3]


@pytest.mark.parametrize("has_publisher", [True, False], ids=["while it grows", "at the resume"])
async def test_queued_messages_are_dropped_when_they_are_too_old(start_clocked: Start, has_publisher: bool):
    world = await start_clocked(queued_age_maximum_s=60)
    reader = await world.connect("r", properties={PropertyId.SESSION_EXPIRY_INTERVAL: 3600})
    await reader.subscribe("t")
    await reader.disconnect()
    writer = await world.connect("w")
    await writer.publish("t", b"old", qos=1)
    world.advance(59_000)
    await writer.publish("t", b"middle", qos=1)
    assert world.metrics["queued"] == 2
    world.advance(1_000)
    if has_publisher:
        await writer.publish("t", b"new", qos=1)
        assert world.metrics["queued"] == 2
        assert world.metrics["messages_dropped_expired"] == 1
    again = await world.connect("r", clean_start=False, session_present=True)
    assert await payloads(again) == ([b"middle", b"new"] if has_publisher else [b"middle"])
    assert world.metrics["messages_dropped_expired"] == 1
