"""MQTT 3.1.1 §3.8 to §3.11 SUBSCRIBE and UNSUBSCRIBE with their acknowledgements."""

import pytest

from conversations.conftest import Start

from .v3_wire import (
    PINGREQ,
    PINGRESP,
    QOS1,
    QOS2,
    RESUMED,
    RETAIN,
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
    unsuback,
    unsubscribe,
)

# --- SUBSCRIBE


@pytest.mark.mqtt3("3.8.3-3", "4.8.0-1")
@pytest.mark.parametrize(
    "data",
    [
        packet(0x82),
        packet(0x82, b"\x00"),
        packet(0x82, b"\x00\x01"),
        packet(0x82, b"\x00\x01", text("t")),
        packet(0x82, b"\x00\x01\x00\x02t"),
        packet(0x82, b"\x00\x01", text("t"), b"\x00", text("u")),
    ],
    ids=["nothing", "half an identifier", "no filter", "no QoS", "half a filter", "second without QoS"],
)
async def test_subscribe_without_a_whole_pair_closes(start: Start, data: bytes):
    world = await start()
    wire = await client(world, "c", flags=0)
    await wire.send(data, PINGREQ)
    await wire.expect_closed()
    assert world.metrics["subscriptions"] == 0


@pytest.mark.mqtt3("3-8.3-4", "4.8.0-1")
@pytest.mark.parametrize("qos", [3, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x82, 0xFF])
@pytest.mark.parametrize("at", [0, 1], ids=["first", "second"])
async def test_reserved_bits_and_qos_3_in_subscribe_close(start: Start, qos: int, at: int):
    world = await start()
    wire = await client(world, "c", flags=0)
    wanted = [("a", 0), ("b", 0)]
    wanted[at] = ("t", qos)
    await wire.send(subscribe(1, *wanted), PINGREQ)
    await wire.expect_closed()
    assert world.metrics["subscriptions"] == 0


@pytest.mark.mqtt3("3.8.3-2", "4.7.1-2", "4.7.1-3")
@pytest.mark.parametrize("topic_filter", ["#", "+", "a/#", "+/a", "a/+/b", "+/+", "+/#", "/+", "/#", "+/a/#"])
async def test_filters_with_wildcards_are_granted(start: Start, topic_filter: str):
    wire = await client(await start(), "c")
    await wire.send(subscribe(1, (topic_filter, 1)))
    await wire.expect(suback(1, 1))


@pytest.mark.mqtt3("3.8.3-2", "3.8.4-5")
async def test_filters_with_wildcards_are_refused_where_the_limits_say_so(start: Start):
    world = await start(wildcard_subscription_available=False)
    wire = await client(world, "c")
    await wire.send(subscribe(1, ("a/#", 0), ("a/b", 1), ("+", 2)))
    await wire.expect(suback(1, 0x80, 1, 0x80))
    await wire.send(publish("a/b", b"1"), publish("a", b"2"))
    await wire.expect(publish("a/b", b"1"))
    await wire.expect_nothing()


@pytest.mark.mqtt3("4.7.1-2", "4.7.1-3", "4.7.3-1", "3.8.4-5")
@pytest.mark.parametrize(
    "topic_filter", ["", "a#", "#/a", "a/#/b", "##", "a/b#", "+a", "a+", "a/+b", "a+/b", "++", "+#"]
)
async def test_filter_that_is_none_is_refused_alone(start: Start, topic_filter: str):
    world = await start()
    wire = await client(world, "c")
    await wire.send(subscribe(1, ("before", 1), (topic_filter, 1), ("behind", 2)))
    await wire.expect(suback(1, 1, 0x80, 2))
    assert world.metrics["subscriptions"] == 2


@pytest.mark.mqtt3("3.8.4-1", "3.8.4-2", "3.8.4-4", "3.8.4-5", "3.9.3-1", "3.9.3-2")
async def test_suback_has_a_code_for_each_filter_in_their_order(start: Start):
    world = await start()
    wire = await client(world, "c")
    wanted = [("a", 2), ("b", 0), ("c/#/", 1), ("d", 1), ("e", 2), ("", 2), ("b", 1)]
    await wire.send(subscribe(0x1234, *wanted))
    await wire.expect(suback(0x1234, 2, 0, 0x80, 1, 2, 0x80, 1))
    await wire.expect_nothing()  # one SUBACK for all
    assert world.metrics["subscriptions"] == 4


