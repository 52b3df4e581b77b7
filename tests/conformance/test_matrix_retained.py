"""Retained messages by Retain Handling, Retain As Published and shared, where the statements leave it to the reader."""

import itertools

import pytest

from conversations.conftest import Start
from mqttcore.codec import SubAck, Subscribe, Subscription, Will
from mqttcore.constants import PropertyId

from .peers import lasting

HANDLING = pytest.mark.parametrize("handling", [0, 1, 2])
AS_PUBLISHED = pytest.mark.parametrize("as_published", [False, True], ids=["RAP 0", "RAP 1"])
SHARED = pytest.mark.parametrize("prefix", ["", "$share/g/"], ids=["alone", "shared"])


@HANDLING
@AS_PUBLISHED
@SHARED
@pytest.mark.parametrize("has_before", [False, True], ids=["new", "there before"])
@pytest.mark.parametrize("away", [False, True], ids=["connected", "resumed"])
async def test_which_subscribe_brings_retained_messages(
    start: Start, handling: int, as_published: bool, prefix: str, has_before: bool, away: bool
):
    world = await start()
    peer = await lasting(world, "a")
    if has_before:
        await peer.subscribe(Subscription(prefix + "t/+", 1))
    if away:
        await peer.lose()
    writer = await world.connect("w")
    await writer.publish("t/qos0", b"0", retain=True)  # live: for who subscribed before, unless away
    await writer.publish("t/qos2", b"2", qos=2, retain=True)
    if away:
        peer = await lasting(world, "a", present=True)
    live = [] if not has_before else [b"2"] if away else [b"0", b"2"]
    assert [(await peer.receive_publish()).payload for _ in live] == live
    await peer.subscribe(
        Subscription(prefix + "t/+", 1, retain_as_published=as_published, retain_handling=handling),
        subscription_id=5,
    )
    if not prefix and (handling == 0 or (handling == 1 and not has_before)):
        found = {(m.payload, m.qos, m.retain) for m in [await peer.receive_publish() for _ in range(2)]}
        assert found == {(b"0", 0, True), (b"2", 1, True)}
    await peer.expect_nothing()


