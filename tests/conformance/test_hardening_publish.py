"""Hardening cases 20 and 22-30: PUBLISH that is wrong in itself, and properties where they do not belong."""

import pytest

from conversations.conftest import Start
from mqttcore.constants import PropertyId

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
    u32,
    versions,
)

each_qos = pytest.mark.parametrize("qos", [0, 1, 2])


def at_qos(version: int, qos: int, topic: str, **fields: bytes) -> bytes:
    return publish(version, topic, first=0x30 | qos << 1, packet_id=7 if qos else None, **fields)


GIVEN_TWICE = {
    "PUBLISH payload format": publish(5, properties=b"\x01\x01" * 2),
    "PUBLISH message expiry": publish(5, properties=(b"\x02" + u32(9)) * 2),
    "PUBLISH topic alias": publish(5, properties=(b"\x23" + u16(1)) * 2),
    "PUBLISH response topic": publish(5, properties=(b"\x08" + text("r")) * 2),
    "PUBLISH correlation data": publish(5, properties=(b"\x09" + text("c")) * 2),
    "PUBLISH content type": publish(5, properties=(b"\x03" + text("c")) * 2),
    "PUBACK reason string": packet(0x40, u16(1), b"\x00\x08", (b"\x1f" + text("r")) * 2),
    "PUBREC reason string": packet(0x50, u16(1), b"\x00\x08", (b"\x1f" + text("r")) * 2),
    "PUBREL reason string": packet(0x62, u16(1), b"\x00\x08", (b"\x1f" + text("r")) * 2),
    "PUBCOMP reason string": packet(0x70, u16(1), b"\x00\x08", (b"\x1f" + text("r")) * 2),
    "SUBSCRIBE subscription id": subscribe(5, ("t", 0), properties=b"\x0b\x01\x0b\x02"),
    "DISCONNECT session expiry": packet(0xE0, b"\x00\x0a", (b"\x11" + u32(0)) * 2),
    "DISCONNECT reason string": packet(0xE0, b"\x00\x08", (b"\x1f" + text("r")) * 2),
    "AUTH method": packet(0xF0, b"\x18\x08", (b"\x15" + text("m")) * 2),
}
MISPLACED = {
    "PUBLISH session expiry": publish(5, properties=b"\x11" + u32(1)),
    "PUBLISH reason string": publish(5, properties=b"\x1f" + text("r")),
    "PUBLISH will delay": publish(5, properties=b"\x18" + u32(1)),
    "PUBACK topic alias": packet(0x40, u16(1), b"\x00\x03\x23", u16(1)),
    "SUBSCRIBE topic alias": subscribe(5, ("t", 0), properties=b"\x23" + u16(1)),
    "UNSUBSCRIBE subscription id": packet(0xA2, u16(1), b"\x02\x0b\x01", text("t")),
    "DISCONNECT receive maximum": packet(0xE0, b"\x00\x03\x21", u16(1)),
    "PUBLISH unknown": publish(5, properties=b"\x7f\x00"),
    "PUBLISH identifier not shortest": publish(5, properties=b"\x83\x00" + text("c")),
}
LENGTH_PAST_END = {
    "PUBLISH": packet(0x30, text("t"), b"\x05\x01\x01"),
    "PUBACK": packet(0x40, u16(1), b"\x00\x05\x1f"),
    "SUBSCRIBE": packet(0x82, u16(1), b"\x20", text("t"), b"\x00"),
    "UNSUBSCRIBE": packet(0xA2, u16(1), b"\x20", text("t")),
    "DISCONNECT": packet(0xE0, b"\x00\x05\x11"),
    "AUTH": packet(0xF0, b"\x18\x05\x15"),
    "PUBLISH value past its block": packet(0x30, text("t"), b"\x03\x02\x00\x00\x00\x01"),
    "PUBLISH length missing": packet(0x30, text("t")),
}


@pytest.mark.parametrize("data", GIVEN_TWICE.values(), ids=GIVEN_TWICE.keys())
async def test_case_20_property_given_twice_closes(start: Start, data: bytes):
    await assert_fatal(await start(), 5, data, 0x82)


@pytest.mark.parametrize("data", MISPLACED.values(), ids=MISPLACED.keys())
async def test_case_20_property_of_another_packet_closes(start: Start, data: bytes):
    await assert_fatal(await start(), 5, data, 0x81)


@pytest.mark.parametrize("data", LENGTH_PAST_END.values(), ids=LENGTH_PAST_END.keys())
async def test_case_20_property_length_past_the_end_closes(start: Start, data: bytes):
    await assert_fatal(await start(), 5, data, 0x81)


@pytest.mark.mqtt5("3.3.4-6")
async def test_case_21_subscription_id_0_closes(start: Start):
    await assert_fatal(await start(), 5, subscribe(5, ("t", 0), properties=b"\x0b\x00"), 0x82)


@pytest.mark.mqtt3("3.3.2-2")
@pytest.mark.mqtt5("3.3.2-2")
@versions
@each_qos
@pytest.mark.parametrize("topic", ["#", "+", "a/#", "a/+/b", "a+", "long/enough/for/words#"])
async def test_case_22_wildcard_in_a_topic_closes(start: Start, version: int, qos: int, topic: str):
    world = await start()
    reader = await world.connect("r", version)
    await reader.subscribe("#", "+")
    await assert_fatal(world, version, at_qos(version, qos, topic), 0x90)
    await reader.expect_nothing()


@pytest.mark.mqtt3("3.3.2-2")
@pytest.mark.mqtt5("3.3.2-2")
@versions
async def test_case_22_wildcard_in_a_will_topic_is_refused(start: Start, version: int):
    will = block(version) + text("a/#") + text("gone")
    said = await answer_to_connect(await start(), version, connect(version, flags=0x06, tail=will))
    if version == 5:
        assert_refused(said, 5, 0x90)
    else:
        assert said == b""


