"""Topic Names and Topic Filters: MQTT 5 §4.7."""

import pytest

from conversations.conftest import Start
from mqttcore.codec import Connect, Publish, SubAck, Subscribe, Subscription, Will
from mqttcore.constants import ReasonCode

from .peers import expect_bytes, read_until_closed


def publish(topic: bytes, *, qos: int = 0) -> bytes:
    rest = len(topic).to_bytes(2) + topic + (b"\x00\x01" if qos else b"") + b"\x00"
    return bytes([0x30 | qos << 1, len(rest)]) + rest


def subscribe(topic_filter: bytes) -> bytes:
    rest = b"\x00\x01\x00" + len(topic_filter).to_bytes(2) + topic_filter + b"\x00"
    return bytes([0x82, len(rest)]) + rest


@pytest.mark.mqtt5("4.7.0-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("topic", [b"#", b"+", b"a/#", b"a/+/b", b"a#", b"a+b", b"/+", b"$x/#"])
async def test_wildcard_in_a_topic_name_closes(start: Start, topic: bytes, qos: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("#", "$x/#")
    peer = await world.connect("a")
    await peer.send(publish(topic, qos=qos))
    await peer.expect_closed(ReasonCode.TOPIC_NAME_INVALID)
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.7.0-1")
@pytest.mark.parametrize("topic", ["#", "+", "a/+"])
async def test_wildcard_in_a_will_topic_is_refused(start: Start, topic: str):
    world = await start()
    peer = await world.open()
    await peer.send(Connect("a", will=Will("x" * len(topic))).encode(5).replace(b"x" * len(topic), topic.encode()))
    answer = await read_until_closed(peer)
    assert (answer[0], answer[3]) == (0x20, ReasonCode.TOPIC_NAME_INVALID)


@pytest.mark.mqtt5("4.7.1-1", "4.7.1-2")
@pytest.mark.parametrize(
    ("topic_filter", "is_valid"),
    [
        ("#", True), ("/#", True), ("a/#", True), ("a/b/#", True), ("+/#", True), ("//#", True),
        ("a#", False), ("#a", False), ("#/", False), ("#/a", False), ("a/#/b", False), ("a/b#", False), ("##", False),
        ("+", True), ("/+", True), ("+/", True), ("a/+", True), ("+/a", True), ("a/+/b", True), ("+/+", True),
        ("+a", False), ("a+", False), ("a/b+", False), ("a/+b", False), ("a/b+/c", False), ("++", False), ("+#", False),
        ("$a/+", True), ("$a/#", True), ("$a+", False),
    ],
)  # fmt: skip
async def test_wildcards_stand_alone_on_their_level_and_hash_on_the_last(
    start: Start, topic_filter: str, is_valid: bool
):
    world = await start()
    peer = await world.connect("a")
    for text in (topic_filter, "$share/g/" + topic_filter):
        await peer.send(Subscribe(1, [Subscription(text, 1)]))
        await peer.expect(SubAck(1, [1 if is_valid else ReasonCode.TOPIC_FILTER_INVALID]))
    assert world.metrics["subscriptions"] == 2 * is_valid


MATCHES = {
    "sport/tennis/player1/#": ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/a/b"],
    "sport/#": ["sport", "sport/", "sport/a"],
    "#": ["a", "/", "a/b", "/a", "é"],
    "sport/tennis/+": ["sport/tennis/player1", "sport/tennis/"],
    "sport/+": ["sport/"],
    "+/+": ["/finance", "a/b", "/"],
    "/+": ["/finance", "/"],
    "+": ["finance", "é"],
    "+/tennis/#": ["a/tennis", "/tennis/b"],
    "a/+/c": ["a/b/c", "a//c", "a/$b/c"],
    "$own/#": ["$own", "$own/a"],
    "$own/+/b": ["$own/a/b"],
    "a b/ c": ["a b/ c"],
}
MISMATCHES = {
    "sport/tennis/+": ["sport/tennis/player1/ranking", "sport/tennis"],
    "sport/+": ["sport", "sport/a/b"],
    "sport/#": ["sports", "Sport/a", "/sport"],
    "+": ["/finance", "a/b", "a/", "/"],
    "+/a": ["a", "b/c/a", "b/A"],
    "a/+/c": ["a/c", "a/b/b/c", "a/b/c/"],
    "a/b": ["a/b/", "/a/b", "a//b", "A/b", "a/b ", "a"],
}


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_match"),
    [(f, t, True) for f, topics in MATCHES.items() for t in topics]
    + [(f, t, False) for f, topics in MISMATCHES.items() for t in topics],
)
async def test_filter_matches_topic(start_clocked: Start, topic_filter: str, topic: str, is_match: bool):
    world = await start_clocked()
    peer = await world.connect("a")
    await peer.publish(topic, b"retained", retain=True)
    await peer.subscribe(topic_filter)
    if is_match:
        assert (await peer.receive_publish()).payload == b"retained"
    await peer.publish(topic, b"live")
    if is_match:
        assert (await peer.receive_publish()).topic == topic
    await peer.expect_nothing()


@pytest.mark.mqtt5("4.7.2-1")
@pytest.mark.parametrize("topic", ["$own", "$own/a", "$own/a/b", "$", "$/a"])
@pytest.mark.parametrize("topic_filter", ["#", "+", "+/#", "+/a", "+/+", "+/a/b", "+/a/#", "/#"])
@pytest.mark.parametrize("share", ["", "$share/g/"])
async def test_leading_wildcard_does_not_match_dollar_topics(
    start_clocked: Start, topic: str, topic_filter: str, share: str
):
    world = await start_clocked()
    writer = await world.connect("w")
    await writer.publish(topic, b"retained", retain=True)
    peer = await world.connect("a")
    await peer.subscribe(share + topic_filter)
    await writer.publish(topic, b"live")
    await peer.expect_nothing()
    await peer.subscribe(topic)  # the topic does work
    await peer.receive_publish()
    await writer.publish(topic, b"live")
    assert (await peer.receive_publish()).payload == b"live"


@pytest.mark.mqtt5("4.7.3-1")
async def test_empty_topic_name_closes(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(publish(b""))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("4.7.3-1")
async def test_empty_topic_filter_is_refused_and_one_character_is_enough(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(b""))
    await expect_bytes(peer, b"\x90\x04\x00\x01\x00\x8f")
    for text in (b"a", b"/", b" "):
        await peer.send(subscribe(text))
        await expect_bytes(peer, b"\x90\x04\x00\x01\x00\x00")
        await peer.publish(text.decode(), text)
        assert (await peer.receive_publish()).payload == text


@pytest.mark.mqtt5("4.7.3-2")
@pytest.mark.parametrize("text", [b"\x00", b"a\x00b", b"a/\x00"])
async def test_null_character_closes(start: Start, text: bytes):
    world = await start()
    for data in (publish(text), publish(text, qos=1), subscribe(text)):
        peer = await world.connect("a")
        await peer.send(data)
        await peer.expect_closed(ReasonCode.MALFORMED_PACKET)


@pytest.mark.mqtt5("4.7.3-3")
async def test_longest_topic_and_filter_are_taken(start: Start):
    world = await start()
    peer = await world.connect("a")
    topic = "ab" * 32_767 + "c"
    await peer.subscribe(topic)
    await peer.publish(topic, b"x", qos=1)
    message = await peer.receive_publish()
    assert (message.topic, message.payload) == (topic, b"x")


@pytest.mark.mqtt5("4.7.3-3")
async def test_broker_publishes_no_longer_topic(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("#")
    with pytest.raises(ValueError, match="Topic Name"):
        world.engine.publish_bytes(b"a" * 65_536, b"x")
    await peer.expect_nothing()


@pytest.mark.mqtt5("4.7.3-4")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "A"),
        ("ä", "Ä"),
        ("\u00e1", "a\u0301"),
        ("\ufb01", "fi"),
        ("a", "a "),
        ("a b", "a\u00a0b"),
        ("a", "\ufeffa"),
        ("a/b", "a//b"),
        ("a", "/a"),
        ("a", "a/"),
        ("a/../b", "b"),
        ("a%2Fb", "a/b"),
        ("a", "a\u200b"),
        ("\ufffd", "\ufffe"),
    ],
)
async def test_topics_that_only_look_alike_do_not_match(start: Start, one: str, other: str):
    world = await start()
    peer = await world.connect("a")
    for topic, topic_filter in ((one, other), (other, one)):
        await peer.subscribe(topic_filter)
        await peer.publish(topic, b"no")
        await peer.expect_nothing()
        await peer.send(Publish(topic_filter, b"yes"))
        message = await peer.receive_publish()
        assert (message.topic, message.payload) == (topic_filter, b"yes")
        await peer.send(b"\xa2" + bytes([5 + len(topic_filter.encode())]) + b"\x00\x01\x00"
                        + len(topic_filter.encode()).to_bytes(2) + topic_filter.encode())  # fmt: skip
        await expect_bytes(peer, b"\xb0\x04\x00\x01\x00\x00")
