"""MQTT 3.1.1 §3.1 CONNECT: the first packet, protocol name and level, flags, will, keep alive, payload, response."""

import pytest

from conversations.conftest import Start
from conversations.harness import World
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.identity import Refusal

from .authentication import ACCEPT
from .v3_wire import (
    ACCEPTED,
    CLEAN,
    DISCONNECT,
    PASSWORD,
    PINGREQ,
    PINGRESP,
    QOS1,
    QOS2,
    RESUMED,
    RETAIN,
    USER_NAME,
    WILL,
    WILL_QOS1,
    WILL_QOS2,
    WILL_RETAIN,
    Wire,
    ack,
    client,
    connect,
    dial,
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
    unsubscribe,
)

# --- the first packet, and the second CONNECT

NOT_FIRST = {
    "nothing of MQTT": b"GET / HTTP/1.1\r\n\r\n",
    "reserved type 0": b"\x00\x00",
    "CONNACK": ACCEPTED,
    "PUBLISH": publish("t", b"1"),
    "PUBLISH at QoS 1": publish("t", b"1", flags=QOS1, packet_id=1),
    "PUBACK": puback(1),
    "PUBREC": pubrec(1),
    "PUBREL": pubrel(1),
    "PUBCOMP": pubcomp(1),
    "SUBSCRIBE": subscribe(1, ("t", 0)),
    "SUBACK": suback(1, 0),
    "UNSUBSCRIBE": unsubscribe(1, "t"),
    "UNSUBACK": ack(0xB0, 1),
    "PINGREQ": PINGREQ,
    "PINGRESP": PINGRESP,
    "DISCONNECT": DISCONNECT,
    "reserved type 15": b"\xf0\x00",
}


@pytest.mark.mqtt3("3.1.0-1", "3.2.0-1", "4.8.0-1")
@pytest.mark.parametrize("data", NOT_FIRST.values(), ids=NOT_FIRST)
async def test_first_packet_that_is_not_connect_closes_without_a_byte(start: Start, data: bytes):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await dial(world)
    await wire.send(data + connect("c"))
    await wire.expect_closed()
    await watcher.expect_nothing()
    assert world.engine.session("c") is None


@pytest.mark.mqtt3("3.1.0-2", "4.8.0-1")
@pytest.mark.parametrize("second", [connect("c"), connect("other")], ids=["same", "different"])
async def test_second_connect_closes(start: Start, second: bytes):
    world = await start()
    wire = await client(world, "c")
    await wire.send(second, PINGREQ)
    await wire.expect_closed()
    assert world.metrics["sessions"] == 0


# --- protocol name, level and flags


@pytest.mark.mqtt3("3.1.2-1", "3.1.4-1")
@pytest.mark.parametrize("name", [b"", b"mqtt", b"MQTt", b"MQT", b"MQTTT", b"\xff\xff\xff\xff"], ids=repr)
async def test_wrong_protocol_name_closes_without_connack(start: Start, name: bytes):
    world = await start()
    wire = await dial(world)
    await wire.send(connect("c", name=name) + PINGREQ)
    await wire.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt3("3.1.2-2", "3.2.2-4", "3.2.2-5")
@pytest.mark.parametrize("level", [0, 1, 2, 3, 0x83, 0x84])
async def test_unsupported_level_is_answered_with_return_code_1_and_closed(start: Start, level: int):
    # 0x83 and 0x84 are what bridges of another broker try first.
    world = await start()
    wire = await dial(world)
    await wire.send(connect("c", level=level) + PINGREQ)
    await wire.expect(b"\x20\x02\x00\x01")
    await wire.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt3("3.1.2-2")
@pytest.mark.parametrize("level", [6, 7, 0x7F])
async def test_level_above_5_is_answered_in_the_form_of_mqtt_5_and_closed(start: Start, level: int):
    wire = await dial(await start())
    await wire.send(connect("c", level=level) + PINGREQ)
    await wire.expect(b"\x20\x03\x00\x84\x00")
    await wire.expect_closed()