@pytest.mark.mqtt3("4.7.3-1")
@pytest.mark.mqtt5("4.7.3-1")
@versions
@each_qos
async def test_case_23_empty_topic_closes(start: Start, version: int, qos: int):
    await assert_fatal(await start(), version, at_qos(version, qos, ""), 0x82)


@pytest.mark.mqtt5("3.3.2-8", "3.3.2-9")
@each_qos
@pytest.mark.parametrize("alias", [0, 4, 65535])
async def test_case_24_alias_0_or_over_the_maximum_closes(start: Start, qos: int, alias: int):
    await assert_fatal(
        await start(topic_alias_maximum=3), 5, at_qos(5, qos, "t", properties=b"\x23" + u16(alias)), 0x94
    )


@pytest.mark.mqtt5("3.3.2-9")
async def test_case_24_highest_alias_is_taken(start: Start):
    world = await start(topic_alias_maximum=3)
    peer = await world.connect("c")
    await peer.subscribe("t")
    await peer.send(publish(5, "t", b"1", properties=b"\x23\x00\x03"), publish(5, "", b"2", properties=b"\x23\x00\x03"))
    assert [((await peer.receive_publish()).topic) for _ in range(2)] == ["t", "t"]


@pytest.mark.mqtt5("3.3.2-9")
async def test_case_24_any_alias_closes_when_none_are_allowed(start: Start):
    await assert_fatal(await start(topic_alias_maximum=0), 5, publish(5, properties=b"\x23\x00\x01"), 0x94)


@each_qos
async def test_case_25_alias_that_was_never_set_closes(start: Start, qos: int):
    world = await start()
    peer = await world.connect("guilty")
    await peer.send(publish(5, "t", properties=b"\x23\x00\x01"))
    await assert_fatal(world, 5, at_qos(5, qos, "", properties=b"\x23\x00\x02"), 0x82, peer=peer)


@pytest.mark.mqtt5("3.3.2-7")
async def test_case_25_alias_of_an_earlier_connection_closes(start: Start):
    world = await start()
    said = connect(5, "guilty", properties=b"\x11" + u32(100))
    first = await world.open()
    await first.send(said, publish(5, "t", properties=b"\x23\x00\x01"))
    await first.receive()
    await first.expect_nothing()
    await first.lose()
    second = await world.open()
    await second.send(connect(5, "guilty", flags=0, properties=b"\x11" + u32(100)))
    assert (await second.receive()).session_present
    await assert_fatal(world, 5, publish(5, "", properties=b"\x23\x00\x01"), 0x82, peer=second)


@pytest.mark.mqtt3("3.3.1-4")
@pytest.mark.mqtt5("3.3.1-4")
@versions
@pytest.mark.parametrize("first", [0x36, 0x37, 0x3E, 0x3F], ids=hex)
async def test_case_26_qos_3_closes(start: Start, version: int, first: int):
    await assert_fatal(await start(), version, publish(version, first=first, packet_id=1), 0x81)


@pytest.mark.mqtt3("3.3.1-2")
@pytest.mark.mqtt5("3.3.1-2")
@versions
@pytest.mark.parametrize("first", [0x38, 0x39], ids=hex)
async def test_case_27_dup_at_qos_0_closes(start: Start, version: int, first: int):
    await assert_fatal(await start(), version, publish(version, first=first), 0x81)


@pytest.mark.mqtt5("3.3.4-6")
@each_qos
async def test_case_28_subscription_id_in_a_clients_publish_closes(start: Start, qos: int):
    await assert_fatal(await start(), 5, at_qos(5, qos, "t", properties=b"\x0b\x01"), 0x82)


@pytest.mark.mqtt5("3.3.2-14")
@each_qos
@pytest.mark.parametrize("topic", ["#", "a/+", "", "a#"])
async def test_case_29_response_topic_that_is_no_topic_closes(start: Start, qos: int, topic: str):
    await assert_fatal(await start(), 5, at_qos(5, qos, "t", properties=b"\x08" + text(topic)), 0x82)


@pytest.mark.mqtt5("3.3.2-14")
async def test_case_29_wildcard_in_the_response_topic_of_a_will_is_refused(start: Start):
    properties = b"\x08" + text("a/#")
    will = bytes([len(properties)]) + properties + text("t") + text("gone")
    assert_refused(await answer_to_connect(await start(), 5, connect(5, flags=0x06, tail=will)), 5, 0x82)


@each_qos
async def test_case_30_payload_that_is_not_the_text_it_claims_to_be_is_passed_on(start: Start, qos: int):
    # Looking into payloads is a choice that the standard leaves (0x99); we do not make every message pay for it.
    world = await start()
    reader, writer = await world.connect("r"), await world.connect("w")
    await reader.subscribe("t")
    await writer.publish("t", b"\xff\xfe", qos=qos, properties={PropertyId.PAYLOAD_FORMAT_INDICATOR: 1})
    message = await reader.receive_publish()
    assert message.payload == b"\xff\xfe"
    assert message.properties == {PropertyId.PAYLOAD_FORMAT_INDICATOR: 1}


@versions
async def test_case_30_wrong_text_is_passed_on_byte_for_byte(start: Start, version: int):
    world = await start()
    reader, writer = await world.connect("r", version), await world.connect("w", version)
    await reader.subscribe("t", qos=0)
    data = publish(version, "t", bytes(range(256)), properties=b"\x01\x01")
    await writer.send(data)
    await assert_says(reader, data)
