"""MQTT 3.1.1 §3.3 to §3.7 PUBLISH and its acknowledgements: flags, topic, retained messages, response, overlaps."""

import pytest

from conversations.conftest import Start
from mqttcore.config import Authorization

from .v3_wire import (
    CLEAN,
    DUP,
    PINGREQ,
    QOS1,
    QOS2,
    RESUMED,
    RETAIN,
    Wire,
    client,
    packet,
    packet_id_of,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
    text,
)

qos_1_and_2 = pytest.mark.parametrize("qos", [QOS1, QOS2], ids=["QoS 1", "QoS 2"])


async def expect_publish(wire: Wire, topic: str, payload: bytes, *, flags: int = 0) -> int:
    """Take a PUBLISH that has just these flags, topic and payload; return its packet id, 0 at QoS 0."""
    got = await wire.receive()
    packet_id = packet_id_of(got) if got[0] & 6 else 0
    assert got == publish(topic, payload, flags=flags, packet_id=packet_id)
    return packet_id


# --- DUP and QoS


@pytest.mark.mqtt3("3.3.1-1", "4.4.0-1", "4.3.2-1", "4.3.3-1")
@qos_1_and_2
async def test_redelivery_has_dup_and_its_packet_identifier(start: Start, qos: int):
    world = await start()
    subscriber = await client(world, "s", flags=0)
    await subscriber.subscribe(("t", 2))
    publisher = await client(world, "p")
    await publisher.publish("t", b"1", flags=qos)
    packet_id = await expect_publish(subscriber, "t", b"1", flags=qos)
    for _ in range(3):
        await subscriber.lose()
        subscriber = await client(world, "s", flags=0, answer=RESUMED)
        await subscriber.expect(publish("t", b"1", flags=qos | DUP, packet_id=packet_id))


@pytest.mark.mqtt3("3.3.1-2", "4.3.1-1")
async def test_qos_0_is_sent_without_dup(start: Start):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe(("t", 0))
    publisher = await client(world, "p")
    for flags in (0, QOS1, QOS2, QOS1 | DUP, QOS2 | DUP):
        await publisher.publish("t", b"1", flags=flags)
        await wire.expect(publish("t", b"1"))


@pytest.mark.mqtt3("3.3.1-3")
@qos_1_and_2
async def test_dup_of_the_publisher_is_not_passed_on(start: Start, qos: int):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe(("t", 2))
    publisher = await client(world, "p")
    await publisher.publish("t", b"1", flags=qos | DUP)
    await expect_publish(wire, "t", b"1", flags=qos)


@pytest.mark.mqtt3("3.3.1-3")
@qos_1_and_2
async def test_dup_of_the_publisher_is_not_kept_with_queued_and_retained_messages(start: Start, qos: int):
    world = await start()
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 2))
    await wire.disconnect()
    publisher = await client(world, "p")
    await publisher.publish("t", b"1", flags=qos | DUP | RETAIN)
    wire = await client(world, "c", flags=0, answer=RESUMED)
    await expect_publish(wire, "t", b"1", flags=qos)
    other = await client(world, "d")
    await other.subscribe(("t", 2))
    await expect_publish(other, "t", b"1", flags=qos | RETAIN)


@pytest.mark.mqtt3("3.3.1-4")
@pytest.mark.parametrize("flags", [6, 6 | DUP, 6 | RETAIN])
async def test_qos_3_closes(start: Start, flags: int):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await client(world, "c")
    await wire.send(publish("t", b"1", flags=flags, packet_id=1), PINGREQ)
    await wire.expect_closed()
    await watcher.expect_nothing()


# --- retained messages


@pytest.mark.mqtt3("3.3.1-5", "3.3.1-6", "3.3.1-8", "3.8.4-6")
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("flags", [0, QOS1, QOS2])
async def test_retained_message_is_stored_with_its_qos_for_later_subscribers(start: Start, flags: int, granted: int):
    world = await start()
    publisher = await client(world, "p")
    await publisher.publish("t", b"old", flags=flags | RETAIN)
    await publisher.publish("t", b"last", flags=flags | RETAIN)
    await publisher.disconnect()
    for name in ("s1", "s2"):
        wire = await client(world, name)
        await wire.send(subscribe(1, ("t", granted)))
        await wire.expect(suback(1, granted))
        await expect_publish(wire, "t", b"last", flags=min(flags, granted << 1) | RETAIN)
        await wire.expect_nothing()


