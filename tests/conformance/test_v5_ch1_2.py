"""MQTT 5 chapters 1 and 2: strings, variable byte integers, flags, packet identifiers, property lengths."""

import pytest

from conversations.conftest import Start
from mqttcore.codec import PubAck, Publish, PubRec, PubRel, Subscription, Will
from mqttcore.constants import PropertyId, ReasonCode

from .v5_wire import (
    ack,
    block,
    connect,
    expect_bytes,
    expect_refused,
    packet,
    pair,
    publish,
    subscribe,
    text,
    unsubscribe,
)

MALFORMED = ReasonCode.MALFORMED_PACKET

ILL_FORMED = {
    "high surrogate": b"a\xed\xa0\x80",
    "low surrogate": b"a\xed\xbf\xbf",
    "surrogate pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "overlong NUL": b"\xc0\x80",
    "overlong slash": b"\xe0\x80\xaf",
    "continuation without lead": b"a\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "cut short": b"a\xe2\x82",
    "0xFF": b"\xff",
}
ill_formed = pytest.mark.parametrize("data", ILL_FORMED.values(), ids=ILL_FORMED)

# where a client may write a string once it is connected
STRINGS = {
    "topic name": lambda data: publish(data),
    "topic filter": lambda data: subscribe(data),
    "topic filter of UNSUBSCRIBE": lambda data: unsubscribe(data),
    "content type": lambda data: publish("t", properties=b"\x03" + text(data)),
    "response topic": lambda data: publish("t", properties=b"\x08" + text(data)),
    "reason string of PUBACK": lambda data: ack(0x40, 1, b"\x00", block(b"\x1f" + text(data))),
    "reason string of PUBREC": lambda data: ack(0x50, 1, b"\x00", block(b"\x1f" + text(data))),
    "reason string of PUBREL": lambda data: ack(0x62, 1, b"\x00", block(b"\x1f" + text(data))),
    "reason string of PUBCOMP": lambda data: ack(0x70, 1, b"\x00", block(b"\x1f" + text(data))),
    "reason string of DISCONNECT": lambda data: packet(0xE0, b"\x00", block(b"\x1f" + text(data))),
    "method of AUTH": lambda data: packet(0xF0, b"\x19", block(b"\x15" + text(data))),
}
PAIRS = {
    "PUBLISH": lambda p: publish("t", properties=p),
    "SUBSCRIBE": lambda p: subscribe("t", properties=p),
    "UNSUBSCRIBE": lambda p: unsubscribe("t", properties=p),
    "PUBACK": lambda p: ack(0x40, 1, b"\x00", block(p)),
    "PUBREC": lambda p: ack(0x50, 1, b"\x00", block(p)),
    "PUBREL": lambda p: ack(0x62, 1, b"\x00", block(p)),
    "PUBCOMP": lambda p: ack(0x70, 1, b"\x00", block(p)),
    "DISCONNECT": lambda p: packet(0xE0, b"\x00", block(p)),
    "AUTH": lambda p: packet(0xF0, b"\x19", block(b"\x15\x00\x01m", p)),
}
CONNECT_STRINGS = {
    "client identifier": lambda data: connect(text(data)),
    "will topic": lambda data: connect(text("c"), block(), text(data), text(""), flags=0x06),
    "will content type": lambda data: connect(text("c"), block(b"\x03" + text(data)), text("t"), text(""), flags=0x06),
    "will response topic": lambda data: connect(
        text("c"), block(b"\x08" + text(data)), text("t"), text(""), flags=0x06
    ),
    "user name": lambda data: connect(text("c"), text(data), flags=0x82),
    "authentication method": lambda data: connect(properties=b"\x15" + text(data)),
}
CONNECT_PAIRS = {
    "CONNECT": lambda p: connect(properties=p),
    "will": lambda p: connect(text("c"), block(p), text("t"), text(""), flags=0x06),
}


def rows(makers):
    return pytest.mark.parametrize("make", makers.values(), ids=makers)


# --- strings ----------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("1.5.4-1")
@ill_formed
@rows(STRINGS)
async def test_ill_formed_utf8_closes_with_malformed_packet(start: Start, make, data):
    world = await start()
    peer = await world.connect("c")
    await peer.send(make(data))
    await peer.expect_closed(MALFORMED)


@pytest.mark.mqtt5("1.5.4-1")
@ill_formed
@rows(CONNECT_STRINGS)
async def test_ill_formed_utf8_in_connect_is_refused(start: Start, make, data):
    world = await start()
    peer = await world.open()
    await peer.send(make(data))
    await expect_refused(peer, MALFORMED)


