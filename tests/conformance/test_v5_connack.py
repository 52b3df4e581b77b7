"""MQTT 5 §3.2: CONNACK, byte by byte, and the limits that it announces."""

from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import Peer, World
from mqttcore.codec import ConnAck, PingReq, PubAck, Publish, PubRec, PubRel, SubAck, Subscribe, Subscription, Will
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import PENDING, HookTable
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

EXPIRY = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}
# §3.2.2.2, table 3-1
CONNECT_REASON_CODES = {
    *(0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99),
    *(0x9A, 0x9B, 0x9C, 0x9D, 0x9F),
}


async def first_byte_pairs(peer: Peer, data: bytes) -> bytes:
    """Send *data* and return what comes first, as it came."""
    await peer.send(data)
    answer = await peer._read()
    assert answer
    return answer


# --- its place among the packets --------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.0-1")
async def test_connack_comes_before_what_waits_for_the_client(start: Start):
    world = await start()
    peer = await world.connect("c", clean_start=False, properties=EXPIRY)
    await peer.subscribe("t")
    writer = await world.connect("w")
    await writer.publish("t", b"in flight", qos=1)
    await peer.receive()
    await peer.lose()
    await writer.publish("t", b"queued", qos=1)
    peer = await world.open()
    await peer.send(connect(flags=0), subscribe("u"), b"\xc0\x00")
    kinds = [type(await peer.receive()).__name__ for _ in range(5)]
    assert kinds[0] == "ConnAck"
    assert sorted(kinds[1:]) == ["PingResp", "Publish", "Publish", "SubAck"]


@pytest.mark.mqtt5("3.2.0-1")
@pytest.mark.parametrize("answer", [PENDING, Challenge(b"who")], ids=["pending", "challenge"])
async def test_nothing_but_auth_is_sent_before_connack(start_clocked: Start, answer: Any):
    world = await start_clocked(hooks=HookTable(authenticate=lambda _, packet: answer if packet.properties else ACCEPT))
    before = await world.connect("c", clean_start=False)
    await before.subscribe("t")
    writer = await world.connect("w")
    peer = await world.open()
    await peer.send(connect(flags=0, properties=b"\x15\x00\x01m"), b"" if answer is not PENDING else b"\xc0\x00")
    await writer.publish("t", b"x", qos=1)
    if answer is PENDING:
        await expect_silence(peer)
    else:
        await expect_bytes(peer, packet(0xF0, b"\x18", block(b"\x15\x00\x01m\x16\x00\x03who")))
        await expect_silence(peer)
    assert (await before.receive_publish()).payload == b"x"  # the session is still where it was


@pytest.mark.mqtt5("3.2.0-2")
async def test_one_connack_per_connection(start_clocked: Start):
    asked = []

    def authenticate(connection: Any, packet: Any) -> Any:
        asked.append(connection)
        return PENDING

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    peer = await world.open()
    await peer.send(connect())
    world.engine.accept(asked[0])
    world.engine.accept(asked[0])  # a second answer is without effect
    world.engine.refuse(asked[0], ReasonCode.NOT_AUTHORIZED)
    assert isinstance(await peer.receive(), ConnAck)
    await peer.expect_nothing()
    await peer.send(connect())
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


# --- flags and session present ----------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-1", "3.2.2-2", "3.2.2-3")
async def test_flags_are_session_present_and_nothing_else(start: Start):
    world = await start()
    fields = {"fresh, clean": (0x02, 0), "fresh": (0x00, 0)}
    for client_id, (flags, present) in fields.items():
        peer = await world.open()
        answer = await first_byte_pairs(peer, connect(text(client_id), flags=flags, properties=b"\x11\x00\x00\x00\x64"))
        assert (answer[0], answer[2], answer[3]) == (0x20, present, 0x00)
        await peer.lose()
    for flags, present in ((0x00, 1), (0x00, 1), (0x02, 0), (0x00, 1)):
        peer = await world.open()
        answer = await first_byte_pairs(peer, connect(text("fresh"), flags=flags, properties=b"\x11\x00\x00\x00\x64"))
        assert (answer[0], answer[2], answer[3]) == (0x20, present, 0x00)
        await peer.lose()


