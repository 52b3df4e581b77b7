"""QoS 0, 1 and 2 both ways, order, windows, resending, packet ids."""

from typing import Any

import pytest

from mqttcore.codec import (
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
)
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start
from .harness import Peer, World

ALL_QOS = [0, 1, 2]


async def durable(world: World, client_id: str, version: int, *, present: bool = False, **properties: Any) -> Peer:
    """A client whose session outlives its connection."""
    if version < 5:
        return await world.connect(client_id, version, clean_start=False, session_present=present)
    said = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000, **{PropertyId[k.upper()]: v for k, v in properties.items()}}
    return await world.connect(client_id, version, clean_start=False, session_present=present, properties=said)


@pytest.mark.parametrize("published", ALL_QOS)
@pytest.mark.parametrize("granted", ALL_QOS)
async def test_message_arrives_at_the_lower_qos(start: Start, any_version: int, published: int, granted: int):
    world = await start()
    reader = await world.connect("r", any_version)
    await reader.subscribe("a/+", qos=granted)
    writer = await world.connect("w", any_version)
    await writer.publish("a/b", b"hello", qos=published)
    message = await reader.receive_publish()
    assert (message.topic, message.payload, message.retain, message.dup) == ("a/b", b"hello", False, False)
    assert message.qos == min(published, granted)
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0
    assert world.metrics["awaiting_release"] == 0


async def test_acknowledgements_say_whether_anybody_subscribed(start: Start):
    world = await start()
    peer = await world.connect("a")
    none = ReasonCode.NO_MATCHING_SUBSCRIBERS
    await peer.send(Publish("t", qos=1, packet_id=1), Publish("t", qos=2, packet_id=2))
    await peer.expect(PubAck(1, none), PubRec(2, none))
    await peer.send(PubRel(2))
    await peer.expect(PubComp(2))
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    await peer.send(Publish("t", qos=1, packet_id=1))
    await peer.expect(PubAck(1))
    await reader.receive_publish()


async def test_repeated_qos2_publish_is_delivered_once(start: Start, version: int):
    world = await start()
    reader = await world.connect("r", version)
    await reader.subscribe("t")
    writer = await world.connect("w", version)
    await writer.send(Publish("t", b"1", qos=2, packet_id=9))
    await writer.expect(PubRec(9))
    await writer.send(Publish("t", b"1", qos=2, packet_id=9, dup=True), Publish("t", b"other", qos=2, packet_id=9))
    await writer.expect(PubRec(9), PubRec(9))
    await writer.send(PubRel(9), PubRel(9))
    await writer.expect(PubComp(9), PubComp(9, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if version == 5 else 0))
    assert (await reader.receive_publish()).payload == b"1"
    await reader.expect_nothing()
    await writer.publish("t", b"2", qos=2, packet_id=9)
    assert (await reader.receive_publish()).payload == b"2"


async def test_repeated_qos2_publish_after_a_reconnect_is_delivered_once(start: Start, version: int):
    world = await start()
    reader = await world.connect("r", version)
    await reader.subscribe("t")
    writer = await durable(world, "w", version)
    await writer.send(Publish("t", b"1", qos=2, packet_id=9))
    await writer.expect(PubRec(9))
    await writer.lose()
    writer = await durable(world, "w", version, present=True)
    await writer.send(Publish("t", b"1", qos=2, packet_id=9, dup=True))
    await writer.expect(PubRec(9))
    await writer.send(PubRel(9))
    await writer.expect(PubComp(9))
    await reader.receive_publish()
    await reader.expect_nothing()


