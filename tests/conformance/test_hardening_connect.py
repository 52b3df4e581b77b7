"""Hardening cases 11-15 and 19-21 as far as they are about CONNECT."""

import pytest

from conversations.conftest import Start
from conversations.harness import Peer
from mqttcore.constants import PropertyId

from .hardening_bytes import answer_to_connect, assert_refused, connect, text, u16, u32, versions

WILL = 0x04
WILL_RETAIN = 0x20
PASSWORD = 0x40
USER_NAME = 0x80
CLEAN = 0x02
ALONE = [(PropertyId.SESSION_EXPIRY_INTERVAL, b"\x00\x00\x00\x10"), (PropertyId.RECEIVE_MAXIMUM, b"\x00\x10"),
         (PropertyId.MAXIMUM_PACKET_SIZE, b"\x00\x00\x10\x00"), (PropertyId.TOPIC_ALIAS_MAXIMUM, b"\x00\x10"),
         (PropertyId.REQUEST_RESPONSE_INFORMATION, b"\x01"), (PropertyId.REQUEST_PROBLEM_INFORMATION, b"\x01"),
         (PropertyId.AUTHENTICATION_METHOD, text("m")), (PropertyId.AUTHENTICATION_DATA, text("d"))]  # fmt: skip
ALONE_IN_WILL = [(PropertyId.WILL_DELAY_INTERVAL, b"\x00\x00\x00\x10"), (PropertyId.PAYLOAD_FORMAT_INDICATOR, b"\x01"),
                 (PropertyId.MESSAGE_EXPIRY_INTERVAL, b"\x00\x00\x00\x10"), (PropertyId.CONTENT_TYPE, text("t")),
                 (PropertyId.RESPONSE_TOPIC, text("r")), (PropertyId.CORRELATION_DATA, text("c"))]  # fmt: skip


def property_name(value: object) -> str | None:
    return value.name if isinstance(value, PropertyId) else None


async def accepted(peer: Peer, data: bytes) -> bytes:
    """Send a CONNECT that is accepted; the CONNACK's bytes."""
    await peer.send(data)
    said = await peer._read()
    assert said
    assert said[0] == 0x20
    assert said[2:4] == b"\x00\x00"
    return said


# The standard lets the server answer in the version that was asked for, so 0x84 needs a level that has it.
@pytest.mark.mqtt3("3.1.2-1", "3.1.2-2")
@pytest.mark.mqtt5("3.1.2-1", "3.1.2-2")
@pytest.mark.parametrize(
    ("name", "level", "version", "code"),
    [
        ("MQIsdp", 4, 4, 0x01),
        ("MQTT", 0, 4, 0x01),
        ("MQTT", 3, 4, 0x01),
        ("MQTT", 6, 5, 0x84),
        ("MQTT", 255, 5, 0x84),
        ("MQTT", 0x84, 4, 0x01),  # 3.1.1 with the bit of some bridges
    ],
)
async def test_case_11_unknown_protocol_is_refused(start: Start, name: str, level: int, version: int, code: int):
    said = await answer_to_connect(await start(), version, connect(version, name=name, level=level))
    assert_refused(said, version, code)


@pytest.mark.mqtt3("3.1.2-1")
@pytest.mark.mqtt5("3.1.2-1")
@pytest.mark.parametrize(("name", "level"), [("MQTX", 4), ("mqtt", 5), ("", 4), ("MQTT and more", 4)])
async def test_case_11_other_protocol_is_not_answered(start: Start, name: str, level: int):
    assert await answer_to_connect(await start(), 4, connect(level, name=name, level=level)) == b""


@pytest.mark.mqtt3("3.1.2-3")
@pytest.mark.mqtt5("3.1.2-3")
@versions
async def test_case_12_reserved_connect_flag_is_malformed(start: Start, version: int):
    said = await answer_to_connect(await start(), version, connect(version, flags=CLEAN | 1))
    if version == 5:
        assert_refused(said, 5, 0x81)
    else:
        assert said == b""


BAD_WILL_FLAGS = {
    "QoS 3": WILL | 0x18,
    "QoS 3 and retain": WILL | WILL_RETAIN | 0x18,
    "QoS 1 without will": 0x08,
    "QoS 2 without will": 0x10,
    "retain without will": WILL_RETAIN,
}


@pytest.mark.mqtt3("3.1.2-11", "3.1.2-13", "3.1.2-14", "3.1.2-15")
@pytest.mark.mqtt5("3.1.2-11", "3.1.2-12", "3.1.2-13")
@versions
@pytest.mark.parametrize("flags", BAD_WILL_FLAGS.values(), ids=BAD_WILL_FLAGS.keys())
async def test_case_13_will_flags_that_contradict_are_malformed(start: Start, version: int, flags: int):
    will = (b"\x00" if version == 5 else b"") + text("t") + text("gone")
    data = connect(version, flags=CLEAN | flags, tail=will if flags & WILL else b"")
    said = await answer_to_connect(await start(), version, data)
    if version == 5:
        assert_refused(said, 5, 0x81)
    else:
        assert said == b""


@versions
@pytest.mark.parametrize("missing", ["topic", "message"])
async def test_case_13_will_flag_without_its_fields_is_malformed(start: Start, version: int, missing: str):
    will = (b"\x00" if version == 5 else b"") + (text("t") if missing == "message" else b"")
    said = await answer_to_connect(await start(), version, connect(version, flags=CLEAN | WILL, tail=will))
    if version == 5:
        assert_refused(said, 5, 0x81)
    else:
        assert said == b""


