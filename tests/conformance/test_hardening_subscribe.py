"""Hardening cases 37-42: SUBSCRIBE and UNSUBSCRIBE, filters, and what topics they may reach."""

import pytest

from conversations.conftest import Start
from mqttcore.codec import PubAck
from mqttcore.config import Authorization

from .hardening_bytes import (
    answer_to_connect,
    assert_fatal,
    assert_refused,
    assert_says,
    block,
    connect,
    packet,
    publish,
    subscribe,
    text,
    u16,
    unsubscribe,
    versions,
)

# MQTT 5 calls a SUBSCRIBE or UNSUBSCRIBE without filter, QoS 3 and retain handling 3 Protocol Errors (0x82), other
# reserved bits malformed (0x81).
BROKEN = {
    "SUBSCRIBE without filter": (lambda v: subscribe(v), 0x82),
    "UNSUBSCRIBE without filter": (lambda v: unsubscribe(v), 0x82),
    "SUBSCRIBE with flags 0": (lambda v: subscribe(v, ("t", 0), first=0x80), 0x81),
    "SUBSCRIBE with flags 3": (lambda v: subscribe(v, ("t", 0), first=0x83), 0x81),
    "UNSUBSCRIBE with flags 0": (lambda v: unsubscribe(v, "t", first=0xA0), 0x81),
    "UNSUBSCRIBE with flags 10": (lambda v: unsubscribe(v, "t", first=0xAA), 0x81),
    "option bit 6": (lambda v: subscribe(v, ("t", 0x40)), 0x81),
    "option bit 7 of the second": (lambda v: subscribe(v, ("t", 0), ("u", 0x81)), 0x81),
    "QoS 3": (lambda v: subscribe(v, ("t", 3)), 0x82),
    "filter without options": (lambda v: subscribe(v, ("t", 0))[:1] + b"\x05" + u16(1) + b"\x00\x01t", 0x81),
    "filter past the end": (lambda v: packet(0x82, u16(1), block(v), b"\x00\x09t\x00"), 0x81),
    "half a length": (lambda v: packet(0xA2, u16(1), block(v), b"\x00"), 0x81),
}


@pytest.mark.mqtt3("3.8.1-1", "3.8.3-3", "3-8.3-4", "3.10.1-1", "3.10.3-2")
@pytest.mark.mqtt5("3.8.1-1", "3.8.3-2", "3.8.3-5", "3.10.1-1", "3.10.3-2")
@versions
@pytest.mark.parametrize(("make", "code"), BROKEN.values(), ids=BROKEN.keys())
async def test_case_37_broken_subscribe_or_unsubscribe_closes(start: Start, version: int, make, code: int):
    world = await start()
    await assert_fatal(world, version, make(version), code)
    assert world.metrics["subscriptions"] == 0


async def test_case_37_retain_handling_3_closes(start: Start):
    await assert_fatal(await start(), 5, subscribe(5, ("t", 0x30)), 0x82)


@pytest.mark.mqtt3("3-8.3-4")
@pytest.mark.parametrize("options", [0x04, 0x08, 0x10, 0x20])
async def test_case_37_options_of_mqtt_5_close_in_3_1_1(start: Start, options: int):
    await assert_fatal(await start(), 4, subscribe(4, ("t", options)), 0x81)


@pytest.mark.mqtt3("4.7.1-2", "4.7.1-3", "4.7.3-1")
@pytest.mark.mqtt5("4.7.1-1", "4.7.1-2", "4.7.3-1")
@versions
@pytest.mark.parametrize(
    "topic_filter", ["a#", "#/b", "a/#/b", "a/b#", "##", "a+", "+a", "a/+b/c", "++", "a/b+/#", "+#", ""]
)
async def test_case_38_filter_with_a_misplaced_wildcard_is_refused(start: Start, version: int, topic_filter: str):
    world = await start()
    peer = await world.connect("c", version)
    await peer.send(subscribe(version, ("before", 1), (topic_filter, 1), ("behind", 1)))
    await assert_says(peer, packet(0x90, u16(1), block(version), bytes([1, 0x8F if version == 5 else 0x80, 1])))
    assert world.metrics["subscriptions"] == 2