@pytest.mark.mqtt3("3.8.4-5", "3.9.3-2", "3.8.4-6")
@pytest.mark.parametrize("maximum", [0, 1])
async def test_qos_granted_is_limited_by_the_setting(start: Start, maximum: int):
    world = await start(maximum_qos=maximum)
    wire = await client(world, "c")
    await wire.send(subscribe(1, ("a", 0), ("b", 1), ("c", 2)))
    await wire.expect(suback(1, 0, min(1, maximum), maximum))
    await (await client(world, "p")).publish("c", b"1", flags=maximum << 1)
    assert (await wire.receive())[0] == 0x30 | maximum << 1


@pytest.mark.mqtt3("3.8.4-5", "3.9.3-2")
async def test_every_failure_is_said_with_0x80(start: Start):
    world = await start(
        subscriptions_per_session_maximum=1, shared_subscription_available=False, topic_levels_maximum=4
    )
    wire = await client(world, "c")
    wanted = ["$SYS/#", "$share/g/t", "a/b/c/d/e", "#/#", "fits", "one too many"]
    await wire.send(subscribe(1, *((topic_filter, 2) for topic_filter in wanted)))
    await wire.expect(suback(1, 0x80, 0x80, 0x80, 0x80, 2, 0x80))


@pytest.mark.mqtt3("3.8.4-1", "3.8.4-4")
async def test_many_filters_in_one_subscribe_act_as_many_subscribes(start: Start):
    world = await start()
    publisher = await client(world, "p")
    await publisher.publish("a", b"old", flags=RETAIN)
    wire = await client(world, "c")
    # the second of the same filter replaces the first, and each brings the retained message
    await wire.send(subscribe(1, ("a", 0), ("b", 1), ("a", 1)))
    await wire.expect(suback(1, 0, 1, 1))
    await wire.expect(publish("a", b"old", flags=RETAIN), publish("a", b"old", flags=RETAIN))
    await publisher.publish("a", b"new", flags=QOS1)
    assert (await wire.receive())[0] == 0x32
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.8.4-3")
@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (1, 1)])
async def test_same_filter_replaces_the_subscription_and_brings_retained_messages_again(start, before: int, after: int):
    world = await start()
    publisher = await client(world, "p")
    await publisher.publish("a/b", b"kept", flags=RETAIN)
    wire = await client(world, "c")
    for qos in (before, after):
        await wire.send(subscribe(1, ("a/+", qos)))
        await wire.expect(suback(1, qos), publish("a/b", b"kept", flags=RETAIN))
    assert world.metrics["subscriptions"] == 1
    await publisher.publish("a/b", b"live", flags=QOS2)
    got = await wire.receive()
    assert got[0] == 0x30 | after << 1
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.8.4-3")
async def test_replacing_a_subscription_does_not_interrupt_the_flow(start: Start):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe(("t", 1))
    other = await client(world, "p")
    sent = [b"%d" % i for i in range(20)]
    seen = []
    for payload in sent:
        await other.send(publish("t", payload, flags=QOS1, packet_id=1))
        await wire.send(subscribe(9, ("t", 1)))
        await other.expect(puback(1))
        answers = [await wire.receive(), await wire.receive()]
        assert suback(9, 1) in answers
        seen += [answer[-len(payload) :] for answer in answers if answer[0] == 0x32]
    assert seen == sent


@pytest.mark.mqtt3("3.8.4-6", "3.8.4-5")
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
async def test_delivery_has_the_lower_of_published_and_granted_qos(start: Start, published: int, granted: int):
    world = await start()
    wire = await client(world, "s")
    await wire.subscribe(("t", granted))
    await (await client(world, "p")).publish("t", b"1", flags=published << 1)
    got = await wire.receive()
    qos = min(published, granted)
    assert got == publish("t", b"1", flags=qos << 1, packet_id=packet_id_of(got))
    await wire.expect_nothing()


@pytest.mark.mqtt3("4.7.3-3", "3.8.3-1")
async def test_topics_of_65535_bytes_are_taken(start: Start):
    wire = await client(await start(), "c")
    longest = "x" * 65535
    await wire.subscribe((longest, 0))
    data = publish(longest, b"1")
    await wire.send(data)
    await wire.expect(data)


# --- UNSUBSCRIBE


