"""Retained messages: kept, replaced, removed, replayed, expired."""

import pytest

from mqttcore.codec import PubAck, Publish, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start


async def test_retained_message_answers_each_subscription(start: Start, any_version: int):
    world = await start()
    writer = await world.connect("w", any_version)
    await writer.publish("a/b", b"old", qos=1, retain=True)
    await writer.publish("a/b", b"new", qos=2, retain=True)
    await writer.publish("a", b"other", qos=0, retain=True)
    reader = await world.connect("r", any_version)
    await reader.subscribe("a/+", qos=1)
    message = await reader.receive_publish()
    assert (message.payload, message.qos, message.retain, message.dup) == (b"new", 1, True, False)
    await reader.subscribe("a/+", qos=0)  # again: sent again
    message = await reader.receive_publish()
    assert (message.payload, message.qos, message.retain) == (b"new", 0, True)
    await reader.expect_nothing()
    await writer.publish("a/b", b"", retain=True)
    assert world.metrics["retained"] == 1
    removed = await reader.receive_publish()  # goes to those who are subscribed, as an ordinary message
    assert (removed.payload, removed.retain) == (b"", False)
    await reader.subscribe("a/+")
    await reader.expect_nothing()


@pytest.mark.parametrize("handling", [0, 1, 2])
async def test_retain_handling(start: Start, handling: int):
    world = await start()
    peer = await world.connect("a")
    await peer.publish("t", b"kept", retain=True)
    for is_new in (True, False):
        await peer.subscribe(Subscription("t", 0, retain_handling=handling))
        if handling == 0 or (handling == 1 and is_new):
            assert (await peer.receive_publish()).payload == b"kept"
        await peer.expect_nothing()


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("retain", [False, True])
async def test_retain_as_published(start: Start, as_published: bool, retain: bool):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe(Subscription("t", 1, retain_as_published=as_published))
    await peer.publish("t", b"1", qos=1, retain=retain)
    assert (await peer.receive_publish()).retain is (retain and as_published)


async def test_shared_subscriptions_get_no_retained_messages(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.publish("t", b"kept", retain=True)
    await peer.subscribe("$share/g/t")
    await peer.expect_nothing()


async def test_replay_carries_the_subscription_identifier_and_properties(start: Start):
    world = await start()
    peer = await world.connect("a")
    user = [("k", "v")]
    await peer.publish("t", b"1", retain=True, properties={PropertyId.USER_PROPERTY: user})
    await peer.subscribe("t", subscription_id=268_435_455)
    message = await peer.receive_publish()
    assert message.properties[PropertyId.USER_PROPERTY] == user
    assert list(message.properties[PropertyId.SUBSCRIPTION_IDENTIFIER]) == [268_435_455]


async def test_dollar_topics_are_replayed_to_their_own_filters_only(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.publish("$own/t", b"1", retain=True)
    await peer.subscribe("#", "+/t")
    await peer.expect_nothing()
    await peer.subscribe("$own/#")
    await peer.receive_publish()


async def test_replay_of_many_waits_for_window_and_reader(start: Start):
    world = await start(output_high_water_bytes=4096)
    writer = await world.connect("w")
    for part in range(20):
        await writer.send(*[Publish(f"x/{part}/{i}", bytes(100), retain=True) for i in range(100)])
    await writer.expect_nothing()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 3})
    await reader.subscribe("x/#", qos=0)
    seen = {(await reader.receive_publish()).topic for _ in range(2000)}
    assert len(seen) == 2000
    await writer.send(*[Publish(f"y/{i}", b"1", qos=1, packet_id=1, retain=True) for i in range(50)])
    for _ in range(50):
        await writer.receive()
    await reader.subscribe("y/#", qos=1)
    batch = [await reader.receive() for _ in range(3)]
    await reader.expect_nothing()
    await reader.send(*[PubAck(m.packet_id) for m in batch])
    topics = {m.topic for m in batch} | {(await reader.receive_publish()).topic for _ in range(47)}
    assert len(topics) == 50
    await reader.expect_nothing()


async def test_replay_goes_on_over_long_stretches_without_a_match(start: Start):
    world = await start()
    writer = await world.connect("w")
    for part in range(30):
        await writer.send(*[Publish(f"x/{part}/{i}/no", b"1", retain=True) for i in range(100)])
    await writer.publish("x/29/0/yes", b"1", retain=True)
    await writer.publish("x/0/99/yes", b"1", retain=True)
    reader = await world.connect("r")
    await reader.subscribe("x/+/+/yes", qos=0)
    assert {(await reader.receive_publish()).topic for _ in range(2)} == {"x/29/0/yes", "x/0/99/yes"}


