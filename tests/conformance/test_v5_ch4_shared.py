"""Shared Subscriptions: MQTT 5 §4.8."""

import pytest

from conversations.conftest import Start
from conversations.harness import Peer, World
from mqttcore.codec import PubAck, PubComp, PubRec, PubRel, SubAck, Subscribe, Subscription
from mqttcore.constants import PropertyId, ReasonCode

from .peers import lasting

INVALID = ReasonCode.TOPIC_FILTER_INVALID


@pytest.mark.mqtt5("4.8.2-1", "4.8.2-2")
@pytest.mark.parametrize(
    ("topic_filter", "code"),
    [
        ("$share/g/t", 1),
        ("$share/g/#", 1),
        ("$share/g//", 1),
        ("$share/g/$own/#", 1),
        ("$share/ä b/t", 1),
        ("$share/$share/t", 1),
        ("$share//t", INVALID),
        ("$share/", INVALID),
        ("$share/g", INVALID),
        ("$share/g/", INVALID),
        ("$share/+/t", INVALID),
        ("$share/#/t", INVALID),
        ("$share/#", INVALID),
        ("$share/g+/t", INVALID),
        ("$share/g#/t", INVALID),
        ("$share/g/a+", INVALID),
        ("$share/g/#/a", INVALID),
    ],
)
async def test_share_name_and_filter_are_checked(start: Start, topic_filter: str, code: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription(topic_filter, 1)]))
    await peer.expect(SubAck(1, [code]))
    assert world.metrics["shared_groups"] == (code == 1)


@pytest.mark.mqtt5("4.8.2-1")
@pytest.mark.parametrize("topic_filter", ["$SHARE/g/t", "share/g/t", "$share", "$shared/g/t", "/$share/g/t"])
async def test_what_does_not_start_with_share_is_an_ordinary_filter(start: Start, topic_filter: str):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe(topic_filter)
    assert world.metrics["shared_groups"] == 0
    await peer.publish("t", b"no")
    await peer.expect_nothing()
    await peer.publish(topic_filter, b"yes")
    assert (await peer.receive_publish()).payload == b"yes"


async def members(world: World, *qos: int, topic_filter: str = "$share/g/t") -> list[Peer]:
    """Return lasting clients that share a subscription, each with its QoS."""
    found = []
    for number, granted in enumerate(qos):
        peer = await lasting(world, f"m{number}")
        await peer.subscribe(Subscription(topic_filter, granted))
        found.append(peer)
    return found


async def test_each_message_goes_to_one_member_of_each_group(start: Start):
    world = await start()
    first = await members(world, 1, 1, 1)
    other = await lasting(world, "o")
    await other.subscribe(Subscription("$share/h/t", 1))
    writer = await world.connect("w")
    for i in range(9):
        await writer.publish("t", bytes([i]), qos=1)
    seen = []
    for peer in first:
        seen += [(await peer.receive_publish()).payload for _ in range(3)]
        await peer.expect_nothing()
    assert sorted(seen) == [bytes([i]) for i in range(9)]
    assert [(await other.receive_publish()).payload for _ in range(9)] == [bytes([i]) for i in range(9)]


@pytest.mark.mqtt5("4.8.2-3")
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("maximum_qos", [1, 2])
async def test_each_member_gets_its_own_granted_qos(start: Start, published: int, maximum_qos: int):
    world = await start(maximum_qos=maximum_qos)
    found = []
    for granted in range(3):
        peer = await world.connect(f"m{granted}")
        await peer.send(Subscribe(1, [Subscription("$share/g/t", granted)]))
        await peer.expect(SubAck(1, [min(granted, maximum_qos)]))
        found.append(peer)
    writer = await world.connect("w")
    for _ in range(6):
        await writer.publish("t", qos=min(published, maximum_qos))
    for granted, peer in enumerate(found):
        for _ in range(2):
            assert (await peer.receive_publish()).qos == min(granted, maximum_qos, published)
        await peer.expect_nothing()


@pytest.mark.mqtt5("4.8.2-3")
async def test_new_options_of_a_member_count(start: Start):
    world = await start()
    (peer,) = await members(world, 2)
    await peer.subscribe(Subscription("$share/g/t", 0), subscription_id=9)
    await (await world.connect("w")).publish("t", qos=2)
    message = await peer.receive_publish()
    assert (message.qos, message.properties) == (0, {PropertyId.SUBSCRIPTION_IDENTIFIER: [9]})


@pytest.mark.mqtt5("4.8.2-4")
@pytest.mark.parametrize("released", [False, True], ids=["before PUBREC", "after PUBREC"])
async def test_qos2_delivery_is_completed_with_the_same_member(start: Start, released: bool):
    world = await start()
    first, second = await members(world, 2, 2)
    await (await world.connect("w")).publish("t", b"x", qos=2)
    message = await first.receive()
    if released:
        await first.send(PubRec(message.packet_id))
        await first.expect(PubRel(message.packet_id))
    await first.lose()
    await second.expect_nothing()
    first = await lasting(world, "m0", present=True)
    if not released:
        again = await first.receive()
        assert (again.packet_id, again.payload, again.qos, again.dup) == (message.packet_id, b"x", 2, True)
        await first.send(PubRec(message.packet_id))
    await first.expect(PubRel(message.packet_id))
    await first.send(PubComp(message.packet_id))
    await first.expect_nothing()
    await second.expect_nothing()
    assert world.metrics["in_flight"] == 0


@pytest.mark.mqtt5("4.8.2-5")
@pytest.mark.parametrize("end", ["clean start", "discarded"])
async def test_qos2_message_of_a_session_that_ended_goes_to_nobody_else(start: Start, end: str):
    world = await start()
    first, second = await members(world, 2, 2)
    await (await world.connect("w")).publish("t", b"x", qos=2)
    await first.receive()
    await first.lose()
    if end == "clean start":
        await (await world.connect("m0")).expect_nothing()
    else:
        world.engine.discard_session("m0")
    await second.expect_nothing()
    assert world.metrics["messages_dropped_session_ended"] == 1


@pytest.mark.mqtt5("4.8.2-5")
async def test_qos2_message_of_a_session_that_expired_goes_to_nobody_else(start_clocked: Start):
    world = await start_clocked()
    first, second = await members(world, 2, 2)
    await (await world.connect("w")).publish("t", b"x", qos=2)
    await first.receive()
    await first.lose()
    world.advance(1_001_000)
    assert world.engine.session("m0") is None
    await second.expect_nothing()


async def test_what_was_not_begun_goes_to_another_member_when_the_session_ends(start: Start):
    world = await start()
    first, second = await members(world, 1, 1)
    writer = await world.connect("w")
    await second.lose()
    await writer.publish("t", b"in flight", qos=1)
    await first.receive()
    await first.lose()
    second = await lasting(world, "m1", present=True)
    world.engine.discard_session("m0")
    assert (await second.receive_publish()).payload == b"in flight"


@pytest.mark.mqtt5("4.8.2-6")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("reason_code", [0x80, 0x83, 0x87, 0x90, 0x97, 0x99], ids=hex)
async def test_message_that_a_member_refuses_goes_to_nobody_else(start: Start, qos: int, reason_code: int):
    world = await start()
    first, second = await members(world, 2, 2)
    await (await world.connect("w")).publish("t", b"x", qos=qos)
    message = await first.receive()
    await first.send((PubAck if qos == 1 else PubRec)(message.packet_id, reason_code))
    await first.expect_nothing()
    assert world.metrics["in_flight"] == 0
    await first.lose()
    world.engine.discard_session("m0")
    await second.expect_nothing()
