"""What the engine does when it is told that memory is short, or full, and when that is over."""

import pytest

from mqttcore.codec import ConnAck, Connect, PubAck, Publish, SubAck, Subscribe, Subscription
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start
from .harness import Peer, World

LASTING = {PropertyId.SESSION_EXPIRY_INTERVAL: 100}


async def lasting(world: World, client_id: str, *, present: bool = False) -> Peer:
    return await world.connect(client_id, clean_start=False, session_present=present, properties=LASTING)


async def answer_to_connect(world: World, client_id: str, version: int = 5) -> int:
    peer = await world.open(version)
    await peer.send(Connect(client_id, clean_start=True, protocol_version=version))
    answer = await peer.receive()
    assert isinstance(answer, ConnAck)
    await peer.lose()
    return answer.reason_code


async def test_short_memory_lets_nobody_new_in(start: Start):
    world = await start()
    old = await lasting(world, "old")
    world.engine.set_memory(is_short=True, is_full=False)
    assert await answer_to_connect(world, "new") == ReasonCode.SERVER_BUSY
    assert await answer_to_connect(world, "new", version=4) == ReasonCode.SERVER_UNAVAILABLE
    assert world.metrics["connects_shed"] == 2
    assert world.metrics["sessions"] == 1
    await old.publish("t", b"still here", qos=1)
    world.engine.set_memory(is_short=False, is_full=False)
    assert await answer_to_connect(world, "new") == 0


async def test_who_has_a_session_can_fetch_what_it_holds(start: Start):
    world = await start()
    reader = await lasting(world, "r")
    await reader.subscribe("t", qos=1)
    await reader.lose()
    writer = await world.connect("w")
    await writer.publish("t", b"kept", qos=1)
    world.engine.set_memory(is_short=True, is_full=True)
    reader = await lasting(world, "r", present=True)
    assert (await reader.receive_publish()).payload == b"kept"
    await reader.expect_nothing()
    assert world.metrics["queued_bytes"] == 0


async def test_full_memory_keeps_queues_as_long_as_they_are(start_clocked: Start):
    world = await start_clocked(publisher_pause_ms=0)
    for client_id in ("a", "b"):
        away = await lasting(world, client_id)
        await away.subscribe("t", qos=1)
        await away.lose()
    writer = await world.connect("w")
    for i in range(10):
        await writer.publish("t", b"%d" % i, qos=1)
        world.advance(1)
    before = world.metrics
    world.engine.set_memory(is_short=True, is_full=True)
    for i in range(10, 15):
        await writer.publish("t", b"%d" % (i % 10), qos=1)
        world.advance(1)
    after = world.metrics
    assert after["queued_bytes"] == before["queued_bytes"]
    assert after["messages_dropped_total_full"] == 10
    reader = await lasting(world, "a", present=True)
    assert [(await reader.receive_publish()).payload for _ in range(10)] == [b"%d" % (i % 10) for i in range(5, 15)]
    world.engine.set_memory(is_short=False, is_full=False)
    for i in range(20):
        await writer.publish("t", b"%d" % (i % 10), qos=1)
        world.advance(1)
    assert world.metrics["messages_dropped_total_full"] == 10
    assert world.engine.session("b").queued == 30


async def test_what_would_be_queued_is_refused_where_that_is_the_policy(start: Start):
    world = await start(queue_drop="refuse", publisher_pause_ms=0)
    away = await lasting(world, "a")
    await away.subscribe("t", qos=1)
    await away.lose()
    writer = await world.connect("w")
    await writer.publish("t", b"kept", qos=1)
    world.engine.set_memory(is_short=True, is_full=True)
    await writer.send(Publish("t", b"not taken", qos=1, packet_id=1))
    await writer.expect(PubAck(1, ReasonCode.QUOTA_EXCEEDED))
    assert world.engine.session("a").queued == 1
    assert world.metrics["messages_dropped_total_full"] == 0