@pytest.mark.mqtt5("1.5.4-2")
@pytest.mark.parametrize("data", [b"\x00", b"a\x00", b"\x00/topic", b"long enough\x00for words"])
@rows(STRINGS)
async def test_null_character_closes_with_malformed_packet(start: Start, make, data):
    world = await start()
    peer = await world.connect("c")
    await peer.send(make(data))
    await peer.expect_closed(MALFORMED)


@pytest.mark.mqtt5("1.5.4-2")
@pytest.mark.parametrize("data", [b"\x00", b"a\x00b"])
@rows(CONNECT_STRINGS)
async def test_null_character_in_connect_is_refused(start: Start, make, data):
    world = await start()
    peer = await world.open()
    await peer.send(make(data))
    await expect_refused(peer, MALFORMED)


@pytest.mark.mqtt5("1.5.4-3")
async def test_byte_order_mark_is_a_character_like_others(start: Start):
    world = await start()
    reader = await world.connect("c")
    await reader.subscribe("t", "\ufefft", "\ufeff/#", qos=0)
    writer = await world.connect("\ufeffc")  # another client than c
    properties = b"\x03" + text("\ufefftype") + b"\x08" + text("a\ufeffb") + pair("\ufeff", "\ufeff\ufeff")
    await writer.send(publish(b"\xef\xbb\xbft", b"1", properties=properties), publish(b"\xef\xbb\xbf/x", b"2"))
    await expect_bytes(reader, publish(b"\xef\xbb\xbft", b"1", properties=properties), publish(b"\xef\xbb\xbf/x", b"2"))
    await reader.expect_nothing()
    await writer.expect_nothing()


@pytest.mark.mqtt5("1.5.7-1")
@pytest.mark.parametrize("bad", [b"\xed\xa0\x80", b"\xc0\x80", b"a\x00", b"\xff"], ids=repr)
@pytest.mark.parametrize("is_name", [True, False], ids=["name", "value"])
@rows(PAIRS)
async def test_both_strings_of_a_pair_are_checked(start: Start, make, is_name, bad):
    world = await start()
    peer = await world.connect("c")
    await peer.send(make(pair("n", "v") + (pair(bad, "v") if is_name else pair("n", bad))))
    await peer.expect_closed(MALFORMED)


@pytest.mark.mqtt5("1.5.7-1")
@pytest.mark.parametrize("bad", [b"\xed\xa0\x80", b"a\x00"], ids=repr)
@pytest.mark.parametrize("is_name", [True, False], ids=["name", "value"])
@rows(CONNECT_PAIRS)
async def test_both_strings_of_a_pair_in_connect_are_checked(start: Start, make, is_name, bad):
    world = await start()
    peer = await world.open()
    await peer.send(make(pair(bad, "v") if is_name else pair("n", bad)))
    await expect_refused(peer, MALFORMED)


# --- variable byte integers -------------------------------------------------------------------------------------------

NOT_MINIMAL = {
    "remaining length in two bytes": b"\xc0\x80\x00",
    "remaining length in three bytes": b"\xc0\x80\x80\x00",
    "remaining length in four bytes": b"\xc0\x80\x80\x80\x00",
    "remaining length in five bytes": b"\xc0\xff\xff\xff\xff\x01",
    "remaining length of a PUBLISH": b"\x30\x84\x00\x00\x01t\x00",
    "property length of PUBLISH": b"\x30\x05\x00\x01t\x80\x00",
    "property length of SUBSCRIBE": b"\x82\x08\x00\x01\x80\x00\x00\x01t\x00",
    "property length of PUBACK": b"\x40\x05\x00\x01\x00\x80\x00",
    "subscription identifier": b"\x82\x0a\x00\x01\x03\x0b\x81\x00\x00\x01t\x00",
    "property identifier": b"\x30\x07\x00\x01t\x03\x81\x00\x01",
}


@pytest.mark.mqtt5("1.5.5-1")
@pytest.mark.parametrize("data", NOT_MINIMAL.values(), ids=NOT_MINIMAL)
async def test_integer_in_more_bytes_than_it_takes_is_malformed(start: Start, data):
    world = await start()
    peer = await world.connect("c")
    await peer.send(data)
    await peer.expect_closed(MALFORMED)