BAD_FLAGS = {
    "reserved": CLEAN | 1,
    "will QoS 1 without will": CLEAN | WILL_QOS1,
    "will QoS 2 without will": CLEAN | WILL_QOS2,
    "will retain without will": CLEAN | WILL_RETAIN,
    "will QoS and retain without will": CLEAN | WILL_QOS1 | WILL_RETAIN,
    "will QoS 3 without will": CLEAN | WILL_QOS1 | WILL_QOS2,
    "will QoS 3": CLEAN | WILL | WILL_QOS1 | WILL_QOS2,
    "password without user name": CLEAN | PASSWORD,
}


def payload_for(flags: int) -> list[str]:
    """Return fields as the flags ask for them."""
    fields = ["c"]
    if flags & WILL:
        fields += ["will", "message"]
    fields += ["name"] * bool(flags & USER_NAME) + ["password"] * bool(flags & PASSWORD)
    return fields


@pytest.mark.mqtt3("3.1.2-3")
@pytest.mark.parametrize("clean", [0, CLEAN])
async def test_reserved_connect_flag_closes_without_connack(start: Start, clean: int):
    wire = await dial(await start())
    await wire.send(connect("c", flags=clean | 1))
    await wire.expect_closed()


@pytest.mark.mqtt3("3.1.2-11", "3.1.2-13", "3.1.2-14", "3.1.2-15", "3.1.2-22", "3.1.4-1")
@pytest.mark.parametrize("flags", BAD_FLAGS.values(), ids=BAD_FLAGS)
async def test_connect_flags_that_contradict_each_other_close_without_connack(start: Start, flags: int):
    world = await start()
    wire = await dial(world)
    await wire.send(connect(*payload_for(flags), flags=flags))
    await wire.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt3("3.1.2-9", "3.1.2-14", "3.1.2-19", "3.1.2-21", "3.1.3-1", "3.1.3-3", "3.1.4-4")
@pytest.mark.parametrize("will", [0, WILL, WILL | WILL_QOS1, WILL | WILL_QOS2 | WILL_RETAIN])
@pytest.mark.parametrize("user", [0, USER_NAME, USER_NAME | PASSWORD])
@pytest.mark.parametrize("clean", [0, CLEAN])
async def test_every_good_combination_of_flags_is_accepted(start: Start, will: int, user: int, clean: int):
    world = await start()
    wire = await client(world, *payload_for(will | user | clean), flags=will | user | clean)
    await wire.disconnect()


FIELDS_MISSING = {
    "client identifier": connect(flags=CLEAN),
    "client identifier, with will": connect("will", "message", flags=CLEAN | WILL),
    "will topic and message": connect("c", flags=CLEAN | WILL),
    "will message": connect("c", "will", flags=CLEAN | WILL),
    "user name": connect("c", flags=CLEAN | USER_NAME),
    "user name, with will": connect("c", "will", "message", flags=CLEAN | WILL | USER_NAME),
    "password": connect("c", "name", flags=CLEAN | USER_NAME | PASSWORD),
    "half a length": connect("c", flags=CLEAN | USER_NAME, rest=b"\x00"),
    "half a password": connect("c", "name", flags=CLEAN | USER_NAME | PASSWORD, rest=b"\x00\x05four"),
}
FIELDS_TOO_MANY = {
    "will without its flag": connect("c", "will", "message"),
    "user name without its flag": connect("c", "name"),
    "password without its flag": connect("c", "name", "password", flags=CLEAN | USER_NAME),
    "a byte": connect("c", rest=b"\x00"),
}


@pytest.mark.mqtt3("3.1.2-9", "3.1.2-19", "3.1.2-21", "3.1.3-1", "3.1.3-3", "3.1.4-1")
@pytest.mark.parametrize("data", FIELDS_MISSING.values(), ids=FIELDS_MISSING)
async def test_missing_field_of_connect_closes_without_connack(start: Start, data: bytes):
    wire = await dial(await start())
    await wire.send(data)
    await wire.expect_closed()