async def test_total_of_all_queues_refuses_where_that_is_the_policy(start: Start):
    world = await start(queue_drop="refuse", queued_total_bytes_maximum=100_000, publisher_pause_ms=0)
    for client_id in ("a", "b"):
        away = await lasting(world, client_id)
        await away.subscribe(client_id, qos=1)
        await away.lose()
    writer = await world.connect("w")
    await writer.publish("a", bytes(60_000), qos=1)
    await writer.send(Publish("b", bytes(60_000), qos=1, packet_id=1))
    await writer.expect(PubAck(1, ReasonCode.QUOTA_EXCEEDED))
    await writer.publish("b", bytes(30_000), qos=1)
    assert world.metrics["queued"] == 2
    assert world.metrics["messages_dropped_total_full"] == 0


async def test_publisher_of_what_has_to_wait_waits_as_well(start_clocked: Start):
    world = await start_clocked(publisher_pause_ms=500)
    away = await lasting(world, "a")
    await away.subscribe("t", qos=1)
    await away.lose()
    writer, other = await world.connect("w"), await world.connect("o")
    world.engine.set_memory(is_short=True, is_full=True)
    await writer.send(*[Publish("t", b"%d" % i, qos=1, packet_id=i + 1) for i in range(3)])
    await other.publish("elsewhere", b"unhindered")
    assert world.metrics["messages_received_qos1"] == 1
    world.advance(600)
    assert world.metrics["messages_received_qos1"] == 2  # and so each time
    world.engine.set_memory(is_short=False, is_full=False)
    world.advance(600)
    assert world.metrics["messages_received_qos1"] == 3
    assert world.metrics["publishers_paused"] == 2


async def test_full_memory_takes_no_more_unacknowledged_bytes(start: Start):
    world = await start(publisher_pause_ms=0)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    world.engine.set_memory(is_short=True, is_full=True)
    for _ in range(3):  # 64 KiB, and what began below them
        await writer.publish("t", bytes(30_000), qos=1)
        await reader.receive_publish(acknowledge=False)
    for _ in range(7):
        await writer.publish("t", bytes(30_000), qos=1)
    assert world.metrics["in_flight"] == 3
    assert world.metrics["messages_dropped_total_full"] == 7
    assert world.metrics["queued"] == 0


async def test_retained_messages_do_not_grow(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.publish("kept", b"1234", qos=1, retain=True)
    world.engine.publish_bytes(b"own", b"1", 0, True)
    before = world.metrics
    world.engine.set_memory(is_short=True, is_full=True)
    for topic, payload, code in (
        ("new", b"1", ReasonCode.QUOTA_EXCEEDED),
        ("kept", bytes(100), ReasonCode.QUOTA_EXCEEDED),
        ("kept", b"123", ReasonCode.NO_MATCHING_SUBSCRIBERS),
    ):
        await peer.send(Publish(topic, payload, qos=1, packet_id=1, retain=True))
        await peer.expect(PubAck(1, code))
    assert world.metrics["messages_dropped_quota"] == 2
    assert world.metrics["retained_bytes"] <= before["retained_bytes"]
    world.engine.publish_bytes(b"own", b"12", 0, True)  # the broker's own, $SYS say, are few
    assert world.engine.retained.get("own").payload == b"12"
    world.engine.set_memory(is_short=True, is_full=False)
    await peer.publish("new", b"1", qos=1, retain=True)
    assert world.metrics["retained"] == 3


async def test_subscriptions_do_not_grow(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("old", qos=1)
    world.engine.set_memory(is_short=True, is_full=True)
    await peer.send(Subscribe(1, [Subscription("old", 2), Subscription("new", 0)]))
    await peer.expect(SubAck(1, [2, ReasonCode.QUOTA_EXCEEDED]))
    assert world.metrics["subscriptions"] == 1


@pytest.mark.parametrize("is_full", [False, True])
async def test_new_limits_do_not_end_it(start: Start, is_full: bool):
    world = await start(publisher_pause_ms=0)
    away = await lasting(world, "a")
    await away.subscribe("t", qos=1)
    await away.lose()
    world.engine.set_memory(is_short=True, is_full=is_full)
    world.engine.set_limits(world.engine.limits_source)
    world.engine.publish_bytes(b"t", b"1", 1)
    assert world.metrics["queued"] == (0 if is_full else 1)
