"""MQTT 5 §3.3: PUBLISH, from clients and to them."""

from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import World
from mqttcore.codec import PubAck, PubComp, Publish, PubRec, PubRel, SubAck, Subscribe, Subscription, UnsubAck, Will
from mqttcore.constants import PropertyId, ReasonCode

from .v5_wire import (
    PLAIN,
    ack,
    block,
    connack,
    connect,
    expect_bytes,
    packet,
    pair,
    publish,
    resume,
    subscribe,
    text,
    unsubscribe,
)

MALFORMED = ReasonCode.MALFORMED_PACKET
ALL_QOS = [0, 1, 2]
DURABLE: dict[str, Any] = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}}


# --- DUP --------------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.3.1-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_redelivered_publish_has_dup_and_what_follows_has_not(start: Start, qos: int):
    world = await start(**PLAIN)
    reader = await world.connect("r", **DURABLE)
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish("t", b"%d" % i, qos=qos)
    await expect_bytes(reader, *[publish("t", b"%d" % i, flags=qos << 1, packet_id=i + 1) for i in range(3)])
    for _ in range(2):  # every time
        await reader.lose()
        reader = await resume(world, "r")
        again = [publish("t", b"%d" % i, flags=8 | qos << 1, packet_id=i + 1) for i in range(3)]
        await expect_bytes(reader, connack(session_present=True), *again)
    await writer.publish("t", b"new", qos=qos)
    await expect_bytes(reader, publish("t", b"new", flags=qos << 1, packet_id=4))