@HANDLING
@AS_PUBLISHED
@SHARED
@pytest.mark.parametrize("retain", [False, True], ids=["RETAIN 0", "RETAIN 1"])
@pytest.mark.parametrize("payload", [b"x", b""], ids=["kept", "cleared"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_live_messages_keep_retain_only_as_published(
    start: Start, handling: int, as_published: bool, prefix: str, retain: bool, payload: bytes, qos: int
):
    world = await start()
    peer = await world.connect("a")
    options = {"retain_as_published": as_published, "retain_handling": handling}
    await peer.subscribe(Subscription(prefix + "t", qos, **options))
    writer = await world.connect("w")
    await writer.publish("t", payload, qos=qos, retain=retain)
    message = await peer.receive_publish()
    assert (message.payload, message.qos, message.retain) == (payload, qos, retain and as_published)
    await peer.expect_nothing()
    assert world.metrics["retained"] == (retain and payload != b"")


@AS_PUBLISHED
@SHARED
@pytest.mark.parametrize("retain", [False, True], ids=["RETAIN 0", "RETAIN 1"])
async def test_queued_and_repeated_messages_keep_retain_as_when_sent(
    start: Start, as_published: bool, prefix: str, retain: bool
):
    world = await start()
    peer = await lasting(world, "a")
    await peer.subscribe(Subscription(prefix + "t", 1, retain_as_published=as_published))
    writer = await world.connect("w")
    await writer.publish("t", b"in flight", qos=1, retain=retain)
    assert (await peer.receive()).retain == (retain and as_published)
    await peer.lose()
    await writer.publish("t", b"queued", qos=1, retain=retain)
    peer = await lasting(world, "a", present=True)
    seen = [await peer.receive_publish() for _ in range(2)]
    assert [(m.payload, m.dup, m.retain) for m in seen] == [
        (b"in flight", True, retain and as_published),
        (b"queued", False, retain and as_published),
    ]
    await peer.expect_nothing()


async def test_repeated_retained_message_keeps_retain(start: Start):
    world = await start()
    await (await world.connect("w")).publish("t", b"x", qos=2, retain=True)
    peer = await lasting(world, "a")
    await peer.subscribe("t", subscription_id=3)
    first = await peer.receive()
    await peer.lose()
    peer = await lasting(world, "a", present=True)
    again = await peer.receive_publish()
    assert (again.payload, again.packet_id, again.dup, again.retain) == (b"x", first.packet_id, True, True)
    assert again.properties == {PropertyId.SUBSCRIPTION_IDENTIFIER: [3]}
    await peer.expect_nothing()


@pytest.mark.parametrize(("one", "two"), list(itertools.product([False, True], repeat=2)))
async def test_overlapping_subscriptions_keep_retain_when_one_asks_for_it(start: Start, one: bool, two: bool):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe(Subscription("t/+", 1, retain_as_published=one))
    await peer.subscribe(Subscription("t/#", 1, retain_as_published=two))
    await (await world.connect("w")).publish("t/x", b"x", qos=1, retain=True)
    assert (await peer.receive_publish()).retain == (one or two)
    await peer.expect_nothing()


async def test_each_filter_of_a_subscribe_has_its_own_handling(start: Start):
    world = await start()
    writer = await world.connect("w")
    for topic in "abcd":
        await writer.publish(topic, topic.encode(), retain=True)
    peer = await world.connect("a")
    await peer.send(
        Subscribe(
            1,
            [Subscription(f, 0, retain_handling=h) for f, h in (("a", 0), ("b", 1), ("c", 2))]
            + [Subscription("$share/g/d", 0), Subscription("b", 0, retain_handling=1)],
            {PropertyId.SUBSCRIPTION_IDENTIFIER: 7},
        )
    )
    await peer.expect(SubAck(1, [0, 0, 0, 0, 0]))
    seen = [await peer.receive_publish() for _ in range(2)]
    assert [(m.payload, m.retain) for m in seen] == [(b"a", True), (b"b", True)]
    assert all(m.properties == {PropertyId.SUBSCRIPTION_IDENTIFIER: [7]} for m in seen)
    await peer.expect_nothing()


@pytest.mark.parametrize("version", [3, 4])
async def test_older_versions_subscribe_as_with_all_options_zero(start: Start, version: int):
    world = await start()
    writer = await world.connect("w")
    await writer.publish("t", b"x", qos=1, retain=True)
    peer = await world.connect("a", version)
    for _ in range(2):
        await peer.subscribe("t")
        message = await peer.receive_publish()
        assert (message.payload, message.qos, message.retain) == (b"x", 1, True)
    await writer.publish("t", b"y", qos=1, retain=True)
    message = await peer.receive_publish()
    assert (message.payload, message.retain) == (b"y", False)
    await peer.expect_nothing()


@pytest.mark.parametrize("retain", [False, True])
@AS_PUBLISHED
async def test_will_is_retained_like_a_message(start: Start, retain: bool, as_published: bool):
    world = await start()
    watcher = await world.connect("watcher")
    await watcher.subscribe(Subscription("will", 1, retain_as_published=as_published))
    peer = await world.connect("a", will=Will("will", b"x", qos=1, retain=retain))
    await peer.lose()
    message = await watcher.receive_publish()
    assert (message.payload, message.qos, message.retain) == (b"x", 1, retain and as_published)
    late = await world.connect("late")
    await late.subscribe("will")
    if retain:
        assert (await late.receive_publish()).retain
    await late.expect_nothing()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_latest_retained_message_replaces_and_an_empty_one_clears(start: Start, qos: int):
    world = await start()
    writer = await world.connect("w")
    for payload in (b"1", b"2"):
        await writer.publish("t", payload, qos=qos, retain=True)
    await writer.publish("t", b"not retained", qos=qos)
    peer = await world.connect("a")
    await peer.subscribe("#")
    message = await peer.receive_publish()
    assert (message.payload, message.qos) == (b"2", qos)
    await writer.publish("t", b"", qos=qos, retain=True)
    assert (await peer.receive_publish()).payload == b""
    await peer.subscribe("#")
    await peer.expect_nothing()
    assert (world.metrics["retained"], world.metrics["retained_bytes"]) == (0, 0)
