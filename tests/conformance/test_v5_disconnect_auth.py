"""DISCONNECT and AUTH: MQTT 5 §3.14 and §3.15."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import Auth, Connect, Disconnect, PingReq, PubAck, Publish, PubRec, Will
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.identity import Challenge, Refusal

from .authentication import ACCEPT, answering
from .peers import expect_bytes, lasting, read_until_closed

METHOD = {PropertyId.AUTHENTICATION_METHOD: "riddle"}
PING = b"\xc0\x00"
CONNECT = Connect("a", keep_alive_s=0).encode(5)


# --- DISCONNECT from the server


@pytest.mark.mqtt5("3.14.0-1")
@pytest.mark.parametrize(
    "data",
    [
        PING,
        b"\xe0\x00",
        b"\x00\x00",
        b"\xf0\x00",
        b"\x30\xff\xff\xff\xff\x01",
        CONNECT[:-1] + b"\xff",  # client id is no UTF-8
        CONNECT[:9] + b"\x03" + CONNECT[10:],  # reserved connect flag
        CONNECT[:8] + b"\x06" + CONNECT[9:],  # a version that does not exist
        Connect("a", properties=METHOD).encode(5),  # a method that nobody knows
    ],
    ids=bytes.hex,
)
async def test_no_disconnect_before_connack(start: Start, data: bytes):
    world = await start()
    peer = await world.open()
    await peer.send(data + PING)
    answer = await read_until_closed(peer)
    assert answer == b"" or (answer[0] == 0x20 and answer[3] >= 0x80 and len(answer) == 2 + answer[1])
    assert world.metrics["packets_sent_disconnect"] == 0


@pytest.mark.mqtt5("3.14.0-1")
@pytest.mark.parametrize("data", [PING, b"\x30\x04\x00\x01t\x00", b"\xf1\x00", b"\xe1\x00", CONNECT], ids=bytes.hex)
async def test_no_disconnect_while_authenticating(start_clocked: Start, data: bytes):
    world = await start_clocked(hooks=answering(Challenge(b"?")))
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    assert isinstance(await peer.receive(), Auth)
    await peer.send(data)
    assert await read_until_closed(peer) == b""


@pytest.mark.mqtt5("3.14.0-1")
async def test_no_disconnect_for_who_never_sends_connect(start_clocked: Start):
    world = await start_clocked(connect_timeout_s=10)
    silent, slow = await world.open(), await world.open()
    await slow.send(CONNECT[:5])
    world.advance(11_000)
    assert await read_until_closed(silent) == b""
    assert await read_until_closed(slow) == b""


@pytest.mark.mqtt5("3.14.1-1")
@pytest.mark.parametrize("flags", range(1, 16))
async def test_disconnect_with_flags_is_malformed(start: Start, flags: int):
    world = await start()
    watcher = await world.connect("watcher")
    await watcher.subscribe("will")
    peer = await world.connect("a", will=Will("will", b"x"))
    await peer.send(bytes([0xE0 | flags, 0]))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)
    assert (await watcher.receive_publish()).payload == b"x"  # not a clean end


SERVER_SAYS: list[tuple[dict[str, Any], bytes, int]] = [
    ({}, b"\xc1\x00", ReasonCode.MALFORMED_PACKET),
    ({}, b"\x30\xff\xff\xff\xff\x01", ReasonCode.MALFORMED_PACKET),
    ({}, CONNECT, ReasonCode.PROTOCOL_ERROR),
    ({}, b"\x30\x06\x00\x03a/+\x00", ReasonCode.TOPIC_NAME_INVALID),
    ({"topic_alias_maximum": 1}, b"\x30\x07\x00\x01t\x03\x23\x00\x02", ReasonCode.TOPIC_ALIAS_INVALID),
    ({"maximum_packet_size_bytes": 32}, b"\x30\x21", ReasonCode.PACKET_TOO_LARGE),
    ({"receive_maximum": 1}, b"\x34\x06\x00\x01t\x00\x01\x00\x34\x06\x00\x01t\x00\x02\x00", 0x93),
    ({"retain_available": False}, b"\x31\x04\x00\x01t\x00", ReasonCode.RETAIN_NOT_SUPPORTED),
    ({"maximum_qos": 0}, b"\x32\x06\x00\x01t\x00\x01\x00", ReasonCode.QOS_NOT_SUPPORTED),
    ({"subscription_identifier_available": False}, b"\x82\x09\x00\x01\x02\x0b\x01\x00\x01t\x00", 0xA1),
]


@pytest.mark.mqtt5("3.14.2-1", "3.14.2-2", "3.14.2-4", "3.14.4-1", "3.14.4-2")
@pytest.mark.parametrize(("limits", "data", "reason_code"), SERVER_SAYS)
async def test_disconnect_says_why_and_is_the_last_packet(
    start: Start, limits: dict[str, Any], data: bytes, reason_code: int
):
    world = await start(**limits)
    peer = await world.connect("a", properties={PropertyId.REQUEST_PROBLEM_INFORMATION: 1})
    await peer.send(data + PING + PING)
    answer = await read_until_closed(peer)
    if reason_code == ReasonCode.RECEIVE_MAXIMUM_EXCEEDED:
        assert answer.startswith(b"\x50\x03\x00\x01\x10")  # the first message was taken
        answer = answer[5:]
    assert answer[:1] + answer[2:3] == bytes([0xE0, reason_code])
    assert len(answer) == 2 + answer[1]  # nothing behind it
    text = answer[7:]
    assert answer[3:7] == bytes([3 + len(text), 0x1F]) + len(text).to_bytes(2)  # Reason String, and no other property


@pytest.mark.mqtt5("3.14.2-1", "3.14.2-2", "3.14.2-4")
async def test_disconnect_of_the_broker_itself(start_clocked: Start):
    world = await start_clocked()
    silent = await world.connect("silent", keep_alive_s=10)
    old = await lasting(world, "taken")
    new = await lasting(world, "taken", present=True)
    kicked = await world.connect("kicked")
    world.engine.disconnect("kicked", ReasonCode.ADMINISTRATIVE_ACTION)
    await expect_bytes(kicked, b"\xe0\x01\x98")
    world.advance(15_000)
    await expect_bytes(silent, b"\xe0\x01\x8d")
    said = await old.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
    assert set(said.properties) == {PropertyId.REASON_STRING}
    world.engine.shut_down()
    await expect_bytes(new, b"\xe0\x01\x8b")
    for peer in (kicked, silent, new):
        assert await read_until_closed(peer) == b""


@pytest.mark.mqtt5("3.14.2-3")
async def test_reason_string_is_left_out_when_it_does_not_fit(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(CONNECT)
    whole = await read_until_closed(peer)
    assert whole[4] == PropertyId.REASON_STRING
    for size, expected in ((len(whole), whole), (len(whole) - 1, b"\xe0\x01\x82")):
        peer = await world.connect("a", properties={PropertyId.MAXIMUM_PACKET_SIZE: size})
        await peer.send(CONNECT)
        assert await read_until_closed(peer) == expected


@pytest.mark.mqtt5("3.14.4-1", "3.14.4-2")
async def test_nothing_that_waits_follows_a_disconnect(start: Start):
    world = await start()
    reader = await lasting(world, "r", properties={PropertyId.RECEIVE_MAXIMUM: 1})
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish("t", b"%d" % i, qos=1)
    first = await reader.receive()
    # The acknowledgement makes room for the next message, but what stands behind it closes.
    await reader.send(PubAck(first.packet_id), b"\xc1\x00")
    await reader.expect_closed(ReasonCode.MALFORMED_PACKET)


# --- DISCONNECT from the client


@pytest.mark.mqtt5("3.14.2-1")
@pytest.mark.parametrize("reason_code", [0x01, 0x02, 0x10, 0x18, 0x85, 0x92, 0xFF], ids=hex)
async def test_disconnect_with_a_foreign_reason_code_is_an_error(start: Start, reason_code: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(bytes([0xE0, 1, reason_code]))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("3.14.4-1", "3.14.4-2")
@pytest.mark.parametrize("data", [b"\xe0\x00", b"\xe0\x01\x00", b"\xe0\x02\x00\x00", b"\xe0\x01\x04", b"\xe0\x01\x80"])
async def test_disconnect_of_the_client_is_answered_by_closing_only(start: Start, data: bytes):
    world = await start()
    watcher = await world.connect("watcher")
    await watcher.subscribe("t")
    peer = await world.connect("a")
    await peer.subscribe("t")
    await peer.send(data + PING + Publish("t", b"too late").encode(5))
    assert await read_until_closed(peer) == b""
    await watcher.expect_nothing()


@pytest.mark.mqtt5("3.14.4-3")
@pytest.mark.parametrize("data", [b"\xe0\x00", b"\xe0\x01\x00", b"\xe0\x02\x00\x00", b"\xe0\x07\x00\x05\x11\0\0\0\x09"])
@pytest.mark.parametrize("delay_s", [0, 5])
async def test_normal_disconnect_discards_the_will(start_clocked: Start, data: bytes, delay_s: int):
    world = await start_clocked()
    watcher = await world.connect("watcher")
    await watcher.subscribe("will")
    will = Will("will", b"x", qos=1, retain=True, properties={PropertyId.WILL_DELAY_INTERVAL: delay_s})
    peer = await lasting(world, "a", will=will, expiry_s=20)
    await peer.send(data)
    await peer.expect_closed()
    for _ in range(6):
        world.advance(5_000)
    await watcher.expect_nothing()
    assert (world.metrics["retained"], world.metrics["sessions"]) == (0, 1)


@pytest.mark.parametrize("reason_code", [0x04, 0x80, 0x81, 0x93, 0x98])
async def test_other_disconnect_publishes_the_will(start: Start, reason_code: int):
    world = await start()
    watcher = await world.connect("watcher")
    await watcher.subscribe("will")
    peer = await world.connect("a", will=Will("will", b"x", qos=1))
    await peer.disconnect(reason_code)
    assert (await watcher.receive_publish()).payload == b"x"


async def test_disconnect_may_not_raise_the_session_expiry_from_zero(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(Disconnect(0, {PropertyId.SESSION_EXPIRY_INTERVAL: 1}))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    assert world.metrics["sessions"] == 0


# --- AUTH


@pytest.mark.mqtt5("3.15.1-1")
@pytest.mark.parametrize("flags", range(1, 16))
async def test_auth_with_flags_is_malformed(start_clocked: Start, flags: int):
    world = await start_clocked(hooks=answering(ACCEPT, ACCEPT))
    peer = await world.connect("a", properties=METHOD)
    again = Auth(0x19, METHOD).encode(5)
    await peer.send(bytes([0xF0 | flags]) + again[1:])
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)


@pytest.mark.mqtt5("3.15.2-1", "3.15.2-2", "3.15.2-3")
async def test_auth_of_the_server_has_its_codes_method_and_data_only(start_clocked: Start):
    world = await start_clocked(hooks=answering(Challenge(b"?"), ACCEPT, Challenge(), ACCEPT))
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    method = b"\x15\x00\x06riddle"
    await expect_bytes(peer, b"\xf0\x0f\x18\x0d" + method + b"\x16\x00\x01?")
    await peer.send(Auth(0x18, METHOD))
    assert (await peer.receive()).reason_code == 0
    await peer.send(Auth(0x19, METHOD))
    await expect_bytes(peer, b"\xf0\x0b\x18\x09" + method)
    await peer.send(Auth(0x18, METHOD))
    await expect_bytes(peer, b"\xf0\x0b\x00\x09" + method)


@pytest.mark.mqtt5("3.15.2-1")
@pytest.mark.parametrize("reason_code", [0x00, 0x01, 0x04, 0x18, 0x80, 0x87, 0xFF], ids=hex)
async def test_auth_with_another_code_than_reauthenticate_closes(start_clocked: Start, reason_code: int):
    world = await start_clocked(hooks=answering(ACCEPT, ACCEPT))
    peer = await world.connect("a", properties=METHOD)
    await peer.send(b"\xf0\x0b" + bytes([reason_code]) + b"\x09\x15\x00\x06riddle")
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("3.15.2-2")
async def test_reason_of_a_refused_reauthentication_fits(start_clocked: Start):
    refusal = Refusal(ReasonCode.NOT_AUTHORIZED, "a long story about what happened")
    world = await start_clocked(hooks=answering(ACCEPT, refusal, ACCEPT, refusal))
    limit = {PropertyId.MAXIMUM_PACKET_SIZE: 30}
    for said, expected in (({}, {PropertyId.REASON_STRING: refusal.reason}), (limit, {})):
        peer = await world.connect("a", properties=METHOD | said)
        await peer.send(Auth(0x19, METHOD))
        assert (await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)).properties == expected


async def test_messages_flow_while_reauthenticating(start_clocked: Start):
    world = await start_clocked(hooks=answering(ACCEPT, Challenge(b"?"), ACCEPT))
    peer = await world.connect("a", properties=METHOD)
    await peer.subscribe("t")
    await peer.send(Auth(0x19, METHOD))
    assert (await peer.receive()).reason_code == ReasonCode.CONTINUE_AUTHENTICATION
    await peer.send(Publish("t", b"x", qos=2, packet_id=1), PingReq())
    message = await peer.receive()
    assert message.payload == b"x"
    await peer.expect(PubRec(1))
    await peer.send(PubRec(message.packet_id), Auth(0x18, METHOD))
    assert [type(await peer.receive()).__name__ for _ in range(3)] == ["PingResp", "PubRel", "Auth"]
