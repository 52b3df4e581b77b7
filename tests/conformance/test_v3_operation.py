"""MQTT 3.1.1 chapter 4: sessions, QoS, redelivery, order, topics, errors."""

import pytest

from conversations.conftest import Start
from mqttcore.engine.hooks import HookTable

from .authentication import ACCEPT
from .v3_wire import (
    CLEAN,
    DUP,
    PINGREQ,
    QOS1,
    QOS2,
    RESUMED,
    WILL,
    Wire,
    client,
    connect,
    dial,
    packet_id_of,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
)

# --- session state


@pytest.mark.mqtt3("4.1.0-1", "3.1.2-4", "3.1.2-5")
async def test_session_keeps_all_its_state_over_many_connections(start: Start):
    world = await start()
    publisher = await client(world, "p")
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 2))
    # a QoS 2 message from the client that is not released, a PUBREL of ours, a message of ours, a message queued
    await wire.send(publish("x", flags=QOS2, packet_id=9))
    await wire.expect(pubrec(9))
    await publisher.publish("t", b"1", flags=QOS2)
    released = packet_id_of(await wire.receive())
    await wire.send(pubrec(released))
    await wire.expect(pubrel(released))
    await publisher.publish("t", b"2", flags=QOS1)
    sent = packet_id_of(await wire.receive())
    await wire.lose()
    await publisher.publish("t", b"3", flags=QOS1)
    queued = 0
    for turn in range(3):
        wire = await client(world, "c", flags=0, answer=RESUMED)
        await wire.expect(pubrel(released), publish("t", b"2", flags=QOS1 | DUP, packet_id=sent))
        got = await wire.receive()
        queued = queued or packet_id_of(got)
        assert got == publish("t", b"3", flags=QOS1 | DUP * bool(turn), packet_id=queued)
        await wire.send(publish("x", flags=QOS2 | DUP, packet_id=9))
        await wire.expect(pubrec(9))
        await wire.lose()
    assert world.metrics["awaiting_release"] == 1


@pytest.mark.mqtt3("4.1.0-1")
async def test_session_without_connection_ends_after_the_time_that_the_limits_give(start_clocked: Start):
    world = await start_clocked(session_expiry_maximum_s=100)
    await (await client(world, "c", flags=0)).lose()
    world.advance(99_000)
    await (await client(world, "c", flags=0, answer=RESUMED)).lose()  # begins anew
    world.advance(99_000)
    await (await client(world, "c", flags=0, answer=RESUMED)).lose()
    world.advance(101_000)
    await client(world, "c", flags=0)


@pytest.mark.mqtt3("4.1.0-2")
@pytest.mark.parametrize("flags", [0, CLEAN])
async def test_session_lasts_as_long_as_its_connection(start_clocked: Start, flags: int):
    world = await start_clocked(session_expiry_maximum_s=100)
    wire = await client(world, "c", flags=flags)
    await wire.subscribe(("t", 0))
    for _ in range(10):
        world.advance(1_000_000_000)
        await wire.expect_nothing()
    await (await client(world, "p")).publish("t", b"1")
    await wire.expect(publish("t", b"1"))


# --- QoS 1


@pytest.mark.mqtt3("4.3.2-1")
async def test_qos_1_is_ours_until_puback_and_is_not_sent_again_meanwhile(start_clocked: Start):
    world = await start_clocked()
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 1))
    await (await client(world, "p")).publish("t", b"1", flags=QOS1)
    sent = await wire.receive()
    assert sent == publish("t", b"1", flags=QOS1, packet_id=packet_id_of(sent))
    world.advance(3_600_000)
    await wire.expect_nothing()
    assert world.metrics["in_flight"] == 1
    await wire.send(puback(packet_id_of(sent) + 1), pubrec(packet_id_of(sent) + 2), pubcomp(packet_id_of(sent)))
    await wire.expect(pubrel(packet_id_of(sent) + 2))
    assert world.metrics["in_flight"] == 1  # none of these acknowledges it
    await wire.send(puback(packet_id_of(sent)))
    await wire.expect_nothing()
    assert world.metrics["in_flight"] == 0
    await wire.lose()
    wire = await client(world, "c", flags=0, answer=RESUMED)
    await wire.expect_nothing()


@pytest.mark.mqtt3("4.3.2-2")
@pytest.mark.parametrize("flags", [QOS1, QOS1 | DUP])
async def test_qos_1_with_the_same_identifier_is_new_after_its_puback(start: Start, flags: int):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("t", 0))
    wire = await client(world, "c")
    for payload in (b"1", b"1", b"2"):
        await wire.send(publish("t", payload, flags=flags, packet_id=5))
        await wire.expect(puback(5))
        await watcher.expect(publish("t", payload))


# --- QoS 2


