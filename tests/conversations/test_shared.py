"""Shared subscriptions: who of a group gets a message, and what happens when that one leaves."""

from collections import Counter
from typing import Any

import pytest

from mqttcore.codec import PubAck, PubComp, PubRec, PubRel, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start
from .harness import Peer, World


async def members(world: World, count: int, version: int = 5, **fields: Any) -> list[Peer]:
    found = [await world.connect(f"m{i}", version, **fields) for i in range(count)]
    for peer in found:
        await peer.subscribe("$share/g/t/#")
    return found


async def drain(peer: Peer) -> list[bytes]:
    """The payloads of all messages that are there."""
    await peer.send(b"\xc0\x00")
    seen = []
    while type(packet := await peer.receive()).__name__ == "Publish":
        seen.append(packet.payload)
        if packet.qos == 1:
            await peer.send(PubAck(packet.packet_id))
    return seen


async def test_each_message_goes_to_one_in_turn(start: Start, version: int):
    world = await start()
    group = await members(world, 3, version)
    everything = await world.connect("all", version)
    await everything.subscribe("t/#", qos=0)
    writer = await world.connect("w", version)
    for i in range(9):
        await writer.publish(f"t/{i}", b"%d" % i, qos=1)
    shares = [await drain(peer) for peer in group]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert sorted(payload for share in shares for payload in share) == [b"%d" % i for i in range(9)]
    assert len(await drain(everything)) == 9


async def test_sticky(start: Start):
    world = await start(share_strategy="sticky")
    group = await members(world, 3)
    writer = await world.connect("w")
    for i in range(6):
        await writer.publish(f"t/{i}", b"x", qos=1)
    counts = [len(await drain(peer)) for peer in group]
    assert sorted(counts) == [0, 0, 6]
    chosen = counts.index(6)
    await group[chosen].disconnect()
    for i in range(6):
        await writer.publish(f"t/{i}", b"x", qos=1)
    assert sorted([len(await drain(peer)) for peer in group if peer is not group[chosen]]) == [0, 6]


async def test_hash_by_topic(start: Start):
    world = await start(share_strategy="hash")
    group = await members(world, 3)
    writer = await world.connect("w")
    homes: dict[int, int] = {}
    for _ in range(2):
        for i in range(40):
            await writer.publish(f"t/{i}", b"%d" % i, qos=1)
        for place, peer in enumerate(group):
            for payload in await drain(peer):
                assert homes.setdefault(int(payload), place) == place
    assert len(homes) == 40
    assert len(Counter(homes.values())) == 3


async def test_two_groups_each_get_a_copy(start: Start):
    world = await start()
    a = await world.connect("a")
    await a.subscribe("$share/one/t", "$share/two/t", "t")
    writer = await world.connect("w")
    await writer.publish("t", b"1", qos=1)
    assert len(await drain(a)) == 3


async def test_members_that_are_connected_are_preferred(start: Start):
    world = await start()
    away, here = await members(world, 2, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60})
    await away.lose()
    writer = await world.connect("w")
    for _ in range(4):
        await writer.publish("t/x", b"x", qos=1)
    assert len(await drain(here)) == 4
    await here.lose()
    await writer.publish("t/x", b"later", qos=1)
    assert world.metrics["queued"] == 1


async def test_what_a_leaving_member_did_not_complete_goes_to_another(start: Start):
    world = await start()
    leaving, staying = await members(world, 2, properties={PropertyId.RECEIVE_MAXIMUM: 2})
    writer = await world.connect("w")
    for i in range(8):
        await writer.publish("t/x", b"%d" % i, qos=1)
    first = [await leaving.receive() for _ in range(2)]  # two in flight, two queued
    await leaving.disconnect()
    seen = set(await drain(staying))
    while len(more := await drain(staying)):
        seen |= set(more)
    assert seen == {b"%d" % i for i in range(8)}
    assert first[0].payload in seen
    assert world.metrics["messages_dropped_session_ended"] == 0


async def test_qos2_in_flight_stays_with_its_member(start: Start):
    world = await start()
    leaving, staying = await members(world, 2)
    writer = await world.connect("w")
    await writer.publish("t/x", b"1", qos=2)
    await writer.publish("t/x", b"2", qos=2)
    await leaving.receive()
    await leaving.disconnect()
    assert (await staying.receive_publish()).payload == b"2"
    await staying.expect_nothing()
    assert world.metrics["messages_dropped_session_ended"] == 1