@versions
@pytest.mark.parametrize("topic_filter", ["a#", "#/b", "a+", ""])
async def test_case_38_misplaced_wildcard_in_unsubscribe_removes_nothing(start: Start, version: int, topic_filter: str):
    world = await start()
    peer = await world.connect("c", version)
    await peer.subscribe("a", "b", "#")
    await peer.send(unsubscribe(version, topic_filter, "a"))
    await assert_says(peer, b"\xb0\x05\x00\x01\x00\x8f\x00" if version == 5 else b"\xb0\x02\x00\x01")
    assert world.metrics["subscriptions"] == 2


SHARES = ["$share//x", "$share/a+/x", "$share/a#/x", "$share/+/x", "$share/a", "$share/a/", "$share/"]


@pytest.mark.mqtt5("4.8.2-1", "4.8.2-2")
@pytest.mark.parametrize("topic_filter", SHARES)
async def test_case_39_share_without_a_name_or_filter_is_refused(start: Start, topic_filter: str):
    world = await start()
    peer = await world.connect("c")
    await peer.send(subscribe(5, (topic_filter, 1)))
    await assert_says(peer, b"\x90\x04\x00\x01\x00\x8f")
    assert (world.metrics["subscriptions"], world.metrics["shared_groups"]) == (0, 0)


@pytest.mark.mqtt5("3.8.3-4")
async def test_case_39_no_local_on_a_share_closes(start: Start):
    world = await start()
    await assert_fatal(world, 5, subscribe(5, ("plain", 0), ("$share/g/t", 0x05)), 0x82)
    assert world.metrics["shared_groups"] == 0


@versions
async def test_case_40_subscriptions_over_the_limit_are_refused_one_by_one(start: Start, version: int):
    world = await start(subscriptions_per_session_maximum=3)
    peer = await world.connect("c", version)
    await peer.send(subscribe(version, *((f"f/{n}", 1) for n in range(5))))
    over = 0x97 if version == 5 else 0x80
    await assert_says(peer, packet(0x90, u16(1), block(version), bytes([1, 1, 1, over, over])))
    # what is there may be changed, and a place that gets free may be used
    await peer.send(subscribe(version, ("f/0", 0)), unsubscribe(version, "f/1"), subscribe(version, ("f/9", 2)))
    end = block(version)
    await assert_says(
        peer,
        packet(0x90, u16(1), end, b"\x00")
        + packet(0xB0, u16(1), end, b"\x00" if version == 5 else b"")
        + packet(0x90, u16(1), end, b"\x02"),
    )
    assert world.metrics["subscriptions"] == 3


@versions
async def test_case_40_ten_thousand_filters_in_one_packet(start: Start, version: int):
    world = await start()
    peer = await world.connect("c", version)
    await peer.send(subscribe(version, *((f"f/{n}", 1) for n in range(10_001))))
    codes = (await peer.receive()).reason_codes
    assert codes == [1] * 10_000 + [0x97 if version == 5 else 0x80]
    assert world.metrics["subscriptions"] == 10_000
    await peer.send(unsubscribe(version, *(f"f/{n}" for n in range(10_001))))
    assert (await peer.receive()).packet_id == 1
    assert world.metrics["subscriptions"] == 0


@versions
@pytest.mark.parametrize(
    "topic_filter", ["/" * 128, "/" * 65535, "+/" * 128 + "+", "a/" * 128 + "#"], ids=lambda f: f"{f[:4]} {len(f)}"
)
async def test_case_41_filter_with_too_many_levels_is_refused(start: Start, version: int, topic_filter: str):
    world = await start()
    peer = await world.connect("c", version)
    await peer.send(subscribe(version, (topic_filter, 1)))
    await assert_says(peer, packet(0x90, u16(1), block(version), b"\x97" if version == 5 else b"\x80"))
    assert world.engine.topics.count == 0


async def test_case_41_filter_with_as_many_levels_as_allowed_works(start: Start):
    world = await start()
    peer = await world.connect("c")
    await peer.subscribe("/".join("+" * 128))
    await peer.publish("/".join("a" * 128), b"deep", qos=1)
    assert (await peer.receive_publish()).payload == b"deep"