@pytest.mark.mqtt3("4.3.3-2", "4.5.0-1")
@pytest.mark.parametrize("resumed", [False, True], ids=["on the connection", "after a new one"])
async def test_qos_2_is_delivered_once_however_often_it_is_sent(start: Start, resumed: bool):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("t", 0))
    wire = await client(world, "c", flags=0)
    await wire.send(publish("t", b"1", flags=QOS2, packet_id=5))
    await wire.expect(pubrec(5))
    await watcher.expect(publish("t", b"1"))
    for _ in range(3):
        if resumed:
            await wire.lose()
            wire = await client(world, "c", flags=0, answer=RESUMED)
        await wire.send(publish("t", b"1", flags=QOS2 | DUP, packet_id=5))
        await wire.expect(pubrec(5))
        await watcher.expect_nothing()
    for _ in range(2):  # the PUBREL may come again as well
        await wire.send(pubrel(5))
        await wire.expect(pubcomp(5))
    await wire.send(publish("t", b"2", flags=QOS2, packet_id=5))
    await wire.expect(pubrec(5))
    await watcher.expect(publish("t", b"2"))


@pytest.mark.mqtt3("4.3.3-1", "3.3.4-1", "4.4.0-1")
async def test_qos_2_of_ours_goes_through_its_four_packets(start_clocked: Start):
    world = await start_clocked()
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 2))
    await (await client(world, "p")).publish("t", b"1", flags=QOS2)
    sent = await wire.receive()
    packet_id = packet_id_of(sent)
    assert sent == publish("t", b"1", flags=QOS2, packet_id=packet_id)
    await wire.send(puback(packet_id), pubcomp(packet_id))  # neither is the answer to PUBLISH at QoS 2
    world.advance(3_600_000)
    await wire.expect_nothing()
    await wire.lose()
    wire = await client(world, "c", flags=0, answer=RESUMED)
    await wire.expect(publish("t", b"1", flags=QOS2 | DUP, packet_id=packet_id))
    await wire.send(pubrec(packet_id))
    await wire.expect(pubrel(packet_id))
    await wire.lose()
    for _ in range(2):
        wire = await client(world, "c", flags=0, answer=RESUMED)
        await wire.expect(pubrel(packet_id))  # and no PUBLISH: it went over
        await wire.expect_nothing()
        await wire.lose()
    wire = await client(world, "c", flags=0, answer=RESUMED)
    await wire.expect(pubrel(packet_id))
    await wire.send(pubcomp(packet_id))
    await wire.lose()
    wire = await client(world, "c", flags=0, answer=RESUMED)
    await wire.expect_nothing()


# --- redelivery and order


async def receive_ids(wire: Wire, first: int, payloads: list[bytes]) -> list[int]:
    """Take PUBLISH packets with this first byte and these payloads, in order; return their packet ids."""
    ids = []
    for payload in payloads:
        got = await wire.receive()
        ids.append(packet_id_of(got))
        assert got == publish("t", payload, flags=first & 15, packet_id=ids[-1])
    return ids


PAYLOADS = [b"%02d" % i for i in range(12)]


@pytest.mark.mqtt3("4.4.0-1", "4.6.0-1", "4.6.0-6")
@pytest.mark.parametrize("qos", [QOS1, QOS2], ids=["QoS 1", "QoS 2"])
async def test_unacknowledged_messages_are_sent_again_in_their_order_with_their_identifiers(start: Start, qos: int):
    world = await start()
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 2))
    publisher = await client(world, "p")
    for payload in PAYLOADS[:8]:
        await publisher.publish("t", payload, flags=qos)
    ids = await receive_ids(wire, 0x30 | qos, PAYLOADS[:8])
    # a hole in the middle, made out of order
    left = [0, 1, 4, 6, 7]
    for i in (5, 3, 2):
        await wire.send(puback(ids[i]) if qos == QOS1 else pubrec(ids[i]))
        if qos == QOS2:
            await wire.expect(pubrel(ids[i]))
            await wire.send(pubcomp(ids[i]))
    await wire.expect_nothing()
    await wire.lose()
    for payload in PAYLOADS[8:]:
        await publisher.publish("t", payload, flags=qos)
    wire = await client(world, "c", flags=0, answer=RESUMED)
    again = await receive_ids(wire, 0x38 | qos, [PAYLOADS[i] for i in left])
    assert again == [ids[i] for i in left]
    await receive_ids(wire, 0x30 | qos, PAYLOADS[8:])