async def test_pubrel_for_unknown_id(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(PubRel(77))
    await peer.expect(PubComp(77, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND))
    old = await world.connect("b", 4)
    await old.send(PubRel(77))
    await old.expect(PubComp(77))


async def test_stray_acknowledgements_change_nothing(start: Start, version: int):
    world = await start(in_flight_maximum=2)
    reader = await world.connect("r", version)
    await reader.subscribe("t")
    writer = await world.connect("w", version)
    for qos in (1, 2, 1, 1):
        await writer.publish("t", b"%d" % qos, qos=qos)
    first, second = await reader.receive(), await reader.receive()
    # for the other QoS, for ids never sent, and PUBCOMP before PUBREC
    await reader.send(PubAck(second.packet_id), PubAck(500), PubComp(500), PubComp(first.packet_id))
    await reader.send(PubComp(second.packet_id))
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 2
    await reader.send(PubRec(600))
    await reader.expect(PubRel(600, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if version == 5 else 0))
    await reader.send(PubAck(first.packet_id), PubAck(first.packet_id))
    third = await reader.receive()
    assert third.qos == 1
    await reader.expect_nothing()
    await reader.send(PubRec(second.packet_id))
    await reader.expect(PubRel(second.packet_id))
    await reader.send(PubComp(second.packet_id), PubComp(second.packet_id))
    fourth = await reader.receive()
    await reader.send(PubAck(third.packet_id), PubAck(fourth.packet_id))
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


async def test_refusing_pubrec_and_puback_end_the_exchange(start: Start):
    world = await start(in_flight_maximum=1)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    for qos in (2, 1, 2):
        await writer.publish("t", qos=qos)
    message = await reader.receive()
    await reader.send(PubRec(message.packet_id, ReasonCode.QUOTA_EXCEEDED))
    message = await reader.receive()
    assert message.qos == 1
    await reader.send(PubAck(message.packet_id, ReasonCode.UNSPECIFIED_ERROR))
    assert (await reader.receive_publish()).qos == 2
    await reader.expect_nothing()


async def test_order_is_kept_through_window_and_queue(start: Start, version: int):
    world = await start(in_flight_maximum=3)
    reader = await world.connect("r", version)
    await reader.subscribe("t")
    writer = await world.connect("w", version)
    await writer.send(*[Publish("t", b"%d" % i, qos=1 + i % 2, packet_id=i + 1) for i in range(60)])
    await writer.send(*[PubRel(i + 1) for i in range(60) if i % 2])
    seen = [int((await reader.receive_publish()).payload) for _ in range(60)]
    assert seen == list(range(60))


async def test_window_is_the_clients_receive_maximum(start: Start):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 2})
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(5):
        await writer.publish("t", b"%d" % i, qos=2)
    await writer.publish("t", b"free", qos=0)  # QoS 0 needs no window
    a, b = await reader.receive(), await reader.receive()
    assert (a.payload, b.payload) == (b"0", b"1")
    assert (await reader.receive()).payload == b"free"
    await reader.expect_nothing()
    await reader.send(PubRec(b.packet_id))
    await reader.expect(PubRel(b.packet_id))
    await reader.expect_nothing()
    await reader.send(PubComp(b.packet_id))
    assert (await reader.receive()).payload == b"2"
    await reader.expect_nothing()
    assert world.metrics["queued"] == 2


async def test_more_than_our_receive_maximum_closes(start: Start):
    world = await start(receive_maximum=2)
    writer = await durable(world, "w", 5)
    assert writer.connack.properties[PropertyId.RECEIVE_MAXIMUM] == 2
    reader = await world.connect("r")
    await reader.subscribe("t")
    for i in (1, 2):
        await writer.send(Publish("t", b"%d" % i, qos=2, packet_id=i))
        await writer.expect(PubRec(i))
    await writer.publish("t", b"qos 1 is done at once", qos=1)
    await writer.send(Publish("t", b"3", qos=2, packet_id=3))
    await writer.expect_closed(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)
    writer = await durable(world, "w", 5, present=True)
    await writer.send(PubRel(1), PubRel(2))
    await writer.expect(PubComp(1), PubComp(2))
    # the third was not taken, so it is new
    await writer.send(Publish("t", b"3", qos=2, packet_id=3, dup=True))
    await writer.expect(PubRec(3))
    assert [(await reader.receive_publish()).payload for _ in range(4)][-1] == b"3"


async def test_receive_maximum_can_be_left_unenforced(start: Start):
    world = await start(receive_maximum=1, enforce_receive_maximum=False)
    writer = await world.connect("w")
    await writer.send(*[Publish("t", qos=2, packet_id=i) for i in (1, 2, 3)])
    for i in (1, 2, 3):
        await writer.expect(PubRec(i, ReasonCode.NO_MATCHING_SUBSCRIBERS))


async def test_unacknowledged_messages_come_again_in_order(start: Start, version: int):
    world = await start()
    reader = await durable(world, "r", version)
    await reader.subscribe("t")
    writer = await world.connect("w", version)
    for i in range(6):
        await writer.publish("t", b"%d" % i, qos=1 + i % 2)
    first = [await reader.receive() for _ in range(6)]
    await reader.send(PubAck(first[2].packet_id), PubRec(first[3].packet_id))
    await reader.expect(PubRel(first[3].packet_id))
    await reader.expect_nothing()
    await reader.lose()
    await writer.publish("t", b"6", qos=1)  # while away
    reader = await durable(world, "r", version, present=True)
    for message in first[:2] + first[4:]:
        await reader.expect(Publish("t", message.payload, qos=message.qos, packet_id=message.packet_id, dup=True))
    await reader.expect(PubRel(first[3].packet_id))  # what was sent last comes last
    new = await reader.receive_publish()
    assert (new.payload, new.dup) == (b"6", False)
    await reader.send(PubComp(first[3].packet_id), PubAck(first[0].packet_id), PubAck(first[4].packet_id))
    for message in (first[1], first[5]):
        await reader.send(PubRec(message.packet_id))
        await reader.expect(PubRel(message.packet_id))
        await reader.send(PubComp(message.packet_id))
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