@pytest.mark.mqtt3("3.1.2-11", "3.1.2-18", "3.1.2-20", "3.1.4-1")
@pytest.mark.parametrize("data", FIELDS_TOO_MANY.values(), ids=FIELDS_TOO_MANY)
async def test_field_without_its_flag_closes_without_connack(start: Start, data: bytes):
    wire = await dial(await start())
    await wire.send(data)
    await wire.expect_closed()


@pytest.mark.mqtt3("3.1.3-1", "3.1.3-3")
async def test_fields_of_connect_are_read_in_their_order(start_clocked: Start):
    seen = []

    def authenticate(connection, packet):
        seen.append((packet.client_id, packet.will.topic, packet.will.payload, packet.user_name, packet.password))
        return ACCEPT

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    flags = CLEAN | WILL | USER_NAME | PASSWORD
    await client(world, "first", "second", b"third", "fourth", b"\x00fifth\xff", flags=flags)
    assert seen == [("first", "second", b"third", "fourth", b"\x00fifth\xff")]


# --- Clean Session


async def session_with_state(world: World) -> None:
    """Leave a session "c" with a subscription, a message that was sent and not acknowledged, and one queued."""
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 1))
    publisher = await client(world, "p")
    await publisher.publish("t", b"sent", flags=QOS1)
    assert (await wire.receive())[0] == 0x32
    await wire.disconnect()
    await publisher.publish("t", b"queued", flags=QOS1)
    await publisher.disconnect()


@pytest.mark.mqtt3("3.1.2-4", "3.1.3-2", "3.1.4-3", "3.2.2-2", "3.2.2-3", "4.1.0-1", "4.4.0-1")
async def test_session_of_clean_session_0_is_made_kept_and_resumed(start: Start):
    world = await start()
    await session_with_state(world)  # its CONNACK had Session Present 0
    wire = await client(world, "c", flags=0, answer=RESUMED)
    again = await wire.receive()
    assert (again[0], again[-4:]) == (0x3A, b"sent")
    queued = await wire.receive()
    assert (queued[0], queued[-6:]) == (0x32, b"queued")
    await wire.send(puback(packet_id_of(again)), puback(packet_id_of(queued)))
    await wire.send(publish("t", b"0"))
    await wire.expect(publish("t", b"0"))  # the subscription is there as well
    await wire.disconnect()


@pytest.mark.mqtt3("3.1.2-5", "4.5.0-1")
@pytest.mark.parametrize("qos", [QOS1, QOS2])
async def test_messages_are_stored_for_a_session_without_connection(start: Start, qos: int):
    world = await start()
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("a/+", 2), ("b", 2))
    await wire.disconnect()
    publisher = await client(world, "p")
    for topic in ("a/1", "b", "a/2", "other"):
        await publisher.publish(topic, topic.encode(), flags=qos)
    wire = await client(world, "c", flags=0, answer=RESUMED)
    for topic in ("a/1", "b", "a/2"):
        got = await wire.receive()
        assert got == publish(topic, topic.encode(), flags=qos, packet_id=packet_id_of(got))
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.1.2-5")
@pytest.mark.parametrize("kept", [True, False], ids=["stored", "not stored"])
async def test_qos_0_for_a_session_without_connection_is_a_setting(start: Start, kept: bool):
    world = await start(queue_qos0_offline=kept)
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 2))
    await wire.disconnect()
    await (await client(world, "p")).publish("t", b"1")
    wire = await client(world, "c", flags=0, answer=RESUMED)
    if kept:
        await wire.expect(publish("t", b"1"))
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.1.2-6", "3.1.4-3", "3.2.2-1")
async def test_clean_session_1_discards_the_session_before_and_its_own(start: Start):
    world = await start()
    await session_with_state(world)
    wire = await client(world, "c", flags=CLEAN)  # Session Present 0, though there was one
    await (await client(world, "p")).publish("t", b"1", flags=QOS1)
    await wire.expect_nothing()
    await wire.subscribe(("t", 1))
    await wire.disconnect()
    wire = await client(world, "c", flags=0)  # Session Present 0: it ended with its connection
    await (await client(world, "p2")).publish("t", b"2", flags=QOS1)
    await wire.expect_nothing()


