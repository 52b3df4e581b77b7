"""MQTT 5 §3.1: CONNECT, read strictly, and what the server does with it."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import (
    Auth,
    Connect,
    PingReq,
    PingResp,
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
    Will,
)
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.identity import Challenge, Refusal

from .authentication import ACCEPT
from .v5_wire import (
    ack,
    block,
    connect,
    expect_bytes,
    expect_refused,
    expect_silence,
    packet,
    pair,
    publish,
    subscribe,
    text,
)

MALFORMED = ReasonCode.MALFORMED_PACKET
UNSUPPORTED = ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
ALL_QOS = [0, 1, 2]
DURABLE = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}}
WILL_FIELDS = (block(), text("will"), text("gone"))


# --- the first packet, and a second one -------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.0-1")
@pytest.mark.parametrize(
    "data",
    [
        publish("t", b"x"),
        publish("t", b"x", flags=2, packet_id=1),
        ack(0x40, 1),
        ack(0x50, 1),
        ack(0x62, 1),
        ack(0x70, 1),
        subscribe("t"),
        ack(0xA2, 1, block(), text("t")),
        b"\xc0\x00",
        b"\xe0\x00",
        packet(0xF0, b"\x18", block(b"\x15\x00\x01m")),
        packet(0x20, b"\x00\x00", block()),
        ack(0x90, 1, block(), b"\x00"),
        b"\xd0\x00",
        b"\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda data: data[:1].hex(),
)
async def test_anything_but_connect_first_closes_without_a_word(start: Start, data: bytes):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.open()
    await peer.send(data, connect())
    await peer.expect_closed()
    await reader.expect_nothing()
    assert world.metrics["sessions"] == 1


@pytest.mark.mqtt5("3.1.0-2")
@pytest.mark.parametrize("second", [connect(), connect(text("other"))], ids=["same client", "other client"])
async def test_second_connect_closes_the_connection(start: Start, second: bytes):
    world = await start()
    peer = await world.open()
    await peer.send(connect())
    assert (await peer.receive()).reason_code == 0
    await peer.send(second)
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    assert world.metrics["sessions"] == 0


# --- protocol name and version ----------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.2-1")
@pytest.mark.parametrize("name", [b"", b"MQT", b"mqtt", b"MQTTX", b"HTTP", b"\x00QTT"])
async def test_other_protocol_names_are_refused(start: Start, name: bytes):
    world = await start()
    peer = await world.open()
    await peer.send(connect(name=name))
    await peer.expect_closed()  # without a byte: under another name it is no MQTT
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("3.1.2-1")
async def test_name_of_mqtt_3_1_with_version_5_is_refused(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(connect(name=b"MQIsdp"))
    await expect_bytes(peer, b"\x20\x03\x00\x84\x00")
    await peer.expect_closed()


@pytest.mark.mqtt5("3.1.2-2")
@pytest.mark.parametrize("level", [6, 7, 0x85, 0xFF])
async def test_later_versions_are_refused_with_0x84(start: Start, level: int):
    world = await start()
    peer = await world.open()
    await peer.send(connect(level=level))
    await expect_bytes(peer, b"\x20\x03\x00\x84\x00")
    await peer.expect_closed()


@pytest.mark.mqtt5("3.1.2-2")
@pytest.mark.parametrize("level", [0, 1, 2, 3])
async def test_versions_before_3_1_1_under_this_name_are_refused(start: Start, level: int):
    world = await start()
    peer = await world.open()
    await peer.send(connect(level=level))
    await expect_bytes(peer, b"\x20\x02\x00\x01")
    await peer.expect_closed()


@pytest.mark.mqtt5("3.1.2-2")
async def test_version_byte_decides_how_the_rest_is_read(start: Start):
    world = await start()
    new = await world.open(5)
    await new.send(connect(text("new")))
    assert (await new.receive()).properties[PropertyId.MAXIMUM_PACKET_SIZE]
    old = await world.open(4)
    await old.send(packet(0x10, text("MQTT"), b"\x04\x02\x00\x00", text("old")))
    await expect_bytes(old, b"\x20\x02\x00\x00")


# --- connect flags ----------------------------------------------------------------------------------------------------


async def _malformed(start: Start, data: bytes) -> None:
    world = await start()
    peer = await world.open()
    await peer.send(data)
    await expect_refused(peer, MALFORMED)
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("3.1.2-3")
@pytest.mark.parametrize(
    "data",
    [
        connect(flags=0x01),
        connect(flags=0x03),
        connect(text("c"), *WILL_FIELDS, flags=0x07),
        connect(text("c"), text("user"), text("word"), flags=0xC3),
    ],
    ids=["alone", "clean start", "will", "user name and password"],
)
async def test_reserved_connect_flag_is_malformed(start: Start, data: bytes):
    await _malformed(start, data)


@pytest.mark.mqtt5("3.1.2-11")
@pytest.mark.parametrize("qos", [1, 2, 3])
async def test_will_qos_without_will_is_malformed(start: Start, qos: int):
    await _malformed(start, connect(flags=0x02 | qos << 3))


@pytest.mark.mqtt5("3.1.2-12")
async def test_will_qos_3_is_malformed(start: Start):
    await _malformed(start, connect(text("c"), *WILL_FIELDS, flags=0x02 | 0x04 | 3 << 3))


@pytest.mark.mqtt5("3.1.2-12")
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_will_has_the_qos_that_the_flags_say(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("will")
    peer = await world.open()
    await peer.send(connect(text("c"), *WILL_FIELDS, flags=0x02 | 0x04 | qos << 3))
    await peer.receive()
    await peer.lose()
    assert (await reader.receive_publish()).qos == qos


@pytest.mark.mqtt5("3.1.2-13")
async def test_will_retain_without_will_is_malformed(start: Start):
    await _malformed(start, connect(flags=0x22))


@pytest.mark.mqtt5("3.1.2-14", "3.1.2-15")
@pytest.mark.parametrize("retain", [False, True])
async def test_will_is_retained_when_the_flag_says_so_and_only_then(start: Start, retain: bool):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe(Subscription("will", 2, retain_as_published=True))
    peer = await world.open()
    await peer.send(connect(text("c"), *WILL_FIELDS, flags=0x26 if retain else 0x06))
    await peer.receive()
    assert world.metrics["retained"] == 0  # not before it is published
    await peer.lose()
    assert (await reader.receive_publish()).retain == retain
    assert world.metrics["retained"] == retain
    late = await world.connect("late")
    await late.subscribe("will")
    if retain:
        await late.expect(Publish("will", b"gone", retain=True))
    await late.expect_nothing()


@pytest.mark.mqtt5("3.1.2-14")
async def test_will_that_is_not_retained_leaves_the_retained_message(start: Start):
    world = await start()
    peer = await world.connect("c", will=Will("will", b""))
    await peer.publish("will", b"kept", retain=True)
    await peer.lose()
    late = await world.connect("late")
    await late.subscribe("will")
    await late.expect(Publish("will", b"kept", retain=True))


@pytest.mark.mqtt5("3.1.2-9")
@pytest.mark.parametrize(
    "fields",
    [(), (block(),), (block(), text("will")), (text("will"), text("gone")), (block(), text("gone"))],
    ids=["nothing", "no topic", "no payload", "no properties", "no topic but payload"],
)
async def test_will_flag_without_all_will_fields_is_malformed(start: Start, fields: tuple[bytes, ...]):
    await _malformed(start, connect(text("c"), *fields, flags=0x06))


@pytest.mark.mqtt5("3.1.2-9")
async def test_will_fields_without_will_flag_are_malformed(start: Start):
    await _malformed(start, connect(text("c"), *WILL_FIELDS, flags=0x02))


@pytest.mark.mqtt5("3.1.2-16", "3.1.2-18")
async def test_field_that_no_flag_announces_is_malformed(start: Start):
    await _malformed(start, connect(text("c"), text("user"), flags=0x02))
    await _malformed(start, connect(text("c"), text("user"), text("word"), flags=0x82))
    await _malformed(start, connect(text("c"), text("user"), text("word"), flags=0x42))


@pytest.mark.mqtt5("3.1.2-17", "3.1.2-19")
async def test_announced_field_that_is_missing_is_malformed(start: Start):
    await _malformed(start, connect(text("c"), flags=0x82))
    await _malformed(start, connect(text("c"), flags=0x42))
    await _malformed(start, connect(text("c"), text("user"), flags=0xC2))
    await _malformed(start, connect(text("c"), text("user"), b"\x00\x05word", flags=0xC2))


@pytest.mark.mqtt5("3.1.2-16", "3.1.2-17", "3.1.2-18", "3.1.2-19")
@pytest.mark.parametrize(
    ("flags", "fields", "expected"),
    [
        (0x02, (), (None, None)),
        (0x82, (text("user"),), ("user", None)),
        (0x42, (text(b"\x00word\xff"),), (None, b"\x00word\xff")),
        (0xC2, (text("user"), text("word")), ("user", b"word")),
        (0xC2, (text(""), text("")), ("", b"")),
    ],
    ids=["neither", "user name", "password alone", "both", "both empty"],
)
async def test_user_name_and_password_are_there_as_the_flags_say(start_clocked: Start, flags, fields, expected):
    asked = []

    def authenticate(_client: Any, packet: Connect) -> Any:
        asked.append((packet.user_name, packet.password))
        return ACCEPT

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    peer = await world.open()
    await peer.send(connect(text("c"), *fields, flags=flags))
    assert (await peer.receive()).reason_code == 0
    assert asked == [expected]


@pytest.mark.mqtt5("3.1.3-1")
async def test_payload_fields_are_read_in_their_order(start_clocked: Start):
    seen: list[Connect] = []
    world = await start_clocked(hooks=HookTable(authenticate=lambda _, packet: seen.append(packet) or ACCEPT))
    peer = await world.open()
    fields = [text("id"), block(b"\x18\x00\x00\x00\x07"), text("topic"), text("payload"), text("user"), text("word")]
    await peer.send(connect(*fields, flags=0xC6))
    assert (await peer.receive()).reason_code == 0
    packet = seen[0]
    assert (packet.client_id, packet.user_name, packet.password) == ("id", "user", b"word")
    assert packet.will == Will("topic", b"payload", properties={PropertyId.WILL_DELAY_INTERVAL: 7})


# --- clean start and sessions -----------------------------------------------------------------------------------------


async def session_with_message(world: Any, client_id: str = "c") -> None:
    """Leave a session behind with a subscription and a queued message."""
    peer = await world.connect(client_id, **DURABLE)
    await peer.subscribe("t")
    await peer.disconnect()
    await (await world.connect("w")).publish("t", b"queued", qos=1)


@pytest.mark.mqtt5("3.1.2-4", "3.1.4-4")
async def test_clean_start_discards_the_session(start: Start):
    world = await start()
    await session_with_message(world)
    peer = await world.open()
    await peer.send(connect(flags=0x02))
    answer = await peer.receive()
    assert (answer.reason_code, answer.session_present) == (0, False)
    await peer.publish("t", b"to nobody", qos=1)
    await peer.expect_nothing()
    assert world.metrics["subscriptions"] == 0
    assert world.metrics["queued"] == 0


@pytest.mark.mqtt5("3.1.2-5", "3.1.4-4", "3.1.2-23")
async def test_without_clean_start_the_session_is_resumed(start: Start):
    world = await start()
    await session_with_message(world)
    peer = await world.open()
    await peer.send(connect(flags=0x00))
    answer = await peer.receive()
    assert (answer.reason_code, answer.session_present) == (0, True)
    assert (await peer.receive_publish()).payload == b"queued"
    await peer.publish("t", b"subscription is there", qos=1)
    assert (await peer.receive_publish()).payload == b"subscription is there"


@pytest.mark.mqtt5("3.1.2-6", "3.1.4-4")
async def test_without_clean_start_and_session_there_is_a_new_one(start: Start):
    world = await start()
    await session_with_message(world, "other")
    peer = await world.open()
    await peer.send(connect(flags=0x00, properties=b"\x11\x00\x00\x00\x64"))
    answer = await peer.receive()
    assert (answer.reason_code, answer.session_present) == (0, False)
    await peer.subscribe("own")
    await peer.lose()
    await world.connect("c", **DURABLE, session_present=True)


@pytest.mark.mqtt5("3.1.2-23")
@pytest.mark.parametrize("cut", [True, False], ids=["lost", "disconnect"])
async def test_session_is_stored_when_its_expiry_is_above_zero(start_clocked: Start, cut: bool):
    world = await start_clocked()
    for expiry_s, lives in ((0, False), (1, True), (1000, True), (0xFFFFFFFF, True)):
        peer = await world.connect(f"c{expiry_s}", properties={PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s})
        await peer.subscribe("t")
        await (peer.lose() if cut else peer.disconnect())
        world.advance(800)
        assert (world.engine.session(f"c{expiry_s}") is not None) == lives
    world.advance(300)
    assert world.engine.session("c1") is None
    world.advance(1_000_000)
    assert world.engine.session("c1000") is None
    back = await world.connect(f"c{0xFFFFFFFF}", clean_start=False, session_present=True)
    await back.publish("t", b"1", qos=1)
    assert (await back.receive_publish()).payload == b"1"


@pytest.mark.mqtt5("3.1.2-23")
async def test_every_part_of_the_session_state_is_stored(start: Start):
    world = await start()
    peer = await world.connect("c", **DURABLE)
    await peer.subscribe("t", subscription_id=7)
    writer = await world.connect("w")
    await peer.send(publish("elsewhere", b"received", flags=4, packet_id=50))
    await peer.expect(PubRec(50, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    for payload in (b"sent", b"half done"):
        await writer.publish("t", payload, qos=2)
    sent, half = await peer.receive(), await peer.receive()
    await peer.send(PubRec(half.packet_id))
    await peer.expect(PubRel(half.packet_id))
    await peer.lose()
    await writer.publish("t", b"queued", qos=1)
    peer = await world.connect("c", **DURABLE, session_present=True)
    again = await peer.receive()
    assert (again.payload, again.packet_id, again.dup) == (b"sent", sent.packet_id, True)
    await peer.expect(PubRel(half.packet_id))
    queued = await peer.receive()
    assert (queued.payload, queued.dup) == (b"queued", False)
    assert queued.properties == {PropertyId.SUBSCRIPTION_IDENTIFIER: [7]}
    await peer.send(publish("t", b"received", flags=12, packet_id=50))  # the same message: not delivered again
    await peer.expect(PubRec(50))
    await peer.send(PubRel(50))
    await peer.expect(PubComp(50))
    await peer.expect_nothing()


# --- wills ------------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.2-7", "3.1.2-8")
@pytest.mark.parametrize("qos", ALL_QOS)
async def test_will_is_stored_and_published_when_the_connection_closes(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("will/#")
    properties = {
        PropertyId.PAYLOAD_FORMAT_INDICATOR: 1,
        PropertyId.CONTENT_TYPE: "text/plain",
        PropertyId.RESPONSE_TOPIC: "answer/here",
        PropertyId.CORRELATION_DATA: b"\x00\xff",
        PropertyId.MESSAGE_EXPIRY_INTERVAL: 90,
        PropertyId.USER_PROPERTY: [("a", "b")],
    }
    peer = await world.connect("c", will=Will("will/c", b"gone", qos=qos, properties=properties))
    await peer.expect_nothing()
    await reader.expect_nothing()
    await peer.lose()
    message = await reader.receive_publish()
    assert (message.topic, message.payload, message.qos) == ("will/c", b"gone", qos)
    assert message.properties == properties
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.2-8")
@pytest.mark.parametrize(
    "last",
    [
        b"\xe0\x01\x04",
        b"\xe0\x01\x80",
        b"\xc1\x00",
        b"\x00\x00",
        connect(),
        publish("a/#"),
        b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05",
    ],
    ids=["with will", "error", "malformed", "type 0", "second CONNECT", "wildcard topic", "raised expiry"],
)
async def test_will_is_published_whatever_else_closed_the_connection(start: Start, last: bytes):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("will")
    peer = await world.connect("c", will=Will("will", b"gone"))
    await peer.send(last)
    await reader.expect(Publish("will", b"gone"))


@pytest.mark.mqtt5("3.1.2-8", "3.1.2-10")
@pytest.mark.parametrize("last", [b"\xe0\x00", b"\xe0\x01\x00", b"\xe0\x02\x00\x00"])
async def test_normal_disconnect_deletes_the_will(start: Start, last: bytes):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("will")
    peer = await world.connect("c", will=Will("will", b"gone"), **DURABLE)
    await peer.send(last)
    await peer.expect_closed()
    # it is gone from the session for good: neither resuming nor ending it brings it back
    peer = await world.connect("c", **DURABLE, session_present=True)
    await peer.lose()
    await world.connect("c")
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.2-10")
async def test_will_is_published_once(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("will")
    peer = await world.connect("c", will=Will("will", b"gone"), **DURABLE)
    await peer.lose()
    await reader.expect(Publish("will", b"gone"))
    peer = await world.connect("c", **DURABLE, session_present=True)  # without a will this time
    await peer.lose()
    await world.connect("c")
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.2-8", "3.1.3-9")
async def test_will_waits_for_its_delay(start_clocked: Start):
    world = await start_clocked()
    reader = await world.connect("r")
    await reader.subscribe("will")
    will = Will("will", b"gone", properties={PropertyId.WILL_DELAY_INTERVAL: 10})
    peer = await world.connect("c", will=will, **DURABLE)
    await peer.lose()
    world.advance(9_900)
    await reader.expect_nothing()
    world.advance(200)
    await reader.expect(Publish("will", b"gone"))  # without the delay among its properties
    world.advance(2_000_000)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.2-8", "3.1.3-9")
async def test_will_goes_out_when_the_session_ends_before_its_delay(start_clocked: Start):
    world = await start_clocked()
    reader = await world.connect("r")
    await reader.subscribe("will")
    will = Will("will", b"gone", properties={PropertyId.WILL_DELAY_INTERVAL: 3600})
    peer = await world.connect("c", will=will, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 5})
    await peer.lose()
    world.advance(4_900)
    await reader.expect_nothing()
    world.advance(200)
    await reader.expect(Publish("will", b"gone"))


@pytest.mark.mqtt5("3.1.3-9")
@pytest.mark.parametrize("expiry_s", [1000, 0xFFFFFFFF])
async def test_reconnecting_within_the_delay_keeps_the_will_from_being_sent(start_clocked: Start, expiry_s: int):
    world = await start_clocked()
    reader = await world.connect("r")
    await reader.subscribe("will")
    will = Will("will", b"gone", properties={PropertyId.WILL_DELAY_INTERVAL: 10})
    fields: Any = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s}}
    peer = await world.connect("c", will=will, **fields)
    await peer.lose()
    world.advance(9_000)
    await world.connect("c", session_present=True, **fields)
    world.advance(60_000)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.3-10")
async def test_user_properties_of_a_will_keep_their_order(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("will", qos=0)
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("", ""), ("b", "0")]
    peer = await world.open()
    properties = b"".join(pair(*p) for p in pairs)
    await peer.send(connect(text("c"), block(properties), text("will"), text("gone"), flags=0x06))
    await peer.receive()
    await peer.lose()
    await expect_bytes(reader, publish("will", b"gone", properties=properties))


# --- keep alive -------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.2-22")
@pytest.mark.parametrize("keep_alive_s", [1, 10, 65535])
async def test_silence_of_one_and_a_half_keep_alives_closes_as_a_lost_network_does(
    start_clocked: Start, keep_alive_s: int
):
    world = await start_clocked()
    reader = await world.connect("r")
    await reader.subscribe("will")
    peer = await world.connect("c", keep_alive_s=keep_alive_s, will=Will("will", b"gone"))
    world.advance(keep_alive_s * 1500 - 100)
    await expect_silence(peer)
    world.advance(200)
    await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)
    await reader.expect(Publish("will", b"gone"))


@pytest.mark.mqtt5("3.1.2-22")
@pytest.mark.parametrize(
    "data",
    [b"\xc0\x00", publish("t"), publish("t", flags=2, packet_id=1), ack(0x40, 9), ack(0x62, 9), subscribe("t")],
    ids=["PINGREQ", "PUBLISH", "PUBLISH QoS 1", "PUBACK", "PUBREL", "SUBSCRIBE"],
)
async def test_any_packet_keeps_the_connection_alive(start_clocked: Start, data: bytes):
    world = await start_clocked()
    peer = await world.connect("c", keep_alive_s=10)
    for _ in range(5):
        world.advance(14_000)
        await peer.send(data)
    world.advance(14_900)
    assert world.metrics["sessions_connected"] == 1
    world.advance(300)
    assert world.metrics["sessions_connected"] == 0


@pytest.mark.mqtt5("3.1.2-22")
async def test_keep_alive_zero_turns_the_mechanism_off(start_clocked: Start):
    world = await start_clocked()
    peer = await world.connect("c", keep_alive_s=0)
    world.advance(1_000_000_000)
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.1.2-21")
@pytest.mark.parametrize("asked_s", [0, 100, 65535])
async def test_server_keeps_time_by_the_keep_alive_it_assigned(start_clocked: Start, asked_s: int):
    world = await start_clocked(keep_alive_maximum_s=10)
    peer = await world.connect("c", keep_alive_s=asked_s)
    assert peer.connack.properties[PropertyId.SERVER_KEEP_ALIVE] == 10
    world.advance(14_900)
    await expect_silence(peer)
    world.advance(200)
    await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)


# --- maximum packet size of the client --------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.2-24", "3.1.2-25")
@pytest.mark.parametrize("qos", ALL_QOS)
@pytest.mark.parametrize("is_queued", [False, True], ids=["connected", "queued"])
async def test_message_over_the_clients_maximum_counts_as_sent(start: Start, qos: int, is_queued: bool):
    world = await start()
    fields: Any = {
        "clean_start": False,
        "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 100, PropertyId.MAXIMUM_PACKET_SIZE: 50},
    }
    reader = await world.connect("r", **fields)
    await reader.subscribe("t")
    writer = await world.connect("w")
    if is_queued:
        await reader.lose()
    largest = bytes(50 - len(publish("t", flags=qos << 1, packet_id=1)))
    for payload in (largest + b"x", bytes(500), bytes(100_000)):
        await writer.publish("t", payload, qos=qos)  # the publisher hears nothing of it
    await writer.publish("t", largest, qos=qos)
    if is_queued:
        reader = await world.connect("r", **fields, session_present=True)
    if qos or not is_queued:
        message = await reader.receive_publish()
        assert len(message.encode(5)) == 50
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0
    assert world.metrics["queued"] == 0
    assert world.metrics["messages_dropped_too_large"] == (3 if qos or not is_queued else 0)


@pytest.mark.mqtt5("3.1.2-24", "3.1.2-25")
@pytest.mark.parametrize("qos", [1, 2])
async def test_resend_over_the_new_connections_maximum_counts_as_sent(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r", **DURABLE)
    await reader.subscribe("t")
    writer = await world.connect("w")
    await writer.publish("t", bytes(500), qos=qos)
    await reader.receive()
    await reader.lose()
    await writer.publish("t", b"small", qos=qos)
    small = {PropertyId.SESSION_EXPIRY_INTERVAL: 100, PropertyId.MAXIMUM_PACKET_SIZE: 50}
    reader = await world.connect("r", clean_start=False, session_present=True, properties=small)
    assert (await reader.receive_publish()).payload == b"small"
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


@pytest.mark.mqtt5("3.1.2-24", "3.1.2-25")
async def test_retained_message_over_the_clients_maximum_is_left_out(start: Start):
    world = await start()
    writer = await world.connect("w")
    await writer.publish("a", bytes(500), retain=True, qos=1)
    await writer.publish("b", b"small", retain=True, qos=1)
    reader = await world.connect("r", properties={PropertyId.MAXIMUM_PACKET_SIZE: 50})
    await reader.subscribe("#")
    assert (await reader.receive_publish()).payload == b"small"
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.2-24")
async def test_connack_over_the_clients_maximum_is_not_sent(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(connect(properties=b"\x27\x00\x00\x00\x05"))
    await expect_bytes(peer, b"\x20\x03\x00\x95\x00")
    await peer.expect_closed()
    peer = await world.open()
    await peer.send(connect(properties=b"\x27\x00\x00\x00\x04"))
    await peer.expect_closed()


@pytest.mark.mqtt5("3.1.2-24")
async def test_reason_string_is_left_out_of_a_disconnect_that_would_be_too_large(start: Start):
    world = await start()
    for maximum, has_reason in ((30, False), (1000, True)):
        peer = await world.connect("c", properties={PropertyId.MAXIMUM_PACKET_SIZE: maximum})
        await peer.send(publish("t/#/wild"))
        said = await peer.expect_closed(ReasonCode.TOPIC_NAME_INVALID)
        assert (PropertyId.REASON_STRING in said.properties) == has_reason
        assert len(said.encode(5)) <= maximum


# --- topic aliases of the server --------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.2-26")
@pytest.mark.parametrize("maximum", [1, 2, 5, 65535])
async def test_aliases_of_the_server_stay_within_the_clients_maximum(start: Start, maximum: int):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.TOPIC_ALIAS_MAXIMUM: maximum})
    await reader.subscribe("topic/+", qos=0)
    writer = await world.connect("w")
    known: dict[int, str] = {}
    for i in [i % 7 for i in range(100)] + [0] * 5:
        await writer.publish(f"topic/{i}", b"%d" % i)
        message = await reader.receive()
        alias = message.properties.get(PropertyId.TOPIC_ALIAS)
        if alias is not None:
            assert 1 <= alias <= maximum
            if message.topic:
                known[alias] = message.topic
        assert (message.topic or known[alias]) == f"topic/{i}"
    assert known


@pytest.mark.mqtt5("3.1.2-27")
@pytest.mark.parametrize("properties", [b"", b"\x22\x00\x00"], ids=["absent", "zero"])
async def test_server_sends_no_alias_to_who_takes_none(start: Start, properties: bytes):
    world = await start()
    reader = await world.open()
    await reader.send(connect(properties=properties))
    await reader.receive()
    await reader.subscribe("a/long/topic", qos=0)
    writer = await world.connect("w")
    await writer.send(publish("a/long/topic", b"x", properties=b"\x23\x00\x01") * 3)
    await expect_bytes(reader, publish("a/long/topic", b"x") * 3)


# --- what the client asked for ----------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.2-28")
@pytest.mark.parametrize(
    ("properties", "expected"), [(b"", None), (b"\x19\x00", None), (b"\x19\x01", "answers/")], ids=["absent", "0", "1"]
)
async def test_response_information_is_for_who_asks(start: Start, properties: bytes, expected: str | None):
    world = await start(response_information="answers/")
    peer = await world.open()
    await peer.send(connect(properties=properties))
    assert (await peer.receive()).properties.get(PropertyId.RESPONSE_INFORMATION) == expected


@pytest.mark.mqtt5("3.1.2-29")
async def test_without_request_for_problem_information_acknowledgements_have_none(start: Start):
    world = await start(subscriptions_per_session_maximum=2)
    peer = await world.open()
    await peer.send(connect(properties=b"\x17\x00"))
    await peer.receive()
    none, gone = ReasonCode.NO_MATCHING_SUBSCRIBERS, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    await peer.send(
        Subscribe(1, [Subscription("a/#/b"), Subscription("$SYS/#"), Subscription("t"), Subscription("u")]),
        Subscribe(2, [Subscription("v")]),
        Unsubscribe(3, ["none", "a/#/b"]),
        Publish("none", qos=1, packet_id=4),
        Publish("$SYS/x", qos=1, packet_id=5),
        Publish("$SYS/x", qos=2, packet_id=6),
        Publish("none", qos=2, packet_id=7),
        PubRel(8),
        PubRec(9),
        # properties of a message are not problem information
        publish("t", b"x", properties=pair("a", "b")),
    )
    await peer.expect(
        SubAck(1, [ReasonCode.TOPIC_FILTER_INVALID, ReasonCode.NOT_AUTHORIZED, 0, 0]),
        SubAck(2, [ReasonCode.QUOTA_EXCEEDED]),
        UnsubAck(3, [ReasonCode.NO_SUBSCRIPTION_EXISTED, ReasonCode.TOPIC_FILTER_INVALID]),
        PubAck(4, none),
        PubAck(5, ReasonCode.NOT_AUTHORIZED),
        PubRec(6, ReasonCode.NOT_AUTHORIZED),
        PubRec(7, none),
        PubComp(8, gone),
        PubRel(9, gone),
        Publish("t", b"x", properties={PropertyId.USER_PROPERTY: [("a", "b")]}),
    )


@pytest.mark.mqtt5("3.1.2-30")
@pytest.mark.parametrize(
    "data",
    [publish("t", b"early"), subscribe("t"), b"\xc0\x00", connect()],
    ids=["PUBLISH", "SUBSCRIBE", "PINGREQ", "CONNECT"],
)
async def test_while_authenticating_only_auth_and_disconnect_are_taken(start_clocked: Start, data: bytes):
    hooks = HookTable(
        authenticate=lambda _, packet: Challenge(b"who") if packet.properties else ACCEPT,
        continue_authentication=lambda *_: ACCEPT,
    )
    world = await start_clocked(hooks=hooks)
    reader = await world.connect("r")
    await reader.subscribe("t")
    method = {PropertyId.AUTHENTICATION_METHOD: "m"}
    peer = await world.open()
    await peer.send(connect(properties=b"\x15\x00\x01m"))
    await peer.expect(Auth(ReasonCode.CONTINUE_AUTHENTICATION, {**method, PropertyId.AUTHENTICATION_DATA: b"who"}))
    await peer.send(data, Auth(ReasonCode.CONTINUE_AUTHENTICATION, method))
    await peer.expect_closed()
    await reader.expect_nothing()
    assert world.metrics["sessions"] == 1


# --- client identifiers -----------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.1.3-2")
async def test_session_is_found_by_client_identifier_alone(start: Start):
    world = await start()
    names = ["c", "C", "c ", "cc", "\u00e9", "e\u0301"]
    for name in names:
        peer = await world.connect(name, **DURABLE)
        await peer.subscribe(f"of/{name}", qos=1)
        await peer.lose()
    assert world.metrics["sessions"] == len(names)
    for name in names:
        other = {"clean_start": False, "user_name": "somebody", "properties": {PropertyId.RECEIVE_MAXIMUM: 3}}
        peer = await world.connect(name, session_present=True, **other)
        await peer.publish(f"of/{name}", name.encode(), qos=1)
        assert (await peer.receive_publish()).payload == name.encode()


@pytest.mark.mqtt5("3.1.3-3")
@pytest.mark.parametrize("rest", [b"", b"\x00", b"\x00\x05c"], ids=["missing", "half a length", "cut"])
async def test_connect_without_client_identifier_is_malformed(start: Start, rest: bytes):
    await _malformed(start, packet(0x10, text("MQTT"), b"\x05\x02\x00\x00", block(), rest))


@pytest.mark.mqtt5("3.1.3-3")
async def test_client_identifier_is_the_first_field_of_the_payload(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(connect(text("first"), *WILL_FIELDS, text("user"), flags=0x86))
    assert (await peer.receive()).reason_code == 0
    await world.connect("first")
    await peer.expect_closed(ReasonCode.SESSION_TAKEN_OVER)


@pytest.mark.mqtt5("3.1.3-4")
@pytest.mark.parametrize("client_id", [b"\xff", b"c\xed\xa0\x80", b"c\x00"], ids=repr)
async def test_client_identifier_that_is_no_utf8_string_is_refused(start: Start, client_id: bytes):
    await _malformed(start, connect(text(client_id)))


@pytest.mark.mqtt5("3.1.3-4")
@pytest.mark.parametrize("client_id", ["\u65e5\u672c", "\U0001f600", "a b", "+/#", "$x", "\u0001"])
async def test_client_identifier_may_be_any_utf8_string(start: Start, client_id: str):
    world = await start()
    await world.connect(client_id)
    assert world.engine.session(client_id).is_connected


ALPHANUMERIC = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.mqtt5("3.1.3-5")
@pytest.mark.parametrize("maximum", [23, 65535])
async def test_every_short_alphanumeric_client_identifier_is_taken(start: Start, maximum: int):
    world = await start(client_id_bytes_maximum=maximum)
    for size in range(1, 24):
        await world.connect(ALPHANUMERIC[size : size + size])
    for character in ALPHANUMERIC:
        await world.connect(character)
    assert world.metrics["sessions"] == len({ALPHANUMERIC[n : n + n] for n in range(1, 24)} | set(ALPHANUMERIC))


@pytest.mark.mqtt5("3.1.3-6", "3.1.3-7")
@pytest.mark.parametrize("clean_start", [True, False])
async def test_empty_client_identifier_gets_a_unique_one_and_hears_of_it(start: Start, clean_start: bool):
    world = await start()
    peers = [await world.connect("", clean_start=clean_start, properties=DURABLE["properties"]) for _ in range(20)]
    names = [peer.connack.properties[PropertyId.ASSIGNED_CLIENT_IDENTIFIER] for peer in peers]
    assert len(set(names)) == 20
    assert "" not in names
    # as if the client had given it: the session is found under the name
    await peers[3].subscribe("t")
    await peers[3].lose()
    back = await world.connect(names[3], **DURABLE, session_present=True)
    assert PropertyId.ASSIGNED_CLIENT_IDENTIFIER not in back.connack.properties


@pytest.mark.mqtt5("3.1.3-8")
async def test_client_identifier_over_the_limit_is_refused(start: Start):
    world = await start(client_id_bytes_maximum=30)
    await world.connect("c" * 30)
    peer = await world.open()
    await peer.send(connect(text("c" * 31)), publish("t"))
    await expect_refused(peer, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
    assert world.metrics["messages_received_qos0"] == 0


@pytest.mark.mqtt5("3.1.3-11")
@pytest.mark.parametrize("topic", [b"\xff", b"a\xed\xbf\xbf", b"a\x00b"], ids=repr)
async def test_will_topic_that_is_no_utf8_string_is_refused(start: Start, topic: bytes):
    await _malformed(start, connect(text("c"), block(), text(topic), text("gone"), flags=0x06))


@pytest.mark.mqtt5("3.1.3-12")
@pytest.mark.parametrize("user_name", [b"\xff", b"a\xed\xbf\xbf", b"a\x00b"], ids=repr)
async def test_user_name_that_is_no_utf8_string_is_refused(start: Start, user_name: bytes):
    await _malformed(start, connect(text("c"), text(user_name), flags=0x82))


# --- the answer -------------------------------------------------------------------------------------------------------

BROKEN = {
    "nothing behind the fixed header": packet(0x10),
    "protocol name only": packet(0x10, text("MQTT")),
    "no flags": packet(0x10, text("MQTT"), b"\x05"),
    "half a keep alive": packet(0x10, text("MQTT"), b"\x05\x02\x00"),
    "bytes behind the last field": connect(text("c"), b"\x00"),
    "property length past the end": packet(0x10, text("MQTT"), b"\x05\x02\x00\x00\x7f", text("c")),
    "unknown property": connect(properties=b"\x7f\x00"),
    "property of PUBLISH": connect(properties=b"\x23\x00\x01"),
    "property twice": connect(properties=b"\x21\x00\x01\x21\x00\x01"),
    "receive maximum 0": connect(properties=b"\x21\x00\x00"),
    "maximum packet size 0": connect(properties=b"\x27\x00\x00\x00\x00"),
    "request problem information 2": connect(properties=b"\x17\x02"),
    "authentication data alone": connect(properties=b"\x16\x00\x01x"),
    "will delay among the properties of CONNECT": connect(properties=b"\x18\x00\x00\x00\x01"),
    "will topic with wildcard": connect(text("c"), block(), text("a/+"), text(""), flags=0x06),
    "empty will topic": connect(text("c"), block(), text(""), text(""), flags=0x06),
    "receive maximum in a will": connect(text("c"), block(b"\x21\x00\x01"), text("t"), text(""), flags=0x06),
}


@pytest.mark.mqtt5("3.1.4-1")
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_connect_of_another_format_closes(start: Start, data: bytes):
    world = await start()
    peer = await world.open()
    await peer.send(data, publish("t", b"x"))
    answer = await peer._next()
    if answer:
        assert answer.reason_code >= 0x80
        await peer.expect_closed()
    assert world.metrics["sessions"] == 0
    assert world.metrics["messages_received_qos0"] == 0


@pytest.mark.mqtt5("3.1.4-2")
@pytest.mark.parametrize(
    "code", [ReasonCode.NOT_AUTHORIZED, ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.BANNED, ReasonCode.SERVER_BUSY]
)
async def test_failed_check_closes_with_its_reason(start_clocked: Start, code: ReasonCode):
    world = await start_clocked(hooks=HookTable(authenticate=lambda *_: Refusal(code)))
    peer = await world.open()
    await peer.send(connect())
    await expect_refused(peer, code)
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("3.1.4-2")
async def test_limits_of_the_server_close_with_their_reason(start: Start):
    world = await start(connections_maximum=2, sessions_maximum=1)
    await world.connect("c")
    peer = await world.open()
    await peer.send(connect(text("d")))
    await expect_refused(peer, ReasonCode.QUOTA_EXCEEDED)
    await world.open()
    peer = await world.open()
    await peer.send(connect(text("e")))
    await expect_refused(peer, ReasonCode.SERVER_BUSY)


@pytest.mark.mqtt5("3.1.4-3")
@pytest.mark.parametrize("clean_start", [True, False])
@pytest.mark.parametrize("expiry_s", [0, 100])
async def test_second_connection_of_a_client_closes_the_first(start: Start, clean_start: bool, expiry_s: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("will")
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s}
    first = await world.connect("c", will=Will("will", b"gone"), properties=properties)
    second = await world.open()
    await second.send(connect(flags=0x02 if clean_start else 0x00))
    await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
    assert (await second.receive()).reason_code == 0
    await second.expect_nothing()
    await reader.expect(Publish("will", b"gone"))
    assert world.metrics["sessions_connected"] == 2


@pytest.mark.mqtt5("3.1.4-5")
@pytest.mark.parametrize("flags", [0x00, 0x02])
async def test_connect_is_acknowledged_with_success(start: Start, flags: int):
    world = await start(receive_maximum=65535, topic_alias_maximum=0, maximum_packet_size_bytes=100)
    peer = await world.open()
    await peer.send(connect(flags=flags))
    await expect_bytes(peer, b"\x20\x08\x00\x00\x05\x27\x00\x00\x00\x64")


@pytest.mark.mqtt5("3.1.4-6")
@pytest.mark.parametrize(
    "refused",
    [connect(text("c" * 24)), connect(properties=b"\x15\x00\x01m"), connect(flags=0x03), connect(level=6)],
    ids=["client identifier", "authentication method", "malformed", "version"],
)
async def test_what_follows_a_refused_connect_is_not_processed(start: Start, refused: bytes):
    world = await start(client_id_bytes_maximum=23)
    reader = await world.connect("r")
    await reader.subscribe("t")
    peer = await world.open()
    await peer.send(refused, publish("t", b"x", flags=1), publish("t", b"x", flags=3, packet_id=1), connect())
    assert (await peer.receive()).reason_code >= 0x80
    await peer.expect_closed()
    await reader.expect_nothing()
    assert world.metrics["retained"] == 0
    assert world.metrics["sessions"] == 1


@pytest.mark.mqtt5("3.1.4-6")
async def test_what_follows_an_accepted_connect_is_processed_behind_the_connack(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(connect(), subscribe("t"), publish("t", b"x"), PingReq())
    assert (await peer.receive()).reason_code == 0
    await peer.expect(SubAck(1, [0]), Publish("t", b"x"), PingResp())