async def test_last_member_takes_its_messages_along(start: Start):
    world = await start()
    (only,) = await members(world, 1, properties={PropertyId.RECEIVE_MAXIMUM: 1})
    writer = await world.connect("w")
    for _ in range(3):
        await writer.publish("t/x", b"x", qos=1)
    await only.receive()
    await only.disconnect()
    assert world.metrics["messages_dropped_session_ended"] == 3
    assert world.metrics["shared_groups"] == 0


async def test_member_leaves_by_unsubscribing(start: Start):
    world = await start()
    one, two = await members(world, 2)
    await one.send(Unsubscribe(1, ["$share/g/t/#"]))
    await one.expect(UnsubAck(1, [0]))
    writer = await world.connect("w")
    for _ in range(4):
        await writer.publish("t/x", b"x", qos=2)
    for _ in range(4):
        await two.receive_publish()
    await one.expect_nothing()


async def test_expired_member_hands_its_queue_on(start_clocked: Start):
    world = await start_clocked()
    away, other = await members(world, 2, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60})
    await other.lose()
    await away.lose()
    writer = await world.connect("w")
    for i in range(4):
        await writer.publish("t/x", b"%d" % i, qos=1)
    other = await world.connect(
        "m1", clean_start=False, session_present=True, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 6000}
    )
    assert len(await drain(other)) == 2
    world.advance(61_000)
    assert len(await drain(other)) == 2


async def test_what_expired_is_not_handed_on(start_clocked: Start):
    world = await start_clocked()
    away, other = await members(world, 2, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60})
    await other.lose()
    await away.lose()
    writer = await world.connect("w")
    for _ in range(2):
        await writer.publish("t/x", b"1", qos=1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 10})
    other = await world.connect(
        "m1", clean_start=False, session_present=True, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 6000}
    )
    assert len(await drain(other)) == 1
    world.advance(61_000)
    assert await drain(other) == []  # [MQTT-3.3.2-5]
    assert world.metrics["messages_dropped_expired"] == 1


async def test_identifier_and_qos_of_the_member(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("$share/g/t", qos=1, subscription_id=5)
    await peer.publish("t", b"1", qos=2)
    message = await peer.receive_publish()
    assert message.qos == 1
    assert list(message.properties[PropertyId.SUBSCRIPTION_IDENTIFIER]) == [5]


async def test_no_local_is_an_error(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription("$share/g/t", 0, no_local=True)]))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.parametrize("topic_filter", ["$share//x", "$share/a+/x", "$share/a", "$share/a/", "$share/#/x"])
async def test_bad_share_filters(start: Start, topic_filter: str):
    world = await start()
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription(topic_filter, 0)]))
    await peer.expect(SubAck(1, [ReasonCode.TOPIC_FILTER_INVALID]))


async def test_not_available(start: Start):
    world = await start(shared_subscription_available=False)
    peer = await world.connect("a")
    assert peer.connack.properties[PropertyId.SHARED_SUBSCRIPTION_AVAILABLE] == 0
    await peer.send(Subscribe(1, [Subscription("$share/g/t", 0)]))
    await peer.expect(SubAck(1, [ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED]))


async def test_redelivery_to_the_same_member_after_it_comes_back(start: Start):
    world = await start()
    fields: dict[str, Any] = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 60}}
    one = await world.connect("m0", **fields)
    await one.subscribe("$share/g/t")
    writer = await world.connect("w")
    await writer.publish("t", b"1", qos=2)
    first = await one.receive()
    await one.lose()
    two = await world.connect("m1")
    await two.subscribe("$share/g/t")
    one = await world.connect("m0", session_present=True, **fields)
    again = await one.receive()
    assert (again.packet_id, again.dup) == (first.packet_id, True)
    await one.send(PubRec(again.packet_id))
    await one.expect(PubRel(again.packet_id))
    await one.send(PubComp(again.packet_id))
    await two.expect_nothing()


async def test_redistribution_keeps_to_the_hash(start: Start):
    world = await start(share_strategy="hash", in_flight_maximum=1)
    group = await members(world, 3)
    writer = await world.connect("w")

    async def publish_all() -> None:
        for i in range(100):
            await writer.publish(f"t/{i}", b"%d" % i, qos=1)

    async def homes(*places: int) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for place in places:
            while seen := await drain(group[place]):
                found |= dict.fromkeys(seen, place)
        assert len(found) == 100
        return found

    await publish_all()
    before = await homes(0, 1, 2)
    await publish_all()
    await group[1].lose()
    redistributed = await homes(0, 2)
    await publish_all()
    after = await homes(0, 2)
    orphans = [payload for payload, place in before.items() if place == 1]
    assert {redistributed[payload] for payload in orphans} == {0, 2}
    assert all(redistributed[payload] == after[payload] for payload in orphans)