@pytest.mark.mqtt3("3.1.2-6", "4.3.3-2")
async def test_clean_session_1_forgets_qos_2_messages_received(start: Start):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("t", 0))
    wire = await client(world, "c", flags=0)
    await wire.send(publish("t", b"1", flags=QOS2, packet_id=7))
    await wire.expect(pubrec(7))
    await wire.disconnect()
    wire = await client(world, "c", flags=CLEAN)
    await wire.send(publish("t", b"2", flags=QOS2, packet_id=7))
    await wire.expect(pubrec(7))
    await watcher.expect(publish("t", b"1"), publish("t", b"2"))


@pytest.mark.mqtt3("3.1.2.7")
@pytest.mark.parametrize("clean", [0, CLEAN])
async def test_retained_message_outlives_the_session_of_its_publisher(start: Start, clean: int):
    world = await start()
    wire = await client(world, "c", flags=clean)
    await wire.publish("t", b"1", flags=RETAIN)
    await wire.disconnect()
    await (await client(world, "c", flags=CLEAN, answer=ACCEPTED)).disconnect()  # ends the session in any case
    wire = await client(world, "d")
    await wire.send(subscribe(1, ("t", 0)))
    await wire.expect(suback(1, 0), publish("t", b"1", flags=RETAIN))


# --- will


async def break_rules(wire: Wire) -> None:
    await wire.send(b"\xf0\x00")
    await wire.expect_closed()


ENDS = {"lost": Wire.lose, "protocol error": break_rules}


@pytest.mark.mqtt3("3.1.2-8", "3.1.2-9")
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("clean", [0, CLEAN])
@pytest.mark.parametrize(
    ("will_qos", "qos"), [(0, 0), (WILL_QOS1, QOS1), (WILL_QOS2, QOS2)], ids=["QoS 0", "QoS 1", "QoS 2"]
)
async def test_will_is_published_when_the_connection_ends_without_disconnect(start, end, clean, will_qos, qos):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will/+", 2))
    wire = await client(world, "c", "will/topic", b"\x00gone\xff", flags=clean | WILL | will_qos)
    await watcher.expect_nothing()
    await end(wire)
    got = await watcher.receive()
    assert got == publish("will/topic", b"\x00gone\xff", flags=qos, packet_id=packet_id_of(got))
    await watcher.expect_nothing()


@pytest.mark.mqtt3("3.1.2-8", "3.1.2-24")
async def test_will_is_published_when_keep_alive_runs_out(start_clocked: Start):
    world = await start_clocked()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client(world, "c", "will", b"", flags=CLEAN | WILL, keep_alive_s=10)
    world.advance(15_001)
    await wire.expect_closed()
    await watcher.expect(publish("will"))


@pytest.mark.mqtt3("3.1.2-8", "3.1.4-2")
async def test_will_is_published_when_another_connection_takes_over(start: Start):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client(world, "c", "will", b"old", flags=CLEAN | WILL)
    await client(world, "c", "will", b"new", flags=CLEAN | WILL)
    await wire.expect_closed()
    await watcher.expect(publish("will", b"old"))
    await watcher.expect_nothing()


@pytest.mark.mqtt3("3.1.2-8")
async def test_will_of_a_refused_connect_is_not_published(start: Start):
    world = await start(client_id_bytes_maximum=23)
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await dial(world)
    await wire.send(connect("x" * 24, "will", b"", flags=CLEAN | WILL))
    await wire.expect(b"\x20\x02\x00\x02")
    await wire.expect_closed()
    await watcher.expect_nothing()