@pytest.mark.mqtt3("3.3.1-6", "3.3.1-8", "3.3.2-3")
async def test_new_subscription_gets_the_retained_message_of_each_matching_topic(start: Start):
    world = await start()
    publisher = await client(world, "p")
    for topic in ("a", "a/b", "a/b/c", "a/c", "b", "$a"):
        await publisher.publish(topic, topic.encode(), flags=RETAIN)
    for topic_filter, expected in (
        ("a/#", {"a", "a/b", "a/b/c", "a/c"}),
        ("a/+", {"a/b", "a/c"}),
        ("+", {"a", "b"}),
        ("+/b/#", {"a/b", "a/b/c"}),
        ("#", {"a", "a/b", "a/b/c", "a/c", "b"}),
        ("$a", {"$a"}),
        ("c", set()),
    ):
        wire = await client(world, "s")
        await wire.subscribe((topic_filter, 0))
        got = {await wire.receive() for _ in expected}
        assert got == {publish(topic, topic.encode(), flags=RETAIN) for topic in expected}
        await wire.expect_nothing()
        await wire.disconnect()


@pytest.mark.mqtt3("3.3.1-7")
@pytest.mark.parametrize("before", [0, QOS1, QOS2])
async def test_retained_qos_0_replaces_what_was_retained(start: Start, before: int):
    world = await start()
    publisher = await client(world, "p")
    await publisher.publish("t", b"old", flags=before | RETAIN)
    await publisher.publish("t", b"new", flags=RETAIN)
    wire = await client(world, "s")
    await wire.subscribe(("t", 2))
    await wire.expect(publish("t", b"new", flags=RETAIN))
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.3.1-7")
async def test_retained_qos_0_that_is_over_our_limits_removes_what_was_retained(start: Start):
    world = await start(retained_bytes_maximum=1000)
    publisher = await client(world, "p")
    await publisher.publish("t", b"old", flags=RETAIN)
    await publisher.publish("t", b"x" * 2000, flags=RETAIN)
    wire = await client(world, "s")
    await wire.subscribe(("t", 2))
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.3.1-9")
@pytest.mark.parametrize("flags", [0, QOS1, QOS2])
async def test_retain_is_0_for_an_established_subscription(start: Start, flags: int):
    world = await start()
    wire = await client(world, "s")
    await wire.subscribe(("t", 2))
    publisher = await client(world, "p")
    await publisher.publish("t", b"1", flags=flags | RETAIN)
    await expect_publish(wire, "t", b"1", flags=flags)


@pytest.mark.mqtt3("3.3.1-9")
async def test_retain_is_0_for_what_was_queued(start: Start):
    world = await start()
    wire = await client(world, "s", flags=0)
    await wire.subscribe(("t", 2))
    await wire.disconnect()
    publisher = await client(world, "p")
    await publisher.publish("t", b"1", flags=QOS1 | RETAIN)
    wire = await client(world, "s", flags=0, answer=RESUMED)
    await expect_publish(wire, "t", b"1", flags=QOS1)
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.3.1-10", "3.3.1-11")
@pytest.mark.parametrize("flags", [0, QOS1, QOS2])
@pytest.mark.parametrize("existing", [True, False], ids=["one retained", "none retained"])
async def test_empty_retained_message_removes_and_is_delivered_as_any_other(start: Start, flags: int, existing: bool):
    world = await start()
    publisher = await client(world, "p")
    if existing:
        await publisher.publish("t", b"1", flags=RETAIN)
    wire = await client(world, "s")
    await wire.subscribe(("t", 2))
    if existing:
        await wire.expect(publish("t", b"1", flags=RETAIN))
    await publisher.publish("t", b"", flags=flags | RETAIN)
    await expect_publish(wire, "t", b"", flags=flags)
    late = await client(world, "late")
    await late.subscribe(("t", 2))
    await late.expect_nothing()
    assert world.metrics["retained"] == 0


@pytest.mark.mqtt3("3.3.1-12")
@pytest.mark.parametrize("payload", [b"2", b""], ids=["payload", "empty"])
@pytest.mark.parametrize("existing", [True, False], ids=["one retained", "none retained"])
async def test_message_without_retain_leaves_the_retained_one(start: Start, payload: bytes, existing: bool):
    world = await start()
    publisher = await client(world, "p")
    if existing:
        await publisher.publish("t", b"1", flags=RETAIN)
    await publisher.publish("t", payload)
    wire = await client(world, "s")
    await wire.subscribe(("t", 2))
    if existing:
        await wire.expect(publish("t", b"1", flags=RETAIN))
    await wire.expect_nothing()


# --- the topic


@pytest.mark.mqtt3("3.3.2-1", "4.7.3-1", "4.8.0-1")
@pytest.mark.parametrize(
    "data",
    [
        packet(0x30),
        packet(0x30, b"\x00"),
        packet(0x30, b"\x00\x02t"),
        packet(0x32, text("t"), b"\x00"),
        publish("", b"1"),
    ],
    ids=["nothing", "half a length", "half a topic", "half an identifier", "empty"],
)
async def test_publish_without_a_whole_topic_closes(start: Start, data: bytes):
    wire = await client(await start(), "c")
    await wire.send(data)
    await wire.expect_closed()