@pytest.mark.mqtt3("4.6.0-1")
async def test_messages_sent_again_keep_their_order_over_both_qos_and_the_window(start: Start):
    world = await start(in_flight_maximum=4)
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 2))
    publisher = await client(world, "p")
    for i, payload in enumerate(PAYLOADS):
        await publisher.publish("t", payload, flags=QOS2 if i % 2 else QOS1)
    first = [await wire.receive() for _ in range(4)]
    await wire.lose()
    wire = await client(world, "c", flags=0, answer=RESUMED)
    assert [await wire.receive() for _ in range(4)] == [bytes([p[0] | DUP]) + p[1:] for p in first]
    seen = [p[-2:] for p in first]
    pending = first
    while pending:
        p = pending.pop(0)
        packet_id = packet_id_of(p)
        if p[0] & QOS1:
            await wire.send(puback(packet_id))
        else:
            await wire.send(pubrec(packet_id))
            await wire.expect(pubrel(packet_id))
            await wire.send(pubcomp(packet_id))
        if len(seen) < len(PAYLOADS):
            pending.append(await wire.receive())
            seen.append(pending[-1][-2:])
    assert seen == PAYLOADS


@pytest.mark.mqtt3("4.6.0-2", "4.6.0-3", "4.6.0-4")
async def test_acknowledgements_are_in_the_order_of_what_they_acknowledge(start: Start):
    wire = await client(await start(), "c")
    ids = [7, 3, 65535, 1, 500, 2]
    await wire.send(*(publish("t", flags=QOS1, packet_id=i) for i in ids))
    await wire.expect(*map(puback, ids))
    await wire.send(*(publish("t", flags=QOS2, packet_id=i) for i in ids))
    await wire.expect(*map(pubrec, ids))
    await wire.send(*map(pubrel, reversed(ids)))
    await wire.expect(*map(pubcomp, reversed(ids)))


@pytest.mark.mqtt3("4.6.0-4")
@pytest.mark.parametrize("resumed", [False, True], ids=["on the connection", "after a new one"])
async def test_pubrel_packets_are_in_the_order_of_their_pubrec(start: Start, resumed: bool):
    world = await start()
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 2))
    publisher = await client(world, "p")
    for payload in PAYLOADS[:5]:
        await publisher.publish("t", payload, flags=QOS2)
    ids = await receive_ids(wire, 0x34, PAYLOADS[:5])
    order = [ids[i] for i in (3, 0, 4, 1, 2)]
    await wire.send(*map(pubrec, order))
    await wire.expect(*map(pubrel, order))
    if resumed:
        await wire.lose()
        wire = await client(world, "c", flags=0, answer=RESUMED)
        await wire.expect(*map(pubrel, order))


@pytest.mark.mqtt3("4.6.0-5", "4.6.0-6")
@pytest.mark.parametrize("flags", [0, QOS1, QOS2], ids=["QoS 0", "QoS 1", "QoS 2"])
async def test_messages_of_a_topic_are_delivered_in_the_order_they_came(start: Start, flags: int):
    world = await start(in_flight_maximum=3)
    subscribers = [await client(world, name) for name in ("s1", "s2")]
    for wire, topic_filter in zip(subscribers, ("t", "#"), strict=True):
        await wire.subscribe((topic_filter, 2))
    publishers = [await client(world, name) for name in ("p1", "p2")]
    for i, payload in enumerate(PAYLOADS):
        await publishers[i % 2].publish("t", payload, flags=flags)
    for wire in subscribers:
        assert await payloads_in_turn(wire, len(PAYLOADS), flags) == PAYLOADS


async def payloads_in_turn(wire: Wire, count: int, flags: int) -> list[bytes]:
    """Take *count* PUBLISH packets with these flags and acknowledge each; return their payloads."""
    payloads = []
    while len(payloads) < count:
        got = await wire.receive()
        if got[0] == 0x62:  # PUBREL, which may come before or behind the next PUBLISH
            await wire.send(pubcomp(int.from_bytes(got[2:4], "big")))
            continue
        packet_id = packet_id_of(got) if flags else 0
        assert got == publish("t", got[-2:], flags=flags, packet_id=packet_id)
        payloads.append(got[-2:])
        if flags:
            await wire.send(puback(packet_id) if flags == QOS1 else pubrec(packet_id))
    return payloads


@pytest.mark.mqtt3("4.5.0-1")
@pytest.mark.parametrize("qos", [QOS1, QOS2])
async def test_message_is_in_every_matching_session_when_it_is_acknowledged(start: Start, qos: int):
    world = await start()
    connected = await client(world, "connected", flags=0)
    await connected.subscribe(("a/#", 2))
    for name, topic_filter in (("away", "+/b"), ("away too", "a/b"), ("elsewhere", "c")):
        wire = await client(world, name, flags=0)
        await wire.subscribe((topic_filter, 2))
        await wire.disconnect()
    await (await client(world, "p")).publish("a/b", b"1", flags=qos)
    assert world.engine.session("away").queued == 1
    assert world.engine.session("away too").queued == 1
    assert world.engine.session("elsewhere").queued == 0
    assert (await connected.receive())[0] == 0x30 | qos