@pytest.mark.mqtt3("3.1.2-10", "3.14.4-3")
@pytest.mark.parametrize("clean", [0, CLEAN])
async def test_disconnect_removes_the_will(start: Start, clean: int):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client(world, "c", "will", b"", flags=clean | WILL)
    await wire.disconnect()
    await watcher.expect_nothing()
    wire = await client(world, "c", flags=clean, answer=ACCEPTED if clean else RESUMED)
    await wire.lose()
    await watcher.expect_nothing()


@pytest.mark.mqtt3("3.1.2-10", "3.1.2-12")
async def test_published_will_is_removed_from_the_session(start: Start):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client(world, "c", "will", b"", flags=WILL)
    await wire.lose()
    await watcher.expect(publish("will"))
    wire = await client(world, "c", flags=0, answer=RESUMED)  # no will this time
    await wire.lose()
    await watcher.expect_nothing()


@pytest.mark.mqtt3("3.1.2-12")
async def test_without_will_flag_nothing_is_published(start: Start):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await client(world, "c")
    await wire.lose()
    await watcher.expect_nothing()


@pytest.mark.mqtt3("3.1.2-16", "3.1.2-17")
@pytest.mark.parametrize("retain", [0, WILL_RETAIN], ids=["not retained", "retained"])
async def test_will_retain_says_whether_the_will_is_retained(start: Start, retain: int):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client(world, "c", "will", b"1", flags=CLEAN | WILL | retain)
    await wire.lose()
    await watcher.expect(publish("will", b"1"))
    late = await client(world, "late")
    await late.subscribe(("will", 0))
    if retain:
        await late.expect(publish("will", b"1", flags=RETAIN))
    await late.expect_nothing()


@pytest.mark.mqtt3("4.7.1-1", "4.7.3-1", "3.1.4-1")
@pytest.mark.parametrize("topic", ["", "a/#", "+", "a+b"])
async def test_will_topic_that_is_no_topic_name_closes_without_connack(start: Start, topic: str):
    wire = await dial(await start())
    await wire.send(connect("c", topic, b"", flags=CLEAN | WILL))
    await wire.expect_closed()


# --- keep alive


@pytest.mark.mqtt3("3.1.2-24")
async def test_silence_of_one_and_a_half_keep_alives_closes(start_clocked: Start):
    world = await start_clocked()
    wire = await client(world, "c", keep_alive_s=10)
    world.advance(14_000)
    await wire.expect_nothing()  # its PINGREQ starts the time anew
    world.advance(14_000)
    await wire.send(puback(1))  # any packet does
    world.advance(14_000)
    assert not wire.peer.connection.is_closed
    world.advance(1_100)
    await wire.expect_closed()


@pytest.mark.mqtt3("3.1.2-24")
async def test_what_we_send_does_not_count_as_life_of_the_client(start_clocked: Start):
    world = await start_clocked()
    wire = await client(world, "c", keep_alive_s=10)
    await wire.subscribe(("t", 0))
    publisher = await client(world, "p")
    world.advance(14_000)
    await publisher.publish("t", b"1")
    await wire.expect(publish("t", b"1"))
    world.advance(1_100)
    await wire.expect_closed()


@pytest.mark.mqtt3("3.1.2-24")
async def test_keep_alive_0_never_closes(start_clocked: Start):
    world = await start_clocked()
    wire = await client(world, "c", keep_alive_s=0)
    world.advance(100_000_000)
    await wire.expect_nothing()


# --- client identifier