@pytest.mark.mqtt5("3.3.1-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_message_that_was_only_queued_has_no_dup(start: Start, qos: int):
    world = await start(in_flight_maximum=1)
    reader = await world.connect("r", **DURABLE)
    await reader.subscribe("t")
    writer = await world.connect("w")
    for payload in (b"sent", b"queued"):
        await writer.publish("t", payload, qos=qos)
    await expect_bytes(reader, publish("t", b"sent", flags=qos << 1, packet_id=1))
    await reader.lose()
    await writer.publish("t", b"while away", qos=qos)
    reader = await world.connect("r", **DURABLE, session_present=True)
    seen = [await reader.receive_publish() for _ in range(3)]
    assert [(m.payload, m.dup) for m in seen] == [(b"sent", True), (b"queued", False), (b"while away", False)]


@pytest.mark.mqtt5("3.3.1-2")
async def test_dup_at_qos_0_is_malformed(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.connect("c")
    await peer.send(publish("t", b"x", flags=8))
    await peer.expect_closed(MALFORMED)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.1-2", "3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("granted", ALL_QOS)
async def test_dup_of_a_received_publish_is_not_passed_on(start: Start, qos: int, granted: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t", qos=granted)
    writer = await world.connect("w")
    await writer.send(publish("t", b"x", flags=8 | qos << 1, packet_id=7))
    await expect_bytes(reader, publish("t", b"x", flags=min(qos, granted) << 1, packet_id=1))


@pytest.mark.mqtt5("3.3.1-3")
async def test_dup_of_a_received_publish_is_neither_queued_nor_retained(start: Start):
    world = await start(**PLAIN)
    reader = await world.connect("r", **DURABLE)
    await reader.subscribe("t")
    await reader.lose()
    writer = await world.connect("w")
    await writer.send(publish("t", b"x", flags=8 | 2 | 1, packet_id=7))
    await writer.expect(PubAck(7))
    reader = await resume(world, "r")
    await expect_bytes(reader, connack(session_present=True), publish("t", b"x", flags=2, packet_id=1))
    late = await world.connect("late")
    await late.send(subscribe("t", 1))
    await expect_bytes(late, ack(0x90, 1, block(), b"\x01"), publish("t", b"x", flags=3, packet_id=1))


# --- QoS --------------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.3.1-4")
@pytest.mark.parametrize("flags", [0x6, 0x7, 0xE, 0xF], ids=hex)
async def test_both_qos_bits_are_malformed(start: Start, flags: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.connect("c")
    await peer.send(publish("t", b"x", flags=flags, packet_id=1))
    await peer.expect_closed(MALFORMED)
    await reader.expect_nothing()
    assert world.metrics["retained"] == 0


@pytest.mark.mqtt5("3.3.4-1")
async def test_answer_to_publish_is_that_of_its_qos(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    peer = await world.connect("c")
    await peer.send(publish("t"), publish("t", flags=2, packet_id=1), publish("t", flags=4, packet_id=2), b"\xc0\x00")
    await expect_bytes(peer, ack(0x40, 1), ack(0x50, 2), b"\xd0\x00")
    await peer.send(ack(0x62, 2))
    await expect_bytes(peer, ack(0x70, 2))


# --- RETAIN -----------------------------------------------------------------------------------------------------------


async def retained_of(world: World, topic_filter: str = "t", qos: int = 2) -> list[tuple[str, bytes]]:
    """What a new subscriber gets."""
    peer = await world.connect("")
    await peer.send(Subscribe(1, [Subscription(topic_filter, qos)]))
    await peer.expect(SubAck(1, [qos]))
    await peer.send(b"\xc0\x00")
    found = []
    while isinstance(message := await peer.receive(), Publish):
        assert message.retain
        found.append((message.topic, message.payload))
    await peer.lose()
    return sorted(found)


@pytest.mark.mqtt5("3.3.1-5")
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_retained_message_is_kept_and_replaces_the_one_before(start: Start, qos: int):
    world = await start()
    peer = await world.connect("c")
    await peer.publish("t", b"first", qos=2, retain=True, properties={PropertyId.CONTENT_TYPE: "one"})
    assert await retained_of(world) == [("t", b"first")]
    await peer.publish("t", b"second", qos=qos, retain=True)
    await peer.publish("t/below", b"other", qos=qos, retain=True)
    await peer.disconnect()  # it does not belong to the session
    assert await retained_of(world) == [("t", b"second")]
    assert await retained_of(world, "#") == [("t", b"second"), ("t/below", b"other")]
    late = await world.connect("late")
    await late.subscribe("t")
    message = await late.receive_publish()
    assert (message.payload, message.qos, message.properties) == (b"second", qos, {})


@pytest.mark.mqtt5("3.3.1-6", "3.3.1-7")
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_empty_retained_message_removes_and_is_delivered_but_not_kept(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe(Subscription("t", 2, retain_as_published=True))
    peer = await world.connect("c")
    await peer.publish("t", b"x", retain=True)
    await peer.publish("other", b"y", retain=True)
    await reader.receive_publish()
    await peer.publish("t", b"", qos=qos, retain=True, properties={PropertyId.USER_PROPERTY: [("not", "empty")]})
    message = await reader.receive_publish()
    assert (message.payload, message.qos, message.retain) == (b"", qos, True)
    assert await retained_of(world, "#") == [("other", b"y")]
    await peer.publish("never", b"", qos=qos, retain=True)
    assert await retained_of(world, "#") == [("other", b"y")]
    assert world.metrics["retained"] == 1


@pytest.mark.mqtt5("3.3.1-8")
@pytest.mark.parametrize("qos", ALL_QOS)
@pytest.mark.parametrize("payload", [b"", b"other"])
async def test_message_that_is_not_retained_leaves_the_retained_one(start: Start, qos: int, payload: bytes):
    world = await start()
    peer = await world.connect("c")
    await peer.publish("t", b"kept", retain=True)
    await peer.publish("t", payload, qos=qos)
    await peer.publish("fresh", b"x", qos=qos)
    assert await retained_of(world, "#") == [("t", b"kept")]


@pytest.mark.mqtt5("3.3.1-9", "3.3.1-10", "3.3.1-11")
@pytest.mark.parametrize(
    ("handling", "first", "again", "after_unsubscribe"),
    [(0, True, True, True), (1, True, False, True), (2, False, False, False)],
)
async def test_retained_messages_are_sent_as_retain_handling_says(
    start: Start, handling: int, first: bool, again: bool, after_unsubscribe: bool
):
    world = await start()
    writer = await world.connect("w")
    for topic in ("t/a", "t/b", "u"):
        await writer.publish(topic, topic.encode(), retain=True)

    async def subscribe_again(expected: bool) -> None:
        await reader.send(Subscribe(1, [Subscription("t/+", 1, retain_handling=handling)]))
        await reader.expect(SubAck(1, [1]))
        await reader.send(b"\xc0\x00")
        got = []
        while isinstance(message := await reader.receive(), Publish):
            got.append(message.topic)
        assert sorted(got) == (["t/a", "t/b"] if expected else [])

    reader = await world.connect("r", **DURABLE)
    await subscribe_again(first)
    await subscribe_again(again)
    await reader.lose()
    reader = await world.connect("r", **DURABLE, session_present=True)
    await subscribe_again(again)  # the subscription existed in the session
    await reader.send(unsubscribe("t/+"))
    await reader.expect(UnsubAck(1, [0]))
    await subscribe_again(after_unsubscribe)


@pytest.mark.mqtt5("3.3.1-9")
async def test_every_matching_retained_message_is_sent_however_many_there_are(start: Start):
    world = await start(retained_messages_maximum=5000)
    writer = await world.connect("w")
    await writer.send(*[publish(f"t/{i % 50}/{i}", b"x", flags=1) for i in range(3000)])
    await writer.expect_nothing()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 10})
    await reader.subscribe("t/#")
    assert len({(await reader.receive_publish()).topic for _ in range(3000)}) == 3000
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.1-12", "3.3.1-13")
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("qos", ALL_QOS)
@pytest.mark.parametrize("way", ["at once", "queued", "resent"])
async def test_retain_flag_when_forwarding(start: Start, retain: bool, as_published: bool, qos: int, way: str):
    world = await start(queue_qos0_offline=True)
    reader = await world.connect("r", **DURABLE)
    await reader.subscribe(Subscription("t", 2, retain_as_published=as_published))
    writer = await world.connect("w")
    if way == "queued":
        await reader.lose()
    await writer.publish("t", b"x", qos=qos, retain=retain)
    if way == "resent" and qos:
        assert (await reader.receive()).retain == (retain and as_published)
    if way == "queued" or (way == "resent" and qos):
        await reader.lose()
        reader = await world.connect("r", **DURABLE, session_present=True)
    assert (await reader.receive_publish()).retain == (retain and as_published)


# --- topic names ------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.3.2-1")
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (packet(0x30), MALFORMED),
        (packet(0x30, b"\x00"), MALFORMED),
        (packet(0x30, b"\x00\x05ab\x00"), MALFORMED),
        (packet(0x32, b"\x00\x01", b"t"), MALFORMED),
        (packet(0x30, b"\xff\xff", b"t"), MALFORMED),
        (publish(b"\xff"), MALFORMED),
        (publish(b"t\x00"), MALFORMED),
        (publish(b"", b"x"), ReasonCode.PROTOCOL_ERROR),
        (publish(b"", b"x", flags=2, packet_id=1), ReasonCode.PROTOCOL_ERROR),
    ],
    ids=["nothing", "half a length", "cut", "no packet id", "long", "ill-formed", "NUL", "empty", "empty at QoS 1"],
)
async def test_publish_without_a_good_topic_name_first_closes(start: Start, data: bytes, code: ReasonCode):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("#")
    peer = await world.connect("c")
    await peer.send(data)
    await peer.expect_closed(code)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.2-1")
@pytest.mark.parametrize("topic", ["t", " ", "/", "//", "a/ b", "\u65e5\u672c/\U0001f600", "$own", "T" * 65_535])
async def test_topic_name_is_passed_on_as_it_came(start: Start, topic: str):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe(topic, qos=0)
    peer = await world.connect("c")
    await peer.send(publish(topic, b"x"))
    await expect_bytes(reader, publish(topic, b"x"))


@pytest.mark.mqtt5("3.3.2-2")
@pytest.mark.parametrize("topic", ["#", "+", "a/#", "a/+/b", "a#", "+a", "$share/g/#", "a/b+"])
@pytest.mark.parametrize("qos", ALL_QOS)
@pytest.mark.parametrize("properties", [b"", b"\x23\x00\x01"], ids=["plain", "alias"])
async def test_wildcard_in_a_topic_name_closes(start: Start, topic: str, qos: int, properties: bytes):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("#")
    peer = await world.connect("c", **DURABLE)
    await peer.send(publish(topic, b"x", flags=qos << 1, packet_id=1, properties=properties))
    await peer.expect_closed(ReasonCode.TOPIC_NAME_INVALID)
    await reader.expect_nothing()
    assert world.metrics["awaiting_release"] == 0


@pytest.mark.mqtt5("3.3.2-3")
@pytest.mark.parametrize(
    ("topic_filter", "matching", "others"),
    [
        ("a/b", ["a/b"], ["a", "a/b/c", "a/B", "/a/b", "a/b/"]),
        ("a/+", ["a/b", "a/", "a/x"], ["a", "a/b/c", "b/a"]),
        ("+/b", ["a/b", "/b"], ["$x/b", "b", "a/a/b"]),
        ("a/#", ["a", "a/b", "a/b/c", "a/"], ["b", "ab/c", "$a/b"]),
        ("#", ["a", "/", "a/b"], ["$x", "$x/a"]),
        ("$x/#", ["$x", "$x/a"], ["x", "a/$x"]),
        ("$share/g/a/+", ["a/b"], ["a", "g/a/b"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_topic_name_sent_matches_the_filter(
    start: Start, topic_filter: str, matching: list[str], others: list[str]
):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe(topic_filter, qos=0)
    writer = await world.connect("w")
    await writer.send(*[publish(topic, b"x") for topic in [*others, *matching, *others]])
    await expect_bytes(reader, *[publish(topic, b"x") for topic in matching])
    await reader.expect_nothing()
    await writer.expect_nothing()


# --- properties that are passed on ------------------------------------------------------------------------------------

PASSED_ON = {
    "payload format 0": b"\x01\x00",
    "payload format 1": b"\x01\x01",
    "response topic": b"\x08" + text("a/ns\u00fcwer"),
    "empty correlation data": b"\x09\x00\x00",
    "correlation data": b"\x09" + text(bytes(range(256))),
    "content type": b"\x03" + text("application/\u00fc+json"),
    "empty content type": b"\x03\x00\x00",
    "user properties": pair("b", "1") + pair("a", "2") + pair("b", "1") + pair("", "") + pair("a", "1"),
    "many user properties": b"".join(pair(f"k{i * 7919 % 300}", "v" * (i % 40)) for i in range(300)),
    "all": pair("z", "1")
    + b"\x03\x00\x01x\x01\x01"
    + pair("a", "2")
    + b"\x09\x00\x01\x00\x08\x00\x01r"
    + pair("z", "0"),
}
LABELS = ("3.3.2-4", "3.3.2-15", "3.3.2-16", "3.3.2-17", "3.3.2-18", "3.3.2-20")


@pytest.mark.mqtt5(*LABELS)
@pytest.mark.parametrize("properties", PASSED_ON.values(), ids=PASSED_ON)
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_properties_reach_every_subscriber_unaltered_and_in_order(start: Start, properties: bytes, qos: int):
    world = await start()
    readers = [await world.connect(f"r{i}") for i in range(3)]
    for reader in readers:
        await reader.subscribe("t", qos=2)
    writer = await world.connect("w")
    await writer.send(publish("t", b"x", flags=qos << 1, packet_id=9, properties=properties))
    for reader in readers:
        await expect_bytes(reader, publish("t", b"x", flags=qos << 1, packet_id=1, properties=properties))


@pytest.mark.mqtt5(*LABELS)
@pytest.mark.parametrize("properties", PASSED_ON.values(), ids=PASSED_ON)
async def test_properties_survive_retaining_queueing_and_resending(start: Start, properties: bytes):
    world = await start(**PLAIN)
    reader = await world.connect("r", **DURABLE)
    await reader.subscribe("t", qos=1)
    await reader.lose()
    writer = await world.connect("w")
    await writer.send(publish("t", b"x", flags=3, packet_id=9, properties=properties))
    await writer.expect(PubAck(9))
    for flags in (0x2, 0xA):
        reader = await resume(world, "r")
        message = publish("t", b"x", flags=flags, packet_id=1, properties=properties)
        await expect_bytes(reader, connack(session_present=True), message)
        await reader.lose()
    late = await world.connect("late")
    await late.send(subscribe("t"))
    await expect_bytes(late, ack(0x90, 1, block(), b"\x00"), publish("t", b"x", flags=1, properties=properties))


@pytest.mark.mqtt5(*LABELS)
@pytest.mark.parametrize("properties", PASSED_ON.values(), ids=PASSED_ON)
async def test_properties_of_an_aliased_publish_are_passed_on_without_the_alias(start: Start, properties: bytes):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    writer = await world.connect("w")
    alias = b"\x23\x00\x03"
    await writer.send(
        publish("t", b"1", properties=properties + alias),
        publish("", b"2", properties=alias + properties),
        publish("", b"3", properties=properties + alias),
    )
    await expect_bytes(reader, *[publish("t", b"%d" % i, properties=properties) for i in (1, 2, 3)])


@pytest.mark.mqtt5("3.3.2-13", "3.3.2-19")
@pytest.mark.parametrize("bad", [b"\xff", b"a\xed\xa0\x80", b"a\x00b"], ids=repr)
@pytest.mark.parametrize("identifier", [b"\x08", b"\x03"], ids=["response topic", "content type"])
async def test_response_topic_and_content_type_must_be_utf8(start: Start, identifier: bytes, bad: bytes):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.connect("c")
    await peer.send(publish("t", properties=identifier + text(bad)))
    await peer.expect_closed(MALFORMED)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.2-14")
@pytest.mark.parametrize("topic", ["#", "+", "a/+", "a/#", "a+b", ""])
async def test_response_topic_with_wildcard_or_empty_closes(start: Start, topic: str):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.connect("c")
    await peer.send(publish("t", properties=b"\x08" + text(topic)))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.2-14")
async def test_response_topic_of_a_will_with_wildcard_is_refused(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(connect(text("c"), block(b"\x08\x00\x03a/#"), text("t"), text(""), flags=0x06))
    assert (await peer.receive()).reason_code == ReasonCode.PROTOCOL_ERROR
    await peer.expect_closed()


# --- message expiry ---------------------------------------------------------------------------------------------------


def expiring(seconds: int) -> bytes:
    return b"\x02" + seconds.to_bytes(4, "big")


@pytest.mark.mqtt5("3.3.2-5")
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_expired_message_is_not_sent_to_who_was_away(start_clocked: Start, qos: int):
    world = await start_clocked(queue_qos0_offline=True)
    reader = await world.connect("r", **DURABLE)
    await reader.subscribe("t")
    await reader.lose()
    writer = await world.connect("w")
    for payload, seconds in ((b"short", 10), (b"long", 30)):
        await writer.send(publish("t", payload, flags=qos << 1, packet_id=1, properties=expiring(seconds)))
        await writer.send(ack(0x62, 1) if qos == 2 else b"")
    await writer.send(publish("t", b"for ever", flags=qos << 1, packet_id=1))
    world.advance(10_000)
    reader = await world.connect("r", **DURABLE, session_present=True)
    assert [(await reader.receive_publish()).payload for _ in range(2)] == [b"long", b"for ever"]
    await reader.expect_nothing()
    assert world.metrics["messages_dropped_expired"] == 1
    assert world.metrics["queued"] == 0


@pytest.mark.mqtt5("3.3.2-5")
async def test_expired_message_is_not_sent_when_the_window_opens(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=1)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    for payload in (b"1", b"2", b"3"):
        await writer.publish(
            "t", payload, qos=1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 5 + 5 * (payload == b"3")}
        )
    first = await reader.receive()
    world.advance(6_000)
    await reader.send(PubAck(first.packet_id))
    assert (await reader.receive_publish()).payload == b"3"
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.2-5")
@pytest.mark.parametrize("swept", [True, False])
async def test_expired_retained_message_is_not_sent(start_clocked: Start, swept: bool):
    world = await start_clocked()
    writer = await world.connect("w")
    await writer.publish("t", b"x", retain=True, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 5})
    world.advance(4_000)
    assert await retained_of(world) == [("t", b"x")]
    world.advance(1_000)
    if swept:
        world.engine.sweep()
        assert world.metrics["retained"] == 0
    assert await retained_of(world) == []


@pytest.mark.mqtt5("3.3.2-6")
@pytest.mark.parametrize("way", ["at once", "queued", "window", "retained", "resent", "will"])
@pytest.mark.parametrize("waited_ms", [0, 3_000, 9_000])
async def test_expiry_interval_sent_is_what_is_left_of_it(start_clocked: Start, way: str, waited_ms: int):
    world = await start_clocked(in_flight_maximum=1)
    reader = await world.connect("r", **DURABLE)
    writer = await world.connect("w", will=Will("t", b"x", qos=1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 10}))
    if way != "retained":
        await reader.subscribe("t")
    if way == "window":
        await writer.publish("t", b"first", qos=1)
        first = await reader.receive()
    if way in ("queued", "will"):
        await reader.lose()
    data = publish(
        "t", b"x", flags=3 if way == "retained" else 2, packet_id=1, properties=pair("a", "b") + expiring(10)
    )
    if way == "will":
        await writer.lose()
    else:
        await writer.send(data)
    if way == "at once":
        assert (await reader.receive_publish()).properties[PropertyId.MESSAGE_EXPIRY_INTERVAL] == 10
        return
    if way == "resent":
        assert (await reader.receive()).properties[PropertyId.MESSAGE_EXPIRY_INTERVAL] == 10
        await reader.lose()
    world.advance(waited_ms)
    if way == "retained":
        await reader.subscribe("t")
    elif way == "window":
        await reader.send(PubAck(first.packet_id))
    else:
        reader = await world.connect("r", **DURABLE, session_present=True)
    message = await reader.receive_publish()
    assert message.payload == b"x"
    assert message.properties[PropertyId.MESSAGE_EXPIRY_INTERVAL] == 10 - waited_ms // 1000


# --- topic aliases ----------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.3.2-7")
@pytest.mark.parametrize("is_takeover", [True, False], ids=["takeover", "reconnect"])
async def test_alias_of_an_earlier_connection_is_unknown(start: Start, is_takeover: bool):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("#")
    first = await world.connect("c", **DURABLE)
    await first.send(publish("t", b"1", properties=b"\x23\x00\x01"), publish("", b"2", properties=b"\x23\x00\x01"))
    assert [(await reader.receive_publish()).topic for _ in range(2)] == ["t", "t"]
    if not is_takeover:
        await first.lose()
    second = await world.connect("c", **DURABLE, session_present=True)
    await second.send(publish("", b"3", properties=b"\x23\x00\x01"))
    await second.expect_closed(ReasonCode.PROTOCOL_ERROR)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.2-7")
async def test_server_teaches_its_aliases_anew_on_every_connection(start: Start):
    world = await start()
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000, PropertyId.TOPIC_ALIAS_MAXIMUM: 10}
    writer = await world.connect("w")
    for i in range(3):
        reader = await world.connect("r", clean_start=False, session_present=i > 0, properties=properties)
        await reader.subscribe("long/topic", qos=0)
        for topic in ("long/topic", ""):
            await writer.publish("long/topic", b"x")
            message = await reader.receive()
            assert message.topic == topic
            assert message.properties[PropertyId.TOPIC_ALIAS]
        await reader.lose()


@pytest.mark.mqtt5("3.3.2-7")
async def test_alias_belongs_to_one_connection(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("#")
    one, other = await world.connect("1"), await world.connect("2")
    await one.publish("t/1", b"x", properties={PropertyId.TOPIC_ALIAS: 1})
    await other.publish("t/2", b"x", properties={PropertyId.TOPIC_ALIAS: 1})
    await one.send(publish("", b"y", properties=b"\x23\x00\x01"))
    await other.send(publish("", b"z", properties=b"\x23\x00\x01"))
    seen = [await reader.receive_publish() for _ in range(4)]
    assert sorted((m.topic, m.payload) for m in seen) == [("t/1", b"x"), ("t/1", b"y"), ("t/2", b"x"), ("t/2", b"z")]


@pytest.mark.mqtt5("3.3.2-8")
@pytest.mark.parametrize("topic", ["t", ""])
async def test_alias_zero_closes(start: Start, topic: str):
    world = await start()
    peer = await world.connect("c")
    await peer.send(publish(topic, b"x", properties=b"\x23\x00\x00"))
    await peer.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


@pytest.mark.mqtt5("3.3.2-9")
@pytest.mark.parametrize(("maximum", "alias"), [(0, 1), (1, 2), (32, 33), (32, 65535)])
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_alias_above_the_maximum_closes(start: Start, maximum: int, alias: int, qos: int):
    world = await start(topic_alias_maximum=maximum)
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.connect("c")
    await peer.send(publish("t", flags=qos << 1, packet_id=1, properties=b"\x23" + alias.to_bytes(2, "big")))
    await peer.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.2-8", "3.3.2-11")
@pytest.mark.parametrize(("client", "server"), [(1, 32), (3, 32), (300, 2), (65535, 65535), (10, 0), (0, 32)])
async def test_aliases_that_the_server_sends_are_within_both_maxima(start: Start, client: int, server: int):
    world = await start(topic_alias_maximum_out=server)
    reader = await world.connect("r", properties={PropertyId.TOPIC_ALIAS_MAXIMUM: client})
    await reader.subscribe("topic/+", qos=1)
    writer = await world.connect("w")
    known: dict[int, str] = {}
    for i in range(60):
        topic = f"topic/{i * i % 13}"
        await writer.publish(topic, b"x", qos=i % 2)
        message = await reader.receive_publish()
        alias = message.properties.get(PropertyId.TOPIC_ALIAS)
        if alias is None:
            assert message.topic == topic
            continue
        assert 1 <= alias <= min(client, server)
        known.setdefault(alias, message.topic)
        if message.topic:
            known[alias] = message.topic
        assert known[alias] == topic
    assert bool(known) == bool(client and server)


@pytest.mark.mqtt5("3.3.2-12")
@pytest.mark.parametrize("maximum", [1, 7, 65535])
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_every_alias_up_to_the_maximum_is_taken_and_can_be_set_anew(start: Start, maximum: int, qos: int):
    world = await start(topic_alias_maximum=maximum)
    reader = await world.connect("r")
    await reader.subscribe("#", qos=0)
    peer = await world.connect("c")
    numbers = sorted({n for n in (1, 2, 3, 6, 7, 255, 256, 32767, 32768, 65534, 65535) if n <= maximum})
    expected = []
    for turn in ("one", "two"):
        for n in numbers:
            alias = b"\x23" + n.to_bytes(2, "big")
            await peer.send(publish(f"{turn}/{n}", b"set", flags=qos << 1, packet_id=n, properties=alias))
            await peer.send(ack(0x62, n) if qos == 2 else b"")
            expected.append(publish(f"{turn}/{n}", b"set"))
        for n in reversed(numbers):
            alias = b"\x23" + n.to_bytes(2, "big")
            await peer.send(publish("", b"used", flags=qos << 1, packet_id=n, properties=alias))
            await peer.send(ack(0x62, n) if qos == 2 else b"")
            expected.append(publish(f"{turn}/{n}", b"used"))
    await expect_bytes(reader, *expected)


# --- overlapping subscriptions ----------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.3.4-2")
@pytest.mark.parametrize("published", ALL_QOS)
@pytest.mark.parametrize("granted", [(0, 1, 2), (2, 1, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0)], ids=repr)
async def test_overlapping_subscriptions_give_one_copy_of_the_highest_qos(
    start: Start, published: int, granted: tuple[int, ...]
):
    world = await start()
    reader = await world.connect("r")
    for topic_filter, qos in zip(("a/b", "a/+", "#"), granted, strict=True):
        await reader.subscribe(topic_filter, qos=qos)
    writer = await world.connect("w")
    await writer.publish("a/b", b"x", qos=published)
    assert (await reader.receive_publish()).qos == min(published, max(granted))
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.4-3", "3.3.4-4", "3.3.4-5")
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_the_one_copy_has_the_identifiers_of_all_matching_subscriptions(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r", **DURABLE)
    largest = 268_435_455
    for topic_filter, subscription_id in (
        ("a/b", 1),
        ("a/+", 200),
        ("#", largest),
        ("+/b", 0),
        ("a/c", 9),
        ("a/#", 200),
    ):
        await reader.subscribe(topic_filter, qos=qos, subscription_id=subscription_id)
    writer = await world.connect("w")
    await writer.publish("a/b", b"x", qos=2, properties={PropertyId.CONTENT_TYPE: "c"})
    message = await reader.receive()
    assert message.properties[PropertyId.CONTENT_TYPE] == "c"
    assert set(message.properties[PropertyId.SUBSCRIPTION_IDENTIFIER]) == {1, 200, largest}
    await reader.expect_nothing()
    if qos:
        await reader.lose()
        await writer.publish("a/b", b"queued", qos=2)
        reader = await world.connect("r", **DURABLE, session_present=True)
        for payload in (b"x", b"queued"):
            message = await reader.receive_publish()
            assert message.payload == payload
            assert set(message.properties[PropertyId.SUBSCRIPTION_IDENTIFIER]) == {1, 200, largest}


@pytest.mark.mqtt5("3.3.4-3")
async def test_identifier_is_that_of_the_latest_subscription_to_the_filter(start: Start):
    world = await start()
    reader = await world.connect("r")
    writer = await world.connect("w")
    for subscription_id in (5, 6, 0, 7):
        await reader.subscribe("t", qos=0, subscription_id=subscription_id)
        await writer.publish("t", b"x")
        identifier = b"\x0b" + bytes([subscription_id]) if subscription_id else b""
        await expect_bytes(reader, publish("t", b"x", properties=identifier))


@pytest.mark.mqtt5("3.3.4-3")
async def test_retained_message_has_the_identifier_of_the_subscription_it_answers(start: Start):
    world = await start()
    writer = await world.connect("w")
    await writer.publish("t", b"x", retain=True)
    reader = await world.connect("r")
    for topic_filter, identifier in (("t", b"\x0b\x05"), ("+", b"\x0b\x80\x01"), ("t", b"\x0b\x07")):
        await reader.send(subscribe(topic_filter, properties=identifier))
        message = publish("t", b"x", flags=1, properties=identifier)
        await expect_bytes(reader, ack(0x90, 1, block(), b"\x00"), message)


@pytest.mark.mqtt5("3.3.4-6")
@pytest.mark.parametrize("properties", [b"\x0b\x01", pair("a", "b") + b"\x0b\x80\x01"], ids=["alone", "behind"])
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_subscription_identifier_from_a_client_closes(start: Start, properties: bytes, qos: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.connect("c")
    await peer.send(publish("t", flags=qos << 1, packet_id=1, properties=properties))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    await reader.expect_nothing()


# --- receive maximum --------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.3.4-7")
@pytest.mark.parametrize("maximum", [1, 3, 20])
async def test_more_messages_than_the_servers_receive_maximum_close(start: Start, maximum: int):
    world = await start(receive_maximum=maximum)
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.connect("c")
    assert peer.connack.properties[PropertyId.RECEIVE_MAXIMUM] == maximum
    for i in range(maximum):
        await peer.send(publish("t", b"%d" % i, flags=4, packet_id=i + 1))
        await peer.expect(PubRec(i + 1))
        assert (await reader.receive_publish()).payload == b"%d" % i
    await peer.send(publish("t", b"over", flags=4, packet_id=1000))
    await peer.expect_closed(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.4-7")
async def test_what_is_completed_makes_room_under_the_receive_maximum(start: Start):
    world = await start(receive_maximum=2)
    peer = await world.connect("c")
    none = ReasonCode.NO_MATCHING_SUBSCRIBERS
    for i in range(1, 50, 2):
        await peer.send(publish("t", flags=4, packet_id=i), publish("t", flags=4, packet_id=i + 1))
        await peer.expect(PubRec(i, none), PubRec(i + 1, none))
        await peer.send(publish("t", flags=12, packet_id=i))  # the same message again takes no more room
        await peer.expect(PubRec(i))
        await peer.send(ack(0x62, i), ack(0x62, i + 1))
        await peer.expect(PubComp(i), PubComp(i + 1))
    for i in (1, 2, 3):  # PUBREC with an error ends an exchange at once
        await peer.send(publish("$SYS/x", flags=4, packet_id=i))
        await peer.expect(PubRec(i, ReasonCode.NOT_AUTHORIZED))
    await peer.send(*[publish("t", flags=2, packet_id=i) for i in range(100, 110)])
    await peer.expect(*[PubAck(i, none) for i in range(100, 110)])


@pytest.mark.mqtt5("3.3.4-7")
async def test_receive_maximum_counts_anew_on_each_connection(start: Start):
    world = await start(receive_maximum=2)
    none = ReasonCode.NO_MATCHING_SUBSCRIBERS
    peer = await world.connect("c", **DURABLE)
    await peer.send(publish("t", flags=4, packet_id=1), publish("t", flags=4, packet_id=2))
    await peer.expect(PubRec(1, none), PubRec(2, none))
    await peer.lose()
    peer = await world.connect("c", **DURABLE, session_present=True)
    await peer.send(publish("t", flags=4, packet_id=3), publish("t", flags=4, packet_id=4))
    await peer.expect(PubRec(3, none), PubRec(4, none))
    await peer.send(ack(0x62, 1), ack(0x62, 2))  # of the connection before: no room here
    await peer.expect(PubComp(1), PubComp(2))
    await peer.send(publish("t", flags=4, packet_id=5))
    await peer.expect_closed(ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)


@pytest.mark.mqtt5("3.3.4-9")
@pytest.mark.parametrize("maximum", [1, 2, 7])
@pytest.mark.parametrize("qos", [1, 2])
async def test_server_stays_within_the_clients_receive_maximum(start: Start, maximum: int, qos: int):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: maximum})
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(20):
        await writer.publish("t", b"%d" % i, qos=qos)
    pending = [await reader.receive() for _ in range(maximum)]
    await reader.expect_nothing()
    seen = [int(m.payload) for m in pending]
    while pending:
        message = pending.pop(0)
        if qos == 2:
            await reader.send(PubRec(message.packet_id))  # not done yet: no room
            await reader.expect(PubRel(message.packet_id))
            await reader.expect_nothing()
            await reader.send(PubComp(message.packet_id))
        else:
            await reader.send(PubAck(message.packet_id))
        if len(seen) < 20:
            pending.append(await reader.receive())
            seen.append(int(pending[-1].payload))
        await reader.expect_nothing()
    assert seen == list(range(20))


@pytest.mark.mqtt5("3.3.4-9")
@pytest.mark.parametrize("qos", [1, 2])
async def test_refusing_acknowledgement_makes_room(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 1})
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish("t", b"%d" % i, qos=qos)
    for i in range(3):
        message = await reader.receive()
        assert message.payload == b"%d" % i
        kind = PubAck if qos == 1 else PubRec
        await reader.send(kind(message.packet_id, ReasonCode.QUOTA_EXCEEDED))
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


@pytest.mark.mqtt5("3.3.4-9")
@pytest.mark.parametrize("source", ["resend", "retained", "queue"])
async def test_receive_maximum_holds_for_every_source_of_messages(start: Start, source: str):
    world = await start()
    writer = await world.connect("w")
    if source == "retained":
        for i in range(6):
            await writer.publish(f"t/{i}", b"%d" % i, qos=1, retain=True)
        reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 2})
        await reader.subscribe("t/#")
    else:
        reader = await world.connect("r", **DURABLE)
        await reader.subscribe("t/#")
        if source == "queue":
            await reader.lose()
        for i in range(6):
            await writer.publish(f"t/{i}", b"%d" % i, qos=1)
        if source == "resend":
            for _ in range(6):
                await reader.receive()
            await reader.lose()
        small = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000, PropertyId.RECEIVE_MAXIMUM: 2}
        reader = await world.connect("r", clean_start=False, session_present=True, properties=small)
    pending = [await reader.receive(), await reader.receive()]
    await reader.expect_nothing()
    for _ in range(4):
        await reader.send(PubAck(pending.pop(0).packet_id))
        pending.append(await reader.receive())
        await reader.expect_nothing()


@pytest.mark.mqtt5("3.3.4-10")
async def test_other_packets_are_not_held_back_by_a_full_window(start: Start):
    world = await start()
    peer = await world.connect("c", properties={PropertyId.RECEIVE_MAXIMUM: 1})
    await peer.subscribe("t", subscription_id=1)
    writer = await world.connect("w")
    for i in range(5):
        await writer.publish("t", b"%d" % i, qos=2)
    held = await peer.receive()
    await peer.send(
        *[publish("u", flags=2, packet_id=7), publish("u", flags=4, packet_id=8), ack(0x62, 8)],
        *[subscribe("v", packet_id=9), unsubscribe("v", packet_id=10), b"\xc0\x00", ack(0x50, held.packet_id)],
    )
    await expect_bytes(
        peer,
        *[ack(0x40, 7, b"\x10"), ack(0x50, 8, b"\x10"), ack(0x70, 8), ack(0x90, 9, block(), b"\x00")],
        *[ack(0xB0, 10, block(), b"\x00"), b"\xd0\x00", ack(0x62, held.packet_id)],
    )
    await writer.publish("t", b"QoS 0 has no window", qos=0)
    await expect_bytes(peer, publish("t", b"QoS 0 has no window", properties=b"\x0b\x01"))