async def test_reconnecting_does_not_repeat_a_replay(start: Start):
    world = await start()
    writer = await world.connect("w")
    for i in range(5):
        await writer.publish(f"t/{i}", b"1", qos=1, retain=True)
    fields = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 60}}
    fields["properties"][PropertyId.RECEIVE_MAXIMUM] = 1
    reader = await world.connect("r", **fields)
    await reader.subscribe("t/#", qos=1)
    first = await reader.receive()
    await reader.lose()
    reader = await world.connect("r", session_present=True, **fields)
    again = await reader.receive_publish()
    assert (again.topic, again.packet_id, again.retain, again.dup) == (first.topic, first.packet_id, True, True)
    await reader.expect_nothing()


async def test_retained_quota(start: Start, version: int):
    world = await start(retained_messages_maximum=1)
    peer = await world.connect("a", version)
    await peer.subscribe("#", qos=0)
    await peer.publish("a", b"1", retain=True)
    await peer.receive_publish()
    await peer.send(Publish("b", b"2", qos=1, packet_id=5, retain=True))
    assert (await peer.receive()).payload == b"2"  # those who are subscribed get it all the same
    await peer.expect(PubAck(5, ReasonCode.QUOTA_EXCEEDED if version == 5 else 0))
    await peer.publish("a", b"3", retain=True)  # replacing needs no room
    assert world.metrics["retained"] == 1
    assert world.metrics["messages_dropped_quota"] == 1


async def test_retain_not_available(start: Start):
    world = await start(retain_available=False)
    peer = await world.connect("a")
    assert peer.connack.properties[PropertyId.RETAIN_AVAILABLE] == 0
    await peer.send(Publish("t", b"1", retain=True))
    await peer.expect_closed(ReasonCode.RETAIN_NOT_SUPPORTED)


async def test_retained_message_expires(start_clocked: Start):
    world = await start_clocked()
    peer = await world.connect("a")
    await peer.publish("t", b"1", retain=True, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 10})
    world.advance(4_000)
    await peer.subscribe("t")
    assert (await peer.receive_publish()).properties == {PropertyId.MESSAGE_EXPIRY_INTERVAL: 6}
    world.advance(6_000)
    await peer.subscribe("t")
    await peer.expect_nothing()
    assert world.metrics["retained"] == 1
    assert world.engine.sweep() == 1
    assert world.metrics["retained"] == 0


async def test_one_subscribe_with_several_filters_replays_each(start: Start):
    world = await start()
    peer = await world.connect("a")
    for topic in ("a", "b"):
        await peer.publish(topic, b"1", retain=True)
    await peer.send(Subscribe(1, [Subscription("a", 0), Subscription("#", 1), Subscription("b", 0)]))
    await peer.expect(SubAck(1, [0, 1, 0]))
    topics = [(await peer.receive_publish()).topic for _ in range(4)]
    assert sorted(topics) == ["a", "a", "b", "b"]
    await peer.expect_nothing()


async def test_unsubscribing_ends_the_replay(start: Start):
    world = await start()
    writer = await world.connect("w")
    for i in range(5):
        await writer.publish(f"a/{i}", b"1", qos=1, retain=True)
        await writer.publish(f"b/{i}", b"1", qos=1, retain=True)
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 1})
    await reader.subscribe("a/#", "b/#", qos=1)
    first = await reader.receive()
    await reader.send(Unsubscribe(1, ["a/#"]))
    await reader.expect(UnsubAck(1, [0]))
    await reader.send(PubAck(first.packet_id))
    topics = [(await reader.receive_publish()).topic for _ in range(5)]  # none of a/ was begun since [MQTT-3.10.4-2]
    assert sorted(topics) == [f"b/{i}" for i in range(5)]
    await reader.expect_nothing()


async def test_subscribing_again_brings_the_retained_messages_once_more(start: Start):
    world = await start()
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish(f"a/{i}", b"1", qos=1, retain=True)
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 1})
    await reader.subscribe("a/#", qos=1)
    first = await reader.receive()
    for _ in range(2):  # each brings them once more
        await reader.subscribe("a/#", qos=1)
    await reader.send(PubAck(first.packet_id))
    topics = [first.topic] + [(await reader.receive_publish()).topic for _ in range(8)]
    assert [sorted(topics[i : i + 3]) for i in (0, 3, 6)] == [["a/0", "a/1", "a/2"]] * 3
    await reader.expect_nothing()