@pytest.mark.mqtt3("3.10.3-2", "4.8.0-1")
@pytest.mark.parametrize(
    "data",
    [packet(0xA2), packet(0xA2, b"\x00"), packet(0xA2, b"\x00\x01"), packet(0xA2, b"\x00\x01\x00\x02t")],
    ids=["nothing", "half an identifier", "no filter", "half a filter"],
)
async def test_unsubscribe_without_a_whole_filter_closes(start: Start, data: bytes):
    wire = await client(await start(), "c")
    await wire.send(data, PINGREQ)
    await wire.expect_closed()


@pytest.mark.mqtt3("3.10.4-1", "3.10.4-5")
@pytest.mark.parametrize(
    ("held", "given"),
    [("a/b", "a/+"), ("a/b", "#"), ("a/+", "a/b"), ("#", "+"), ("a/#", "a"), ("a", "A"), ("a", "a/"), ("é", "e\u0301")],
)
async def test_unsubscribe_takes_only_the_filter_that_is_the_same(start: Start, held: str, given: str):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe((held, 0))
    topic = held.replace("+", "b").replace("#", "b")
    await wire.send(unsubscribe(3, given), publish(topic))
    await wire.expect(unsuback(3), publish(topic))
    await wire.send(unsubscribe(4, held), publish(topic))
    await wire.expect(unsuback(4))
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.10.4-1", "3.10.4-2", "3.10.4-4")
@pytest.mark.parametrize("topic_filter", ["a/b", "a/+", "#", "+/b", "$share/g/a/b"])
async def test_unsubscribe_stops_new_messages(start: Start, topic_filter: str):
    world = await start()
    wire = await client(world, "s")
    await wire.subscribe((topic_filter, 2))
    publisher = await client(world, "p")
    await publisher.publish("a/b", b"1")
    await wire.expect(publish("a/b", b"1"))
    await wire.send(unsubscribe(1, topic_filter))
    await wire.expect(unsuback(1))
    for flags in (0, QOS1, QOS2):
        await publisher.publish("a/b", b"2", flags=flags)
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.10.4-2")
async def test_unsubscribe_leaves_the_other_subscriptions(start: Start):
    world = await start()
    wire = await client(world, "s")
    await wire.subscribe(("a/#", 1), ("a/b", 2))
    await wire.send(unsubscribe(1, "a/b"))
    await wire.expect(unsuback(1))
    await (await client(world, "p")).publish("a/b", b"1", flags=QOS2)
    assert (await wire.receive())[0] == 0x32
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.10.4-3", "4.3.3-1", "4.4.0-1")
@pytest.mark.parametrize("resumed", [False, True], ids=["on the connection", "after a new one"])
async def test_unsubscribe_lets_begun_deliveries_be_completed(start: Start, resumed: bool):
    world = await start()
    wire = await client(world, "s", flags=0)
    await wire.subscribe(("t", 2))
    publisher = await client(world, "p")
    await publisher.publish("t", b"1", flags=QOS1)
    await publisher.publish("t", b"2", flags=QOS2)
    one, two = await wire.receive(), await wire.receive()
    await wire.send(unsubscribe(1, "t"))
    await wire.expect(unsuback(1))
    if resumed:
        await wire.lose()
        wire = await client(world, "s", flags=0, answer=RESUMED)
        await wire.expect(bytes([one[0] | 8]) + one[1:], bytes([two[0] | 8]) + two[1:])
    await wire.send(puback(packet_id_of(one)), pubrec(packet_id_of(two)))
    await wire.expect(pubrel(packet_id_of(two)))
    await wire.send(pubcomp(packet_id_of(two)))
    await wire.expect_nothing()
    assert world.metrics["in_flight"] == 0


@pytest.mark.mqtt3("3.10.4-4", "3.10.4-5")
async def test_unsubscribe_is_answered_where_nothing_was_subscribed(start: Start):
    wire = await client(await start(), "c")
    await wire.send(unsubscribe(0xABCD, "never", "a#b", "#"))
    await wire.expect(unsuback(0xABCD))
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.10.4-6", "3.10.3-1", "3.10.4-2")
async def test_many_filters_in_one_unsubscribe_act_as_many_with_one_answer(start: Start):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe(("a", 0), ("b", 0), ("c/+", 0), ("d", 0))
    await wire.send(unsubscribe(2, "a", "unknown", "c/+", "b", "a"), PINGREQ)
    await wire.expect(unsuback(2), PINGRESP)
    await wire.send(publish("a"), publish("b"), publish("c/1"), publish("d"))
    await wire.expect(publish("d"))
    await wire.expect_nothing()