@pytest.mark.mqtt5("3.2.2-2", "3.2.2-3")
@pytest.mark.parametrize("is_connected", [True, False], ids=["takeover", "resumption"])
@pytest.mark.parametrize("clean_start", [True, False])
@pytest.mark.parametrize("expiry_s", [0, 1000, 0xFFFFFFFF])
async def test_session_present_says_whether_there_was_a_session(
    start: Start, expiry_s: int, clean_start: bool, is_connected: bool
):
    world = await start()
    first = await world.connect("c", properties={PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s})
    if not is_connected:
        await first.lose()
    peer = await world.open()
    answer = await first_byte_pairs(peer, connect(flags=0x02 if clean_start else 0x00))
    assert (answer[2], answer[3]) == (bool(expiry_s) and not clean_start, 0x00)


REFUSALS: dict[str, tuple[bytes, ReasonCode]] = {
    "malformed": (connect(flags=0x01), ReasonCode.MALFORMED_PACKET),
    "protocol error": (connect(flags=0x00, properties=b"\x21\x00\x00"), ReasonCode.PROTOCOL_ERROR),
    "version": (connect(flags=0x00, level=6), ReasonCode.UNSUPPORTED_PROTOCOL_VERSION),
    "client identifier": (connect(text("c" * 24), flags=0x00), ReasonCode.CLIENT_IDENTIFIER_NOT_VALID),
    "method": (connect(flags=0x00, properties=b"\x15\x00\x01m"), ReasonCode.BAD_AUTHENTICATION_METHOD),
    "will topic": (
        connect(text("c"), block(), text("a/#"), text(""), flags=0x04),
        ReasonCode.TOPIC_NAME_INVALID,
    ),
    "will to $SYS": (
        connect(text("c"), block(), text("$SYS/x"), text(""), flags=0x04),
        ReasonCode.NOT_AUTHORIZED,
    ),
    "will QoS": (connect(text("c"), block(), text("t"), text(""), flags=0x0C), ReasonCode.QOS_NOT_SUPPORTED),
    "will retain": (connect(text("c"), block(), text("t"), text(""), flags=0x24), ReasonCode.RETAIN_NOT_SUPPORTED),
    "packet size": (connect(flags=0x00, properties=b"\x27\x00\x00\x00\x05"), ReasonCode.PACKET_TOO_LARGE),
    "quota": (connect(text("d"), flags=0x00), ReasonCode.QUOTA_EXCEEDED),
}