async def test_resends_keep_within_the_new_window(start: Start):
    world = await start()
    reader = await durable(world, "r", 5)
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(6):
        await writer.publish("t", b"%d" % i, qos=1)
    for _ in range(6):
        await reader.receive()
    await reader.lose()
    reader = await durable(world, "r", 5, present=True, receive_maximum=2)
    await writer.publish("t", b"6", qos=1)
    one, two = await reader.receive(), await reader.receive()
    assert (one.payload, two.payload, one.dup) == (b"0", b"1", True)
    await reader.expect_nothing()
    await reader.send(PubAck(two.packet_id), PubAck(one.packet_id))
    seen = [await reader.receive_publish() for _ in range(5)]
    assert [m.payload for m in seen] == [b"2", b"3", b"4", b"5", b"6"]
    assert [m.dup for m in seen] == [True] * 4 + [False]


async def test_resend_that_is_too_large_now_is_dropped(start: Start):
    world = await start()
    reader = await durable(world, "r", 5)
    await reader.subscribe("t")
    writer = await world.connect("w")
    await writer.publish("t", bytes(500), qos=1)
    await writer.publish("t", b"small", qos=1)
    await reader.receive()
    await reader.receive()
    await reader.lose()
    reader = await durable(world, "r", 5, present=True, maximum_packet_size=100)
    assert (await reader.receive_publish()).payload == b"small"
    await reader.expect_nothing()
    assert world.metrics["messages_dropped_too_large"] == 1
    assert world.metrics["in_flight"] == 0


async def test_clean_start_forgets_the_session(start: Start, any_version: int):
    world = await start()
    reader = await durable(world, "r", any_version)
    await reader.subscribe("t")
    writer = await world.connect("w", any_version)
    await writer.publish("t", b"1", qos=1)
    await reader.receive()
    await reader.lose()
    await writer.publish("t", b"2", qos=2)
    reader = await world.connect("r", any_version)
    await reader.expect_nothing()
    await writer.publish("t", b"3", qos=1)
    await reader.expect_nothing()
    assert world.metrics["subscriptions"] == 0


async def test_31_is_not_told_of_its_session(start: Start):
    world = await start()
    reader = await world.connect("r", 3, clean_start=False)
    await reader.subscribe("t")
    await reader.disconnect()
    writer = await world.connect("w", 3)
    await writer.publish("t", b"1", qos=1)
    reader = await world.connect("r", 3, clean_start=False, session_present=False)
    assert (await reader.receive_publish()).payload == b"1"


@pytest.mark.parametrize("keeps", [False, True])
async def test_qos0_while_away(start: Start, version: int, keeps: bool):
    world = await start(queue_qos0_offline=keeps)
    reader = await durable(world, "r", version)
    await reader.subscribe("t")
    await reader.lose()
    writer = await world.connect("w", version)
    await writer.publish("t", b"0", qos=0)
    await writer.publish("t", b"1", qos=1)
    reader = await durable(world, "r", version, present=True)
    seen = [(await reader.receive_publish()).payload for _ in range(2 if keeps else 1)]
    assert seen == ([b"0", b"1"] if keeps else [b"1"])
    await reader.expect_nothing()