@pytest.mark.mqtt5("1.5.5-1")
async def test_connect_with_integer_in_more_bytes_than_it_takes_is_not_accepted(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(b"\x10\x8e\x00" + connect()[2:])
    await peer.expect_closed()
    peer = await world.open()
    await peer.send(packet(0x10, text("MQTT"), b"\x05\x02\x00\x00", b"\x80\x00", text("c")))
    await expect_refused(peer, MALFORMED)


@pytest.mark.mqtt5("1.5.5-1")
@pytest.mark.parametrize("remaining", [127, 128, 16_383, 16_384])
async def test_server_writes_lengths_in_as_few_bytes_as_they_take(start: Start, remaining):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    writer = await world.connect("w")
    by_payload = publish("t", bytes(remaining - 4))
    value = bytes(remaining - 4 - 5 - (1 if remaining < 128 else 3 if remaining > 16_383 else 2))
    by_properties = publish("t", properties=pair("", b"v" * (len(value) - 3)))
    assert by_payload[1:3] == {127: b"\x7f\x00", 128: b"\x80\x01", 16_383: b"\xff\x7f", 16_384: b"\x80\x80"}[remaining]
    await writer.send(by_payload, by_properties)
    await expect_bytes(reader, by_payload, by_properties)


# --- flags of the fixed header ----------------------------------------------------------------------------------------

FIXED_HEADERS = {
    "PUBACK": ack(0x40, 1),
    "PUBREC": ack(0x50, 1),
    "PUBREL": ack(0x62, 1),
    "PUBCOMP": ack(0x70, 1),
    "SUBSCRIBE": subscribe("t"),
    "UNSUBSCRIBE": unsubscribe("t"),
    "PINGREQ": b"\xc0\x00",
    "DISCONNECT": b"\xe0\x00",
    "AUTH": packet(0xF0, b"\x19", block(b"\x15\x00\x01m")),
}


@pytest.mark.mqtt5("2.1.3-1")
@pytest.mark.parametrize("wrong", [1, 2, 4, 8, 15])
@pytest.mark.parametrize("data", FIXED_HEADERS.values(), ids=FIXED_HEADERS)
async def test_wrong_reserved_flags_are_malformed(start: Start, data, wrong):
    world = await start()
    peer = await world.connect("c")
    await peer.send(bytes([data[0] ^ wrong]) + data[1:])
    await peer.expect_closed(MALFORMED)


@pytest.mark.mqtt5("2.1.3-1")
@pytest.mark.parametrize("wrong", [1, 2, 4, 8, 15])
async def test_wrong_reserved_flags_of_connect_close(start: Start, wrong):
    world = await start()
    peer = await world.open()
    await peer.send(bytes([0x10 | wrong]) + connect()[1:])
    await peer.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("2.1.3-1")
async def test_server_sets_reserved_flags_to_their_values(start: Start):
    world = await start(receive_maximum=65535, topic_alias_maximum=0, maximum_packet_size_bytes=100)
    peer = await world.open()
    await peer.send(connect(), subscribe("t", 2, packet_id=9), unsubscribe("u", packet_id=8), b"\xc0\x00")
    await expect_bytes(
        peer,
        packet(0x20, b"\x00\x00", block(b"\x27\x00\x00\x00\x64")),
        ack(0x90, 9, block(), b"\x02"),
        ack(0xB0, 8, block(), b"\x11"),
        b"\xd0\x00",
    )
    await peer.send(publish("u", flags=2, packet_id=3), publish("u", flags=4, packet_id=4), ack(0x62, 4))
    await expect_bytes(peer, ack(0x40, 3, b"\x10"), ack(0x50, 4, b"\x10"), ack(0x70, 4))
    await peer.send(publish("t", b"x", flags=4, packet_id=4))
    await expect_bytes(peer, publish("t", b"x", flags=4, packet_id=1), ack(0x50, 4))
    await peer.send(ack(0x50, 1))
    await expect_bytes(peer, ack(0x62, 1))
    await peer.send(connect())
    assert (await peer._read() or b"")[:1] == b"\xe0"


# --- packet identifiers -----------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("2.2.1-2")
async def test_qos_0_publish_has_no_packet_identifier(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe(Subscription("sent", 0), Subscription("lowered", 0), Subscription("will", 2))
    writer = await world.connect("w", will=Will("will", b"w"))
    await writer.send(
        b"\x30\x09\x00\x04sent\x00\x00\x01",  # what could be an identifier is payload
        publish("lowered", b"l", flags=2, packet_id=7),
    )
    await expect_bytes(reader, b"\x30\x09\x00\x04sent\x00\x00\x01", b"\x30\x0b\x00\x07lowered\x00l")
    await writer.lose()
    await expect_bytes(reader, b"\x30\x08\x00\x04will\x00w")


@pytest.mark.mqtt5("2.2.1-3")
@pytest.mark.parametrize(
    "data",
    [
        subscribe("t", packet_id=0),
        unsubscribe("t", packet_id=0),
        publish("t", flags=2, packet_id=0),
        publish("t", flags=4, packet_id=0),
    ],
    ids=["SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH QoS 1", "PUBLISH QoS 2"],
)
async def test_packet_identifier_zero_closes(start: Start, data):
    world = await start()
    peer = await world.connect("c")
    await peer.send(data)
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("2.2.1-4")
async def test_server_numbers_messages_with_unused_identifiers_around_the_wrap(start_clocked: Start):
    world = await start_clocked(receive_maximum=65535, in_flight_maximum=200, publisher_pause_ms=0)
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    batch = b"".join(publish("t", flags=2, packet_id=1) for _ in range(100))
    held = {}  # never acknowledged: QoS 1 and 2, in every state
    seen = 0
    while seen < 66_000:
        await writer.send(batch)
        messages = [await reader.receive() for _ in range(100)]
        numbers = {message.packet_id for message in messages}
        assert len(numbers) == 100
        assert 0 not in numbers
        assert not numbers & held.keys()
        if len(held) < 40:
            held.update(dict.fromkeys(sorted(numbers)[:: 7 + len(held)], True))
        await reader.send(*[PubAck(number) for number in numbers - held.keys()])
        seen += 100
        writer._arrived.clear()
    assert len(held) > 20
    assert world.metrics["in_flight"] == len(held)


@pytest.mark.mqtt5("2.2.1-5")
@pytest.mark.parametrize("packet_id", [1, 0xFF, 0x100, 0xABCD, 0xFFFF])
async def test_acknowledgements_carry_the_identifier_of_their_publish(start: Start, packet_id):
    world = await start()
    peer = await world.connect("c")
    await peer.subscribe("t")
    await peer.send(publish("none", flags=2, packet_id=packet_id))
    await expect_bytes(peer, ack(0x40, packet_id, b"\x10"))
    await peer.send(publish("none", flags=4, packet_id=packet_id))
    await expect_bytes(peer, ack(0x50, packet_id, b"\x10"))
    await peer.send(ack(0x62, packet_id))
    await expect_bytes(peer, ack(0x70, packet_id))


@pytest.mark.mqtt5("2.2.1-5")
async def test_pubrel_carries_the_identifier_of_the_publish_that_the_server_sent(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish("t", b"%d" % i, qos=2)
    first, second, third = [await reader.receive() for _ in range(3)]
    assert {first.packet_id, second.packet_id, third.packet_id} == {1, 2, 3}
    for message in (third, first, second):
        await reader.send(PubRec(message.packet_id))
        await reader.expect(PubRel(message.packet_id))


@pytest.mark.mqtt5("2.2.1-6")
@pytest.mark.parametrize("packet_id", [1, 0xFF, 0x100, 0xABCD, 0xFFFF])
async def test_suback_and_unsuback_carry_the_identifier_they_answer(start: Start, packet_id):
    world = await start()
    peer = await world.connect("c")
    await peer.send(subscribe("t", 1, packet_id=packet_id))
    await expect_bytes(peer, ack(0x90, packet_id, block(), b"\x01"))
    await peer.send(unsubscribe("t", packet_id=packet_id))
    await expect_bytes(peer, ack(0xB0, packet_id, block(), b"\x00"))


# --- property length --------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("2.2.2-1")
@pytest.mark.parametrize(
    "data",
    [
        packet(0x30, text("t")),
        packet(0x32, text("t"), b"\x00\x01"),
        ack(0x82, 1, text("ab"), b"\x00"),
        ack(0xA2, 1, text("ab")),
    ],
    ids=["PUBLISH QoS 0", "PUBLISH QoS 1", "SUBSCRIBE", "UNSUBSCRIBE"],
)
async def test_packet_without_property_length_is_malformed(start: Start, data):
    world = await start()
    peer = await world.connect("c")
    await peer.send(data)
    await peer.expect_closed(MALFORMED)


@pytest.mark.mqtt5("2.2.2-1")
@pytest.mark.parametrize(
    "data",
    [
        packet(0x10, text("MQTT"), b"\x05\x02\x00\x00", text("c")),
        connect(text("c"), text("t"), text("payload"), flags=0x06),
    ],
    ids=["CONNECT", "will"],
)
async def test_connect_without_property_length_is_refused(start: Start, data):
    world = await start()
    peer = await world.open()
    await peer.send(data)
    await expect_refused(peer, MALFORMED)


@pytest.mark.mqtt5("2.2.2-1")
async def test_server_writes_a_property_length_of_zero(start: Start):
    world = await start()
    peer = await world.connect("c")
    await peer.send(subscribe("t", packet_id=5))
    await expect_bytes(peer, b"\x90\x04\x00\x05\x00\x00")
    await peer.send(publish("t", b"x"))
    await expect_bytes(peer, b"\x30\x05\x00\x01t\x00x")
    await peer.send(unsubscribe("t", packet_id=6))
    await expect_bytes(peer, b"\xb0\x04\x00\x06\x00\x00")


def test_publish_objects_are_what_the_bytes_say():
    # the helpers above and the codec are independent of each other: they must agree on a valid packet
    properties = {PropertyId.USER_PROPERTY: [("a", "b")]}
    assert Publish("t", b"x", qos=1, packet_id=7, properties=properties).encode(5) == publish(
        "t", b"x", flags=2, packet_id=7, properties=pair("a", "b")
    )