@pytest.mark.mqtt3("3.1.3-5")
@pytest.mark.parametrize(
    "client_id",
    ["0", "z", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"],
    ids=lambda client_id: f"{len(client_id)} bytes from {client_id[0]}",
)
async def test_client_identifiers_that_must_be_taken_are_taken(start: Start, client_id: str):
    world = await start(client_id_bytes_maximum=23)  # the least there is
    await client(world, client_id)
    assert world.engine.session(client_id).is_connected


@pytest.mark.mqtt3("3.1.3-4", "3.1.3-2")
@pytest.mark.parametrize(
    "client_id", ["x" * 24, "x" * 65535, "a/b #+$ ü €", "🌍"], ids=["24", "65535", "marks", "4-byte"]
)
async def test_other_client_identifiers_are_taken_as_well(start: Start, client_id: str):
    world = await start()
    await client(world, client_id, flags=0)
    assert world.engine.session(client_id).is_connected
    await client(world, client_id, flags=0, answer=RESUMED)


@pytest.mark.mqtt3("3.1.3-6")
async def test_empty_client_identifiers_become_unique_ones(start: Start):
    world = await start()
    one, other = await client(world, ""), await client(world, "")
    names = {session.client_id for session in world.engine.sessions()}
    assert len(names) == 2
    assert "" not in names
    await one.subscribe(("t", 0))
    await other.publish("t", b"1")
    await one.expect(publish("t", b"1"))
    await one.lose()
    assert world.metrics["sessions"] == 1


@pytest.mark.mqtt3("3.1.3-7", "3.1.3-8", "3.2.2-4", "3.2.2-5")
async def test_empty_client_identifier_without_clean_session_is_rejected(start: Start):
    world = await start()
    wire = await dial(world)
    await wire.send(connect("", flags=0) + PINGREQ)
    await wire.expect(b"\x20\x02\x00\x02")
    await wire.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt3("3.1.3-9", "3.2.2-4", "3.2.2-5")
async def test_client_identifier_over_our_limit_is_rejected(start: Start):
    world = await start(client_id_bytes_maximum=23)
    wire = await dial(world)
    await wire.send(connect("x" * 24) + PINGREQ)
    await wire.expect(b"\x20\x02\x00\x02")
    await wire.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt3("3.1.3-2")
async def test_client_identifiers_tell_sessions_apart_byte_by_byte(start: Start):
    world = await start()
    names = ["c", "C", "c ", "\u00e9", "e\u0301"]
    for name in names:
        wire = await client(world, name, flags=0)
        await wire.subscribe((f"t/{names.index(name)}", 1))
        await wire.disconnect()
    publisher = await client(world, "p")
    for name in names:
        await publisher.publish(f"t/{names.index(name)}", name.encode(), flags=QOS1)
    for name in names:
        wire = await client(world, name, flags=0, answer=RESUMED)
        assert (await wire.receive()).endswith(name.encode())
        await wire.expect_nothing()


# --- the response


@pytest.mark.mqtt3("3.1.4-2")
@pytest.mark.parametrize("clean", [0, CLEAN])
async def test_second_connection_of_a_client_closes_the_first(start: Start, clean: int):
    world = await start()
    first = await client(world, "c", flags=clean)
    other = await client(world, "d")
    second = await client(world, "c", flags=clean, answer=ACCEPTED if clean else RESUMED)
    await first.expect_closed()
    await second.expect_nothing()
    await other.expect_nothing()
    assert world.metrics["sessions_connected"] == 2


@pytest.mark.mqtt3("3.1.4-4", "3.2.0-1", "3.2.2-1", "3.2.2-3")
@pytest.mark.parametrize("clean", [0, CLEAN])
async def test_accepted_connect_is_answered_first_with_connack_0(start: Start, clean: int):
    wire = await dial(await start())
    # packets sent at once are answered behind it
    await wire.send(connect("c", flags=clean) + subscribe(1, ("t", 0)) + publish("t", b"1") + PINGREQ)
    await wire.expect(ACCEPTED, suback(1, 0), publish("t", b"1"), PINGRESP)


@pytest.mark.mqtt3("3.2.0-1", "3.1.4-4")
async def test_resumed_session_gets_its_messages_behind_connack(start: Start):
    world = await start()
    await session_with_state(world)
    wire = await client(world, "c", flags=0, answer=RESUMED)  # the first bytes
    assert [(await wire.receive())[0] for _ in range(2)] == [0x3A, 0x32]


@pytest.mark.mqtt3("3.1.4-5", "3.2.2-5")
async def test_what_follows_a_rejected_connect_is_not_processed(start: Start):
    world = await start(client_id_bytes_maximum=23)
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await dial(world)
    await wire.send(connect("x" * 24) + publish("t", b"1") + publish("t", b"2", flags=RETAIN) + PINGREQ)
    await wire.expect(b"\x20\x02\x00\x02")
    await wire.expect_closed()
    await watcher.expect_nothing()
    assert world.metrics["retained"] == 0


@pytest.mark.mqtt3("3.1.4-5", "3.2.0-1")
async def test_what_follows_a_connect_waits_until_it_is_decided(start_clocked: Start):
    waiting = []

    def authenticate(connection, packet):
        if packet.client_id != "c":
            return ACCEPT
        waiting.append(connection)
        return PENDING

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await dial(world)
    await wire.send(connect("c") + publish("t", b"1") + PINGREQ)
    assert await wire.peer._read() is None
    await watcher.expect_nothing()
    world.engine.refuse(waiting[0], 0x87)
    world.engine.flush()
    await wire.expect(b"\x20\x02\x00\x05")
    await wire.expect_closed()
    await watcher.expect_nothing()


@pytest.mark.mqtt3("3.1.4-1")
async def test_connect_cut_short_by_its_own_length_closes_without_connack(start: Start):
    whole = connect("client")
    for size in range(len(whole) - 2):
        wire = await dial(await start())
        await wire.send(packet(0x10, whole[2 : 2 + size]))
        await wire.expect_closed()


@pytest.mark.mqtt3("3.2.2-4", "3.2.2-5", "3.1.4-5")
@pytest.mark.parametrize(
    ("reason_code", "return_code"), [(0x84, 1), (0x85, 2), (0x88, 3), (0x86, 4), (0x87, 5)], ids=hex
)
async def test_refusal_is_said_with_its_return_code_and_closes(start_clocked: Start, reason_code, return_code):
    def authenticate(connection, packet):
        return Refusal(reason_code) if packet.password == b"wrong" else ACCEPT

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    await (await client(world, "c", flags=0)).disconnect()  # leaves a session
    wire = await dial(world)
    await wire.send(connect("c", "name", "wrong", flags=USER_NAME | PASSWORD), PINGREQ)
    await wire.expect(bytes([0x20, 2, 0, return_code]))  # Session Present 0 all the same
    await wire.expect_closed()


@pytest.mark.mqtt3("3.2.2-6")
@pytest.mark.parametrize("flags", [WILL | WILL_QOS1, WILL | WILL_QOS2, WILL | WILL_RETAIN])
async def test_refusal_without_a_fitting_return_code_closes_without_connack(start: Start, flags: int):
    # There is none for what the limits exclude.
    world = await start(maximum_qos=0, retain_available=False)
    wire = await dial(world)
    await wire.send(connect("c", "will", b"", flags=CLEAN | flags) + PINGREQ)
    await wire.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt3("4.8.0-2", "3.2.2-5")
async def test_transient_error_at_connect_closes_and_leaves_others_alone(start: Start):
    world = await start(sessions_maximum=1)
    other = await client(world, "other")
    wire = await dial(world)
    await wire.send(connect("c") + PINGREQ)
    await wire.expect(b"\x20\x02\x00\x03")
    await wire.expect_closed()
    await other.expect_nothing()


def test_length_prefix_of_the_builder_is_two_bytes():
    assert text("MQTT") == b"\x00\x04MQTT"