async def test_packet_ids_wrap_around_those_in_use(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=10)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    held = []
    for _ in range(3):
        await writer.publish("t", b"held", qos=1)
        held.append((await reader.receive_publish(acknowledge=False)).packet_id)
    seen = []
    batch = 5
    for _ in range(65_535 // batch + 2):
        await writer.send(*[Publish("t", qos=1, packet_id=1)] * batch)
        for _ in range(batch):
            await writer.receive()
        ids = [(await reader.receive()).packet_id for _ in range(batch)]
        seen += ids
        await reader.send(*[PubAck(i) for i in reversed(ids)])
    assert held == [1, 2, 3]
    assert seen[: 65_535 - 3] == list(range(4, 65_536))
    assert seen[65_532 : 65_532 + 5] == [4, 5, 6, 7, 8]
    await reader.send(PubAck(2))
    assert world.metrics["in_flight"] == 2


async def test_all_packet_ids_in_flight(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=65_535, queued_messages_maximum=100)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    ids = []
    for _ in range(0, 65_535 + 65, 50):
        await writer.send(*[Publish("t", qos=1, packet_id=1)] * 50)
        ids += [(await reader.receive()).packet_id for _ in range(min(50, 65_535 - len(ids)))]
    assert sorted(ids) == list(range(1, 65_536))
    assert world.metrics["queued"] == 65
    await reader.send(PubAck(40_000), PubAck(7))
    assert {(await reader.receive()).packet_id for _ in range(2)} == {7, 40_000}
    await reader.expect_nothing()


async def test_overlapping_subscriptions_bring_one_copy(start: Start, version: int):
    world = await start()
    reader = await world.connect("r", version)
    await reader.subscribe("a/+", qos=1, subscription_id=11 if version == 5 else 0)
    await reader.subscribe("a/#", qos=2, subscription_id=300 if version == 5 else 0)
    await reader.subscribe("a/b", qos=0)
    writer = await world.connect("w", version)
    await writer.publish("a/b", b"1", qos=2)
    message = await reader.receive_publish()
    assert message.qos == 2
    if version == 5:
        assert sorted(message.properties[PropertyId.SUBSCRIPTION_IDENTIFIER]) == [11, 300]
    await reader.expect_nothing()


async def test_identifiers_outlive_their_subscription_in_flight(start: Start):
    world = await start(in_flight_maximum=1, routes_cached_maximum=0)
    reader = await durable(world, "r", 5)
    await reader.subscribe("t", subscription_id=7)
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish("t", b"%d" % i, qos=1)
    await reader.receive()
    await reader.send(Unsubscribe(1, ["t"]))
    await reader.expect(UnsubAck(1, [0]))
    await writer.publish("t", b"nobody", qos=1)
    await reader.lose()
    reader = await durable(world, "r", 5, present=True)
    seen = [await reader.receive_publish() for _ in range(3)]
    assert [m.payload for m in seen] == [b"0", b"1", b"2"]
    assert all(
        m.properties == {PropertyId.SUBSCRIPTION_IDENTIFIER: (7,)}
        or m.properties == {PropertyId.SUBSCRIPTION_IDENTIFIER: [7]}
        for m in seen
    )
    await reader.expect_nothing()


async def test_resubscribing_replaces(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t", qos=2, subscription_id=1)
    await reader.subscribe("t", qos=0)
    await reader.publish("t", b"1", qos=2)
    message = await reader.receive_publish()
    assert (message.qos, message.properties) == (0, {})
    assert world.metrics["subscriptions"] == 1


async def test_no_local(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe(Subscription("t", 1, no_local=True), subscription_id=1)
    other = await world.connect("b")
    await peer.publish("t", b"own", qos=1)
    await peer.expect_nothing()
    await other.publish("t", b"other", qos=1)
    assert (await peer.receive_publish()).payload == b"other"
    # overlapping with a subscription that is not No Local: only that one counts for own messages
    await peer.subscribe(Subscription("+", 0), subscription_id=2)
    await peer.publish("t", b"own", qos=1)
    message = await peer.receive_publish()
    assert (message.qos, list(message.properties[PropertyId.SUBSCRIPTION_IDENTIFIER])) == (0, [2])


async def test_unsubscribe(start: Start, any_version: int):
    world = await start()
    peer = await world.connect("a", any_version)
    await peer.subscribe("a", "b/#")
    await peer.send(Unsubscribe(3, ["b/#", "c", "b/#"]))
    none = ReasonCode.NO_SUBSCRIPTION_EXISTED
    await peer.expect(UnsubAck(3, [0, none, none] if any_version == 5 else []))
    await peer.publish("b/c", b"1", qos=1)
    await peer.expect_nothing()
    assert world.metrics["subscriptions"] == 1


async def test_wildcards_do_not_match_dollar_topics(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("#", "+/x", "$own/x")
    await peer.publish("$own/x", b"1", qos=1)
    await peer.receive_publish()
    await peer.publish("$own/y", b"2", qos=1)
    await peer.expect_nothing()


async def test_suback_answers_each_filter(start: Start, version: int):
    world = await start(maximum_qos=1, subscriptions_per_session_maximum=2)
    peer = await world.connect("a", version)
    await peer.send(
        Subscribe(9, [Subscription("a", 2), Subscription("a#", 1), Subscription("b", 0), Subscription("c", 0)])
    )
    failed = [ReasonCode.TOPIC_FILTER_INVALID, ReasonCode.QUOTA_EXCEEDED] if version == 5 else [0x80, 0x80]
    await peer.expect(SubAck(9, [1, failed[0], 0, failed[1]]))


async def test_properties_travel_unaltered(start: Start):
    world = await start()
    properties = {
        PropertyId.PAYLOAD_FORMAT_INDICATOR: 1,
        PropertyId.CONTENT_TYPE: "text/plain",
        PropertyId.RESPONSE_TOPIC: "answers/1",
        PropertyId.CORRELATION_DATA: b"\x00\x01",
        PropertyId.USER_PROPERTY: [("a", "1"), ("b", "2"), ("a", "3")],
    }
    reader = await world.connect("r")
    old = await world.connect("old", 4)
    for peer in (reader, old):
        await peer.subscribe("t")
    writer = await world.connect("w")
    await writer.publish("t", b"1", qos=1, properties=properties)
    assert (await reader.receive_publish()).properties == properties
    assert (await old.receive_publish()).payload == b"1"
