"""Handling errors: MQTT 5 §4.13."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import Connect, Publish, Will
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.identity import Refusal

from .authentication import ACCEPT, answering
from .peers import lasting, read_until_closed

MALFORMED, ERROR = ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR

FAULTS: dict[str, tuple[bytes, int]] = {
    "packet type 0": (b"\x00\x00", MALFORMED),
    "second CONNECT": (Connect("x").encode(5), ERROR),
    "CONNACK": (b"\x20\x03\x00\x00\x00", ERROR),
    "PUBLISH with QoS 3": (b"\x36\x06\x00\x01t\x00\x01\x00", MALFORMED),
    "PUBLISH with DUP at QoS 0": (b"\x38\x04\x00\x01t\x00", MALFORMED),
    "PUBLISH with a wildcard": (b"\x30\x04\x00\x01#\x00", ReasonCode.TOPIC_NAME_INVALID),
    "PUBLISH without topic": (b"\x30\x03\x00\x00\x00", ERROR),
    "PUBLISH with packet id 0": (b"\x32\x06\x00\x01t\x00\x00\x00", ERROR),
    "PUBLISH cut in its topic": (b"\x30\x04\x00\x05ab", MALFORMED),
    "PUBLISH with topic alias 0": (b"\x30\x07\x00\x01t\x03\x23\x00\x00", ReasonCode.TOPIC_ALIAS_INVALID),
    "PUBLISH with a subscription identifier": (b"\x30\x06\x00\x01t\x02\x0b\x01", ERROR),
    "PUBLISH with an unknown property": (b"\x30\x06\x00\x01t\x02\x7f\x01", MALFORMED),
    "PUBLISH with a property twice": (b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00", ERROR),
    "PUBACK with packet id 0": (b"\x40\x02\x00\x00", ERROR),
    "PUBACK with flags": (b"\x41\x02\x00\x01", MALFORMED),
    "PUBREC cut": (b"\x50\x01\x00", MALFORMED),
    "PUBREL with flags": (b"\x60\x02\x00\x01", MALFORMED),
    "PUBCOMP with a reason code of another packet": (b"\x70\x03\x00\x01\x10", ERROR),
    "SUBSCRIBE without filter": (b"\x82\x03\x00\x01\x00", ERROR),
    "SUBSCRIBE with packet id 0": (b"\x82\x07\x00\x00\x00\x00\x01t\x00", ERROR),
    "SUBSCRIBE with reserved options": (b"\x82\x07\x00\x01\x00\x00\x01t\x40", MALFORMED),
    "SUBACK": (b"\x90\x04\x00\x01\x00\x00", ERROR),
    "UNSUBSCRIBE without filter": (b"\xa2\x03\x00\x01\x00", ERROR),
    "UNSUBACK": (b"\xb0\x04\x00\x01\x00\x00", ERROR),
    "PINGREQ with a body": (b"\xc0\x01\x00", MALFORMED),
    "PINGRESP": (b"\xd0\x00", ERROR),
    "DISCONNECT with bytes behind": (b"\xe0\x03\x00\x00\x00", MALFORMED),
    "AUTH without method": (b"\xf0\x02\x18\x00", ERROR),
    "length that is too long": (b"\x30\x80\x80\x80\x80\x01", MALFORMED),
    "length that is not minimal": (b"\xc0\x80\x00", MALFORMED),
    "packet beyond the maximum size": (b"\x30\xff\xff\xff\x7f", ReasonCode.PACKET_TOO_LARGE),
}


@pytest.mark.mqtt5("4.13.1-1", "4.13.2-1")
@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_is_answered_with_its_code_closes_and_touches_nobody_else(start: Start, fault: str):
    data, reason_code = FAULTS[fault]
    world = await start()
    other = await world.connect("other")
    await other.subscribe("t")
    peer = await lasting(world, "a")
    await peer.send(Publish("t", b"before", qos=1, packet_id=1), data, Publish("t", b"behind"))
    assert type(await peer.receive()).__name__ == "PubAck"
    await peer.expect_closed(reason_code)
    assert (await other.receive_publish()).payload == b"before"
    await other.expect_nothing()
    assert world.metrics["protocol_errors"] == 1
    peer = await lasting(world, "a", present=True)  # its own session is there, too
    await peer.expect_nothing()


CONNECT = Connect("abc", keep_alive_s=0).encode(5)

CONNECT_FAULTS: dict[str, tuple[bytes, int]] = {
    "reserved flag": (CONNECT[:9] + b"\x03" + CONNECT[10:], MALFORMED),
    "will QoS 3": (Connect("abc", will=Will("t", qos=2)).encode(5).replace(b"\x05\x16", b"\x05\x1e"), MALFORMED),
    "client id cut": (CONNECT[:-4] + b"\x09" + CONNECT[-3:], MALFORMED),
    "client id with U+0000": (CONNECT[:-3] + b"a\x00c", MALFORMED),
    "receive maximum 0": (Connect("a", properties={PropertyId.RECEIVE_MAXIMUM: 1}).encode(5).replace(
        b"\x21\x00\x01", b"\x21\x00\x00"), ERROR),
    "authentication data alone": (b"\x10\x12\x00\x04MQTT\x05\x02\x00\x00" b"\x04\x16\x00\x01x" b"\x00\x01a", ERROR),
    "version 6": (CONNECT[:8] + b"\x06" + CONNECT[9:], ReasonCode.UNSUPPORTED_PROTOCOL_VERSION),
}  # fmt: skip


@pytest.mark.mqtt5("4.13.1-1", "4.13.2-1")
@pytest.mark.parametrize("fault", CONNECT_FAULTS)
async def test_faulty_connect_is_answered_with_connack_and_closes(start: Start, fault: str):
    data, reason_code = CONNECT_FAULTS[fault]
    world = await start()
    other = await world.connect("abc")
    peer = await world.open()
    await peer.send(data)
    answer = await read_until_closed(peer)
    assert (answer[0], answer[2], answer[3], len(answer)) == (0x20, 0, reason_code, 2 + answer[1])
    await other.expect_nothing()


@pytest.mark.mqtt5("4.13.2-1")
@pytest.mark.parametrize("reason_code", [0x80, 0x83, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x97, 0x9C, 0x9F], ids=hex)
async def test_connack_with_an_error_is_followed_by_closing(start_clocked: Start, reason_code: int):
    world = await start_clocked(hooks=answering(ACCEPT, Refusal(reason_code)))
    other = await world.connect("a")
    peer = await world.connect("a", expect=reason_code)
    assert await read_until_closed(peer) == b""
    await other.expect_nothing()


@pytest.mark.mqtt5("4.13.2-1")
@pytest.mark.parametrize("reason_code", [0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x97, 0x99], ids=hex)
async def test_disconnect_with_an_error_closes(start: Start, reason_code: int):
    world = await start()
    other = await world.connect("other")
    peer = await world.connect("a")
    await peer.send(bytes([0xE0, 1, reason_code]))
    assert await read_until_closed(peer) == b""
    await other.expect_nothing()


@pytest.mark.mqtt5("4.13.2-1")
@pytest.mark.parametrize("properties", [{}, {PropertyId.MAXIMUM_PACKET_SIZE: 3}], ids=["sent", "too large to send"])
async def test_refused_connection_closes_even_when_connack_may_not_be_sent(start: Start, properties: dict[int, Any]):
    world = await start(client_id_bytes_maximum=23)
    peer = await world.open()
    await peer.send(Connect("a" * 24, properties=properties))
    answer = await read_until_closed(peer)
    assert (answer == b"") == bool(properties)