@pytest.mark.mqtt3("3.3.2-2", "4.7.1-1")
@pytest.mark.parametrize("topic", ["#", "+", "a/#", "a/+/b", "a+b", "a#", "a long enough topic/#", "ü/+"])
@pytest.mark.parametrize("flags", [0, QOS1, QOS2, RETAIN])
async def test_wildcard_in_a_topic_name_closes(start: Start, topic: str, flags: int):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await client(world, "c")
    await wire.send(publish(topic, b"1", flags=flags, packet_id=1), PINGREQ)
    await wire.expect_closed()
    await watcher.expect_nothing()
    assert world.metrics["retained"] == 0


@pytest.mark.mqtt3("3.3.2-3", "4.7.3-4")
async def test_topic_name_is_delivered_as_it_was_published(start: Start):
    world = await start()
    wire = await client(world, "s")
    await wire.subscribe(("#", 0))
    topics = ["a", "/", "//", "/a/", "a b", " ", "é", "e\u0301", "\ufeff", "🌍/€", "a" * 100]
    publisher = await client(world, "p")
    for topic in topics:
        await publisher.publish(topic, b"1")
        await wire.expect(publish(topic, b"1"))


# --- the response


@pytest.mark.mqtt3("3.3.4-1", "4.3.2-2", "4.3.3-2")
@pytest.mark.parametrize("subscribed", [True, False], ids=["subscriber", "no subscriber"])
async def test_publish_is_answered_as_its_qos_asks(start: Start, subscribed: bool):
    world = await start()
    if subscribed:
        await (await client(world, "s")).subscribe(("t", 0))
    wire = await client(world, "c")
    await wire.send(publish("t", b"1"))
    await wire.expect_nothing()
    await wire.send(publish("t", b"1", flags=QOS1, packet_id=9))
    await wire.expect(puback(9))
    await wire.send(publish("t", b"1", flags=QOS2, packet_id=9))
    await wire.expect(pubrec(9))
    await wire.expect_nothing()  # PUBCOMP only after PUBREL
    await wire.send(pubrel(9))
    await wire.expect(pubcomp(9))


@pytest.mark.mqtt3("3.3.5-2")
@pytest.mark.parametrize("flags", [0, RETAIN])
async def test_publish_that_is_not_allowed_is_acknowledged_and_dropped_by_setting(start: Start, flags: int):
    world = await start(authorization=Authorization(refused_publish="drop"))
    wire = await client(world, "c")
    await wire.publish("$SYS/x", b"1", flags=QOS1 | flags)
    await wire.publish("$SYS/x", b"1", flags=QOS2 | flags)
    await wire.publish("$SYS/x", b"1", flags=flags)
    assert world.metrics["retained"] == 0
    assert world.metrics["messages_dropped_not_authorized"] == 3


@pytest.mark.mqtt3("3.3.5-2")
@pytest.mark.parametrize("flags", [0, QOS1, QOS2])
async def test_publish_that_is_not_allowed_closes(start: Start, flags: int):
    wire = await client(await start(), "c")
    await wire.send(publish("$SYS/x", b"1", flags=flags, packet_id=1 if flags else 0))
    await wire.expect_closed()


@pytest.mark.mqtt3("3.3.5-2")
async def test_publish_over_maximum_qos_closes(start: Start):
    world = await start(maximum_qos=1)
    wire = await client(world, "c")
    await wire.publish("t", b"1", flags=QOS1)
    await wire.send(publish("t", b"1", flags=QOS2, packet_id=1), PINGREQ)
    await wire.expect_closed()


# --- overlapping subscriptions


@pytest.mark.mqtt3("3.3.5-1", "3.8.4-6")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flags", [0, QOS1, QOS2])
async def test_overlapping_subscriptions_give_one_copy_at_the_highest_qos(start: Start, order, flags: int):
    world = await start()
    wire = await client(world, "s")
    filters = ["a/#", "+/b", "a/b"]
    await wire.subscribe(*((filters[i], qos) for i, qos in enumerate(order)))
    await (await client(world, "p")).publish("a/b", b"1", flags=flags)
    await expect_publish(wire, "a/b", b"1", flags=flags)
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.3.5-1")
async def test_overlapping_subscriptions_of_a_session_without_connection_do_the_same(start: Start):
    world = await start()
    wire = await client(world, "s", flags=0)
    await wire.subscribe(("a/#", 1), ("a/b", 2))
    await wire.disconnect()
    await (await client(world, "p", flags=CLEAN)).publish("a/b", b"1", flags=QOS2)
    wire = await client(world, "s", flags=0, answer=RESUMED)
    await expect_publish(wire, "a/b", b"1", flags=QOS2)
    await wire.expect_nothing()