# --- topics


MATCHES = {
    "sport/tennis/player1/#": (
        {"sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"},
        {"sport/tennis", "sport/tennis/player2", "sport/tennis/player1x"},
    ),
    "sport/#": ({"sport", "sport/", "sport/a/b"}, {"sports", "/sport", "Sport"}),
    "#": ({"a", "/", "a/b/c", "/a", "//"}, {"$a", "$SYS2/a", "$"}),
    "+": ({"a", " "}, {"/a", "a/", "a/b", "$a"}),
    "+/+": ({"/finance", "a/b", "/"}, {"a", "a/b/c", "$a/b"}),
    "/+": ({"/finance", "/"}, {"finance", "/a/b"}),
    "sport/+": ({"sport/", "sport/a"}, {"sport", "sport/a/b"}),
    "sport/+/player1": ({"sport/tennis/player1", "sport//player1"}, {"sport/player1", "sport/a/b/player1"}),
    "+/tennis/#": ({"sport/tennis", "/tennis/a"}, {"$a/tennis", "tennis"}),
    "$a/#": ({"$a", "$a/b"}, {"a", "$b"}),
    "$a/+": ({"$a/b", "$a/"}, {"$a", "a/b"}),
    "a/$b": ({"a/$b"}, {"a/b"}),
    "a/+/": ({"a/b/", "a//"}, {"a/b", "a/b/c"}),
    "a/#": ({"a/$b", "a"}, {"$a"}),
    "ACCOUNTS": ({"ACCOUNTS"}, {"Accounts", "ACCOUNTS ", " ACCOUNTS"}),
    "é": ({"é"}, {"e\u0301", "e", "É"}),
    "a%2Fb": ({"a%2Fb"}, {"a/b"}),
    "ﬁ": ({"ﬁ"}, {"fi"}),
}


@pytest.mark.mqtt3("3.3.2-3", "4.5.0-1", "4.7.1-2", "4.7.1-3", "4.7.2-1", "4.7.3-4")
@pytest.mark.parametrize(
    ("topic_filter", "matching", "others"), [(f, *both) for f, both in MATCHES.items()], ids=MATCHES
)
async def test_filter_matches_just_its_topics(start: Start, topic_filter: str, matching: set[str], others: set[str]):
    world = await start()
    wire = await client(world, "s")
    await wire.subscribe((topic_filter, 0))
    publisher = await client(world, "p")
    for topic in sorted(others):
        await publisher.publish(topic, b"no")
    for topic in sorted(matching):
        await publisher.publish(topic, b"yes")
        await wire.expect(publish(topic, b"yes"))
    await wire.expect_nothing()


@pytest.mark.mqtt3("4.7.2-1")
@pytest.mark.parametrize("topic_filter", ["#", "+/#", "+/x", "+/+"])
async def test_leading_wildcard_brings_no_retained_dollar_topics(start: Start, topic_filter: str):
    world = await start()
    await (await client(world, "p")).publish("$a/x", b"1", flags=1)
    wire = await client(world, "s")
    await wire.subscribe((topic_filter, 0))
    await wire.expect_nothing()
    await wire.subscribe(("$a/x", 0))
    await wire.expect(publish("$a/x", b"1", flags=1))


# --- errors


@pytest.mark.mqtt3("4.8.0-1")
async def test_protocol_violation_closes_only_the_connection_it_came_on(start: Start):
    world = await start()
    other = await client(world, "other")
    await other.subscribe(("#", 0))
    wire = await client(world, "c")
    # what came before it is done, what is behind it is not
    await wire.send(publish("t", b"before") + publish("t", flags=6, packet_id=1) + publish("t", b"behind"))
    await wire.expect_closed()
    await other.expect(publish("t", b"before"))
    await other.expect_nothing()


@pytest.mark.mqtt3("4.8.0-1")
async def test_packet_over_our_maximum_size_closes(start: Start):
    world = await start(maximum_packet_size_bytes=100)
    wire = await client(world, "c")
    await wire.publish("t", b"x" * 95)
    await wire.send(publish("t", b"x" * 96), PINGREQ)
    await wire.expect_closed()


@pytest.mark.mqtt3("4.8.0-2")
async def test_error_of_ours_at_connect_closes_and_leaves_others_alone(start_clocked: Start):
    def authenticate(connection, packet):
        if packet.client_id == "c":
            raise OSError("the backend is away")
        return ACCEPT

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    other = await client(world, "other", "will", b"", flags=CLEAN | WILL)
    wire = await dial(world)
    await wire.send(connect("c") + subscribe(1, ("t", 0)))
    await wire.expect(b"\x20\x02\x00\x03")
    await wire.expect_closed()
    await other.send(subscribe(1, ("t", 0)))
    await other.expect(suback(1, 0))
