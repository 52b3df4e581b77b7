"""PUBACK, PUBREC, PUBREL, PUBCOMP: MQTT 5 §3.4 to §3.7."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import Publish, PubRec, PubRel
from mqttcore.constants import PropertyId, ReasonCode

from .peers import expect_bytes

SMALLEST = {PropertyId.MAXIMUM_PACKET_SIZE: 16}  # what our CONNACK needs

PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70

ACKNOWLEDGEMENTS = {
    "success": ({}, "read", False, b"\x02\x12\x34"),
    "no matching subscribers": ({}, "unread", False, b"\x03\x12\x34\x10"),
    "not authorized": ({}, "$SYS/x", False, b"\x03\x12\x34\x87"),
    "topic name invalid": ({"topic_bytes_maximum": 6}, "unread/", False, b"\x03\x12\x34\x90"),
    "quota exceeded": ({"retained_messages_maximum": 0}, "read", True, b"\x03\x12\x34\x97"),
}


@pytest.mark.mqtt5("3.4.2-1", "3.4.2-2", "3.4.2-3", "3.5.2-1", "3.5.2-2", "3.5.2-3")
@pytest.mark.parametrize("properties", [{}, SMALLEST], ids=["any size", "smallest size"])
@pytest.mark.parametrize(("qos", "first"), [(1, PUBACK), (2, PUBREC)], ids=["puback", "pubrec"])
@pytest.mark.parametrize("case", ACKNOWLEDGEMENTS)
async def test_puback_and_pubrec_have_a_reason_code_of_theirs_and_no_properties(
    start: Start, case: str, qos: int, first: int, properties: dict[int, Any]
):
    limits, topic, retain, rest = ACKNOWLEDGEMENTS[case]
    world = await start(**limits)
    reader = await world.connect("r")
    await reader.subscribe("read")
    writer = await world.connect("w", properties=properties)
    await writer.send(Publish(topic, b"x", qos=qos, retain=retain, packet_id=0x1234))
    await expect_bytes(writer, bytes([first]) + rest)


@pytest.mark.mqtt5("3.6.2-1", "3.6.2-2", "3.6.2-3")
@pytest.mark.parametrize("properties", [{}, SMALLEST], ids=["any size", "smallest size"])
async def test_pubrel_has_a_reason_code_of_its_own_and_no_properties(start: Start, properties: dict[int, Any]):
    world = await start()
    reader = await world.connect("r", properties=properties)
    await reader.subscribe("t")
    await (await world.connect("w")).publish("t", b"x", qos=2)
    message = await reader.receive()
    await reader.send(PubRec(message.packet_id))
    await expect_bytes(reader, bytes([PUBREL, 2]) + message.packet_id.to_bytes(2))
    await reader.send(b"\x50\x02\x43\x21")  # PUBREC for a packet id that we did not send
    await expect_bytes(reader, b"\x62\x03\x43\x21\x92")


@pytest.mark.mqtt5("3.7.2-1", "3.7.2-2", "3.7.2-3")
@pytest.mark.parametrize("properties", [{}, SMALLEST], ids=["any size", "smallest size"])
async def test_pubcomp_has_a_reason_code_of_its_own_and_no_properties(start: Start, properties: dict[int, Any]):
    world = await start()
    writer = await world.connect("w", properties=properties)
    await writer.send(Publish("t", b"x", qos=2, packet_id=0x1234))
    await writer.expect(PubRec(0x1234, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    await writer.send(PubRel(0x1234))
    await expect_bytes(writer, bytes([PUBCOMP, 2, 0x12, 0x34]))
    await writer.send(PubRel(0x1234))
    await expect_bytes(writer, bytes([PUBCOMP, 3, 0x12, 0x34, 0x92]))


@pytest.mark.mqtt5("3.6.1-1")
@pytest.mark.parametrize("flags", [f for f in range(16) if f != 2])
async def test_pubrel_with_other_flags_is_malformed_and_closes(start: Start, flags: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(Publish("t", qos=2, packet_id=1))
    await peer.expect(PubRec(1, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    await peer.send(bytes([0x60 | flags, 2, 0, 1]))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)


@pytest.mark.mqtt5("3.4.2-1", "3.5.2-1", "3.6.2-1", "3.7.2-1")
@pytest.mark.parametrize("first", [PUBACK, PUBREC, PUBREL, PUBCOMP], ids=hex)
@pytest.mark.parametrize("reason_code", [0x01, 0x04, 0x11, 0x18, 0x81, 0x8E, 0xFF], ids=hex)
async def test_acknowledgement_with_a_foreign_reason_code_closes(start: Start, first: int, reason_code: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(bytes([first, 3, 0, 1, reason_code]))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


REASON_STRING = b"\x1f\x00\x01x"
USER_PROPERTY = b"\x26\x00\x01k\x00\x01v"


@pytest.mark.parametrize("first", [PUBACK, PUBREC, PUBREL, PUBCOMP], ids=hex)
@pytest.mark.parametrize(
    ("block", "reason_code"),
    [
        (REASON_STRING, None),
        (USER_PROPERTY + USER_PROPERTY, None),
        (REASON_STRING + REASON_STRING, ReasonCode.PROTOCOL_ERROR),
        (b"\x01\x00", ReasonCode.MALFORMED_PACKET),  # Payload Format Indicator has no place here
        (b"\x7f", ReasonCode.MALFORMED_PACKET),
        (REASON_STRING[:-1], ReasonCode.MALFORMED_PACKET),
    ],
    ids=["reason string", "user property twice", "reason string twice", "foreign", "unknown", "cut"],
)
async def test_properties_of_acknowledgements_are_checked(
    start: Start, first: int, block: bytes, reason_code: int | None
):
    world = await start()
    peer = await world.connect("a")
    body = b"\x00\x01\x00" + bytes([len(block)]) + block
    await peer.send(bytes([first, len(body)]) + body)
    if reason_code is not None:
        await peer.expect_closed(reason_code)
        return
    answers = {PUBREC: b"\x62\x03\x00\x01\x92", PUBREL: b"\x70\x03\x00\x01\x92"}
    await peer.send(b"\xc0\x00")
    await expect_bytes(peer, answers.get(first, b"") + b"\xd0\x00")


async def test_acknowledgement_that_ends_after_its_reason_code_is_whole(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    await (await world.connect("w")).publish("t", b"x", qos=2)
    packet_id = (await reader.receive()).packet_id.to_bytes(2)
    await reader.send(b"\x50\x03" + packet_id + b"\x00")
    await expect_bytes(reader, b"\x62\x02" + packet_id)
    await reader.send(b"\x70\x04" + packet_id + b"\x00\x00")
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0