@pytest.mark.mqtt3("3.1.2-22")
async def test_case_14_password_without_user_name_is_refused_in_3_1_1(start: Start):
    data = connect(4, flags=CLEAN | PASSWORD, tail=text("secret"))
    assert await answer_to_connect(await start(), 4, data) == b""


async def test_case_14_password_without_user_name_is_taken_in_mqtt_5(start: Start):
    world = await start()
    peer = await world.open(5)
    await accepted(peer, connect(5, flags=CLEAN | PASSWORD, tail=text("secret")))
    await peer.expect_nothing()


@pytest.mark.mqtt3("3.1.3-8")
async def test_case_15_empty_client_id_with_a_lasting_session_is_refused_in_3_1_1(start: Start):
    assert_refused(await answer_to_connect(await start(), 4, connect(4, "", flags=0)), 4, 0x02)


@pytest.mark.mqtt5("3.1.3-6", "3.2.2-16")
@pytest.mark.parametrize("flags", [0, CLEAN], ids=["resume", "clean start"])
async def test_case_15_empty_client_id_gets_one_assigned_in_mqtt_5(start: Start, flags: int):
    world = await start()
    given = []
    for _ in range(2):
        peer = await world.open(5)
        await peer.send(connect(5, "", flags=flags))
        connack = await peer.receive()
        given.append(connack.properties[PropertyId.ASSIGNED_CLIENT_IDENTIFIER])
        await peer.expect_nothing()
    assert given[0]
    assert given[0] != given[1]
    assert world.metrics["sessions_connected"] == 2


@versions
async def test_case_19_client_id_over_the_limit_is_refused(start: Start, version: int):
    world = await start(client_id_bytes_maximum=23)
    said = await answer_to_connect(world, version, connect(version, "x" * 24))
    assert_refused(said, version, 0x85 if version == 5 else 0x02)
    peer = await world.open(version)
    await accepted(peer, connect(version, "x" * 23))


@versions
async def test_case_19_longest_client_id_is_taken_by_default(start: Start, version: int):
    world = await start()
    peer = await world.open(version)
    await accepted(peer, connect(version, "x" * 65535))
    assert world.metrics["sessions"] == 1


@pytest.mark.parametrize(("identifier", "value"), ALONE, ids=property_name)
async def test_case_20_connect_property_given_twice_is_an_error(start: Start, identifier: int, value: bytes):
    twice = (bytes([identifier]) + value) * 2
    said = await answer_to_connect(await start(), 5, connect(5, properties=twice))
    assert_refused(said, 5, 0x82)


@pytest.mark.parametrize(("identifier", "value"), ALONE_IN_WILL, ids=property_name)
async def test_case_20_will_property_given_twice_is_an_error(start: Start, identifier: int, value: bytes):
    twice = (bytes([identifier]) + value) * 2
    will = bytes([len(twice)]) + twice + text("t") + text("gone")
    said = await answer_to_connect(await start(), 5, connect(5, flags=CLEAN | WILL, tail=will))
    assert_refused(said, 5, 0x82)


MISPLACED = {
    "topic alias": b"\x23\x00\x01",
    "server keep alive": b"\x13\x00\x01",
    "will delay outside the will": b"\x18\x00\x00\x00\x01",
    "assigned client id": b"\x12" + text("a"),
    "reason string": b"\x1f" + text("a"),
    "subscription id": b"\x0b\x01",
    "unknown identifier": b"\x7e\x00",
    "identifier of two bytes": b"\x81\x01\x00",
    "identifier 0": b"\x00\x00",
}


@pytest.mark.parametrize("properties", MISPLACED.values(), ids=MISPLACED.keys())
async def test_case_20_property_that_connect_has_not_is_malformed(start: Start, properties: bytes):
    assert_refused(await answer_to_connect(await start(), 5, connect(5, properties=properties)), 5, 0x81)


@pytest.mark.parametrize("length", [b"\x7f", b"\xff\xff\xff\x7f"], ids=["127", "256 MiB"])
async def test_case_20_property_length_past_the_end_is_malformed(start: Start, length: bytes):
    body = text("MQTT") + b"\x05\x02" + u16(0) + length + text("c")
    said = await answer_to_connect(await start(), 5, b"\x10" + bytes([len(body)]) + body)
    assert_refused(said, 5, 0x81)


async def test_case_20_property_that_its_block_cuts_is_malformed(start: Start):
    # the interval's last bytes are there, but behind the end of the block
    body = text("MQTT") + b"\x05\x02" + u16(0) + b"\x03\x11" + u32(1) + text("c")
    said = await answer_to_connect(await start(), 5, b"\x10" + bytes([len(body)]) + body)
    assert_refused(said, 5, 0x81)


FORBIDDEN_VALUES = {
    "receive maximum 0": b"\x21\x00\x00",
    "maximum packet size 0": b"\x27\x00\x00\x00\x00",
    "request problem information 2": b"\x17\x02",
    "request response information 2": b"\x19\x02",
    "authentication data without method": b"\x16" + text("x"),
}


@pytest.mark.parametrize("properties", FORBIDDEN_VALUES.values(), ids=FORBIDDEN_VALUES.keys())
async def test_case_21_forbidden_property_value_is_an_error(start: Start, properties: bytes):
    assert_refused(await answer_to_connect(await start(), 5, connect(5, properties=properties)), 5, 0x82)