STEPS_PER_NODE = 4  # a match looks at a node for its own level, `+` and `#`, and once as it goes on


async def test_case_41_filters_of_plus_signs_cost_no_more_steps_than_they_have_nodes(start: Start):
    world = await start()
    peer = await world.connect("c")
    # each level of the first 8 as text or `+`: 256 filters that all match one topic of 60 levels
    tail = "/+" * 52
    filters = ["/".join("+" if n >> level & 1 else "a" for level in range(8)) + tail for n in range(256)]
    await peer.subscribe(*filters, qos=0)
    nodes = world.engine.topics.node_count
    before = world.engine.topics.steps
    await peer.publish("/".join("a" * 60))
    assert await peer.receive_publish()
    assert 0 < world.engine.topics.steps - before <= nodes * STEPS_PER_NODE


@versions
async def test_case_41_topic_of_65535_levels_is_matched_as_far_as_filters_go(start: Start, version: int):
    world = await start()
    peer = await world.connect("c", version)
    await peer.subscribe("#", "+/+/#", "/////#", "/" * 100 + "#", qos=0)
    nodes = world.engine.topics.node_count
    before = world.engine.topics.steps
    await peer.publish("/" * 65535, b"deep")
    assert (await peer.receive_publish()).payload == b"deep"
    assert 0 < world.engine.topics.steps - before <= nodes * STEPS_PER_NODE


@pytest.mark.parametrize("levels", [129, 65536])
async def test_case_41_retained_message_on_too_many_levels_is_refused(start: Start, levels: int):
    world = await start()
    peer = await world.connect("c")
    await peer.send(publish(5, "/" * (levels - 1), b"deep", first=0x33, packet_id=1))
    await peer.expect(PubAck(1, 0x97))
    assert world.metrics["retained"] == 0


@pytest.mark.mqtt3("4.7.2-1")
@pytest.mark.mqtt5("4.7.2-1")
@versions
@pytest.mark.parametrize("topic_filter", ["#", "+/x", "+/#", "+/+"])
async def test_case_42_wildcard_in_front_does_not_reach_dollar_topics(start: Start, version: int, topic_filter: str):
    world = await start()
    reader = await world.connect("r", version)
    writer = await world.connect("w", version)
    await writer.publish("$own/x", b"kept", retain=True)
    await reader.subscribe(topic_filter)
    await reader.expect_nothing()
    await writer.publish("$own/x", b"live")
    await reader.expect_nothing()
    await reader.subscribe("$own/+", qos=0)
    assert (await reader.receive_publish()).payload == b"kept"
    await writer.publish("$own/x", b"live")
    assert (await reader.receive_publish()).payload == b"live"


@versions
@pytest.mark.parametrize("retain", [0, 1], ids=["live", "retained"])
async def test_case_42_clients_cannot_publish_below_sys(start: Start, version: int, retain: int):
    world = await start(authorization=Authorization(refused_publish="drop"))
    peer = await world.connect("w", version)
    await peer.send(
        publish(version, "$SYS/broker/version", b"mine", first=0x30 | retain),
        publish(version, "$SYS/broker/version", b"mine", first=0x32 | retain, packet_id=1),
        publish(version, "$SYS/broker/version", b"mine", first=0x34 | retain, packet_id=2),
    )
    refused = b"\x40\x03\x00\x01\x87\x50\x03\x00\x02\x87" if version == 5 else b"\x40\x02\x00\x01\x50\x02\x00\x02"
    await assert_says(peer, refused)
    assert world.metrics["retained"] == 0
    assert world.metrics["messages_dropped_not_authorized"] == 3
    await peer.expect_nothing()


@versions
async def test_case_42_wills_cannot_go_below_sys(start: Start, version: int):
    will = block(version) + text("$SYS/broker/version") + text("mine")
    said = await answer_to_connect(await start(), version, connect(version, flags=0x06, tail=will))
    assert_refused(said, version, 0x87 if version == 5 else 0x05)