@pytest.mark.mqtt5("3.2.2-6", "3.2.2-7", "3.2.2-8")
@pytest.mark.parametrize(("data", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_refusal_has_a_connect_reason_code_no_session_present_and_closes(
    start: Start, data: bytes, code: ReasonCode
):
    world = await start(maximum_qos=0, retain_available=False, client_id_bytes_maximum=23, sessions_maximum=1)
    before = await world.connect("c", properties=EXPIRY)  # there is a session that could be present
    await before.lose()
    peer = await world.open()
    answer = await first_byte_pairs(peer, data)
    assert (answer[0], answer[2], answer[3]) == (0x20, 0, code)
    assert code in CONNECT_REASON_CODES
    assert await peer._next() == b""
    await world.connect("c", clean_start=False, session_present=True)


@pytest.mark.mqtt5("3.2.2-8")
@pytest.mark.parametrize("code", sorted(CONNECT_REASON_CODES - {0}), ids=hex)
async def test_every_connect_reason_code_can_be_given(start_clocked: Start, code: int):
    world = await start_clocked(hooks=HookTable(authenticate=lambda *_: Refusal(code)))
    peer = await world.open()
    await peer.send(connect())
    await expect_bytes(peer, b"\x20\x03\x00" + bytes([code, 0]))
    await peer.expect_closed()


@pytest.mark.mqtt5("3.2.2-7", "3.2.2-8")
@pytest.mark.parametrize("code", [0x00, 0x04, 0x10, 0x8D, 0x8E, 0x92, 0x93, 0x98, 0xA2, 0xFF], ids=hex)
async def test_code_that_connack_does_not_have_becomes_not_authorized(start_clocked: Start, code: int):
    world = await start_clocked(hooks=HookTable(authenticate=lambda *_: Refusal(code)))
    peer = await world.open()
    await peer.send(connect())
    await expect_refused(peer, ReasonCode.NOT_AUTHORIZED)
    assert world.metrics["sessions"] == 0


# --- maximum QoS ------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-9")
@pytest.mark.parametrize(("maximum", "said"), [(0, 0), (1, 1), (2, None)])
async def test_maximum_qos_is_said_when_it_is_not_2(start: Start, maximum: int, said: int | None):
    world = await start(maximum_qos=maximum)
    peer = await world.connect("c")
    assert peer.connack.properties.get(PropertyId.MAXIMUM_QOS) == said


@pytest.mark.mqtt5("3.2.2-10")
@pytest.mark.parametrize("maximum", [0, 1])
@pytest.mark.parametrize("requested", [0, 1, 2])
async def test_subscriptions_above_the_maximum_qos_are_accepted_and_lowered(start: Start, maximum: int, requested: int):
    world = await start(maximum_qos=maximum)
    peer = await world.connect("c")
    await peer.send(subscribe("t", requested))
    granted = min(maximum, requested)
    await peer.expect(SubAck(1, [granted]))
    await peer.publish("t", b"x", qos=maximum)
    assert (await peer.receive_publish()).qos == min(granted, maximum)


@pytest.mark.mqtt5("3.2.2-11")
@pytest.mark.parametrize(("maximum", "qos"), [(0, 1), (0, 2), (1, 2)])
async def test_publish_above_the_maximum_qos_closes(start: Start, maximum: int, qos: int):
    world = await start(maximum_qos=maximum)
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    peer = await world.connect("c")
    await peer.send(publish("t", b"x", flags=qos << 1, packet_id=1))
    await peer.expect_closed(ReasonCode.QOS_NOT_SUPPORTED)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.2.2-12")
@pytest.mark.parametrize(("maximum", "qos"), [(0, 1), (0, 2), (1, 2)])
async def test_will_above_the_maximum_qos_is_refused(start: Start, maximum: int, qos: int):
    world = await start(maximum_qos=maximum)
    await world.connect("fits", will=Will("t", qos=maximum))
    peer = await world.open()
    await peer.send(connect(text("c"), block(), text("t"), text(""), flags=0x06 | qos << 3))
    await expect_refused(peer, ReasonCode.QOS_NOT_SUPPORTED)


# --- retain -----------------------------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-13")
@pytest.mark.parametrize("is_available", [True, False])
async def test_retained_will_is_refused_where_nothing_is_retained(start: Start, is_available: bool):
    world = await start(retain_available=is_available)
    peer = await world.open()
    await peer.send(connect(text("c"), block(), text("t"), text(""), flags=0x26))
    if is_available:
        answer = await peer.receive()
        assert answer.reason_code == 0
        assert PropertyId.RETAIN_AVAILABLE not in answer.properties
    else:
        await expect_refused(peer, ReasonCode.RETAIN_NOT_SUPPORTED)
        peer = await world.connect("c", will=Will("t"))
        assert peer.connack.properties[PropertyId.RETAIN_AVAILABLE] == 0


@pytest.mark.mqtt5("3.2.2-14")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_retained_publish_closes_where_nothing_is_retained(start: Start, qos: int):
    world = await start(retain_available=False)
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    peer = await world.connect("c")
    await peer.send(publish("t", b"x", flags=1 | qos << 1, packet_id=1))
    await peer.expect_closed(ReasonCode.RETAIN_NOT_SUPPORTED)
    await reader.expect_nothing()


# --- maximum packet size of the server --------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-15")
@pytest.mark.parametrize("maximum", [100, 200, 20_000])
async def test_packet_over_the_servers_maximum_closes(start: Start, maximum: int):
    world = await start(maximum_packet_size_bytes=maximum)
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    peer = await world.connect("c")
    assert peer.connack.properties[PropertyId.MAXIMUM_PACKET_SIZE] == maximum
    largest = publish("t", bytes(maximum - len(publish("t", bytes(maximum - 10))) + maximum - 10))
    assert len(largest) == maximum
    await peer.send(largest)
    await expect_bytes(reader, largest)
    await peer.send(publish("t", bytes(maximum)))
    await peer.expect_closed(ReasonCode.PACKET_TOO_LARGE)
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.2.2-15")
async def test_packet_over_the_servers_maximum_closes_before_its_body_has_come(start: Start):
    world = await start(maximum_packet_size_bytes=1000)
    peer = await world.connect("c")
    await peer.send(b"\x30\xff\xff\xff\x7f")
    await peer.expect_closed(ReasonCode.PACKET_TOO_LARGE)


# --- assigned client identifier ---------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-16")
async def test_assigned_client_identifier_is_new(start: Start):
    world = await start()
    names = set()
    for i in range(30):
        peer = await world.connect("", properties=EXPIRY if i % 2 else {})
        name = peer.connack.properties[PropertyId.ASSIGNED_CLIENT_IDENTIFIER]
        assert name not in names
        assert world.engine.session(name).is_connected
        names.add(name)
        if i % 3:
            await peer.lose()
    await world.connect("given")
    given = await world.connect("given again")
    assert PropertyId.ASSIGNED_CLIENT_IDENTIFIER not in given.connack.properties


# --- topic aliases of the client --------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-17")
@pytest.mark.parametrize("maximum", [1, 32, 65534])
async def test_alias_above_the_servers_maximum_closes(start: Start, maximum: int):
    world = await start(topic_alias_maximum=maximum)
    peer = await world.connect("c")
    assert peer.connack.properties[PropertyId.TOPIC_ALIAS_MAXIMUM] == maximum
    await peer.send(publish("t", properties=b"\x23" + maximum.to_bytes(2, "big")))
    await peer.expect_nothing()
    await peer.send(publish("t", properties=b"\x23" + (maximum + 1).to_bytes(2, "big")))
    await peer.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


@pytest.mark.mqtt5("3.2.2-18")
async def test_alias_closes_where_the_server_takes_none(start: Start):
    world = await start(topic_alias_maximum=0)
    peer = await world.connect("c")
    assert PropertyId.TOPIC_ALIAS_MAXIMUM not in peer.connack.properties
    await peer.send(publish("t", properties=b"\x23\x00\x01"))
    await peer.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


# --- reason strings and user properties -------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-19")
async def test_reason_string_stays_away_when_the_connack_would_be_too_large(start_clocked: Start):
    reason = "no entry today, come back tomorrow"
    world = await start_clocked(hooks=HookTable(authenticate=lambda *_: Refusal(ReasonCode.BANNED, reason)))
    size = len(ConnAck(False, ReasonCode.BANNED, {PropertyId.REASON_STRING: reason}).encode(5))
    for maximum, said in ((size - 1, None), (size, reason), (size + 1, reason)):
        peer = await world.open()
        await peer.send(connect(properties=b"\x27" + maximum.to_bytes(4, "big")))
        answer = await expect_refused(peer, ReasonCode.BANNED)
        assert answer.properties.get(PropertyId.REASON_STRING) == said


@pytest.mark.mqtt5("3.2.2-19", "3.2.2-20")
@pytest.mark.parametrize(
    "data",
    [
        connect(text("c"), b"\x00", properties=b"\x27\x00\x00\x00\x05"),
        connect(text("c"), text("user"), flags=0xC2, properties=b"\x27\x00\x00\x00\x05"),
        connect(text("c"), block(), text("a/#"), text(""), flags=0x06, properties=b"\x27\x00\x00\x00\x05"),
        connect(text("\ud800".encode("utf-8", "surrogatepass")), properties=b"\x27\x00\x00\x00\x05"),
    ],
    ids=["bytes behind", "no password", "will topic", "client identifier"],
)
async def test_answer_to_a_faulty_connect_respects_the_size_that_it_named(start: Start, data: bytes):
    world = await start()
    peer = await world.open()
    answer = await first_byte_pairs(peer, data)
    assert answer[0] == 0x20
    assert answer[3] >= 0x80
    assert len(answer) <= 5
    await peer.expect_closed()


@pytest.mark.mqtt5("3.2.2-20")
async def test_connack_has_no_user_properties(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(connect(properties=pair("echo", "me") * 50 + b"\x27\x00\x00\x00\x20"))
    answer = await peer.receive()
    assert PropertyId.USER_PROPERTY not in answer.properties
    assert len(answer.encode(5)) <= 0x20


# --- keep alive of the server -----------------------------------------------------------------------------------------


@pytest.mark.mqtt5("3.2.2-21")
@pytest.mark.parametrize("asked_s", [0, 31, 65535])
async def test_server_keep_alive_replaces_the_clients(start_clocked: Start, asked_s: int):
    world = await start_clocked(keep_alive_maximum_s=30)
    peer = await world.open()
    await peer.send(connect(keep_alive_s=asked_s))
    assert (await peer.receive()).properties[PropertyId.SERVER_KEEP_ALIVE] == 30
    world.advance(44_900)
    await expect_silence(peer)
    world.advance(200)
    await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)


@pytest.mark.mqtt5("3.2.2-22")
@pytest.mark.parametrize("limit_s", [0, 30])
@pytest.mark.parametrize("asked_s", [1, 20, 30])
async def test_without_server_keep_alive_the_clients_holds(start_clocked: Start, asked_s: int, limit_s: int):
    world = await start_clocked(keep_alive_maximum_s=limit_s)
    peer = await world.open()
    await peer.send(connect(keep_alive_s=asked_s))
    assert PropertyId.SERVER_KEEP_ALIVE not in (await peer.receive()).properties
    world.advance(asked_s * 1500 - 100)
    await expect_silence(peer)
    world.advance(200)
    await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)


# --- what else it announces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"receive_maximum": 2}, {PropertyId.RECEIVE_MAXIMUM: 2}),
        ({"wildcard_subscription_available": False}, {PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE: 0}),
        ({"subscription_identifier_available": False}, {PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0}),
        ({"shared_subscription_available": False}, {PropertyId.SHARED_SUBSCRIPTION_AVAILABLE: 0}),
        ({"session_expiry_maximum_s": 10}, {PropertyId.SESSION_EXPIRY_INTERVAL: 10}),
        ({"session_expiry_maximum_s": 0xFFFFFFFF}, {}),
    ],
    ids=repr,
)
async def test_every_lowered_limit_is_announced(start: Start, limits: dict[str, Any], said: dict[int, int]):
    silent = {"receive_maximum": 65535, "topic_alias_maximum": 0, "maximum_packet_size_bytes": 1000}
    world: World = await start(**{**silent, **limits})
    peer = await world.connect("c", properties={PropertyId.SESSION_EXPIRY_INTERVAL: 500_000})
    assert peer.connack.properties == {PropertyId.MAXIMUM_PACKET_SIZE: 1000, **said}


async def test_messages_up_to_the_announced_receive_maximum_are_taken(start: Start):
    world = await start()
    peer = await world.connect("c")
    maximum = peer.connack.properties[PropertyId.RECEIVE_MAXIMUM]
    await peer.send(*[Publish("t", qos=2, packet_id=i + 1) for i in range(maximum)], PingReq())
    none = ReasonCode.NO_MATCHING_SUBSCRIBERS
    await peer.expect(*[PubRec(i + 1, none) for i in range(maximum)])
    await peer.receive()
    await peer.send(PubRel(1), publish("t", flags=2, packet_id=1))
    await peer.receive()
    await peer.expect(PubAck(1, none))
    await peer.send(Subscribe(1, [Subscription("t")]), ack(0x62, 2))
    await peer.expect(SubAck(1, [0]))
