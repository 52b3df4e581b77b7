"""Every packet type in every state of a connection."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import Auth, Connect
from mqttcore.constants import PacketType, PropertyId, ReasonCode
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.identity import Challenge

from .authentication import ACCEPT, answering
from .peers import expect_bytes, read_until_closed

METHOD = {PropertyId.AUTHENTICATION_METHOD: "riddle"}
PING, PONG = b"\xc0\x00", b"\xd0\x00"
MALFORMED, ERROR = ReasonCode.MALFORMED_PACKET, ReasonCode.PROTOCOL_ERROR


def packets(version: int) -> dict[str, bytes]:
    """Return one well-formed packet of each type, as a client or a server would send it."""
    none = b"\x00" if version == 5 else b""  # no properties

    def packet(first: int, body: bytes) -> bytes:
        return bytes([first, len(body)]) + body

    return {
        "reserved 0": b"\x00\x00",
        "CONNECT": Connect("a", protocol_version=version, keep_alive_s=0).encode(version),
        "CONNACK": packet(0x20, b"\x00\x00" + none),
        "PUBLISH QoS 0": packet(0x30, b"\x00\x01t" + none),
        "PUBLISH QoS 1": packet(0x32, b"\x00\x01t\x00\x01" + none),
        "PUBLISH QoS 2": packet(0x34, b"\x00\x01t\x00\x01" + none),
        "PUBACK": packet(0x40, b"\x00\x01"),
        "PUBREC": packet(0x50, b"\x00\x01"),
        "PUBREL": packet(0x62, b"\x00\x01"),
        "PUBCOMP": packet(0x70, b"\x00\x01"),
        "SUBSCRIBE": packet(0x82, b"\x00\x01" + none + b"\x00\x01t\x00"),
        "SUBACK": packet(0x90, b"\x00\x01" + none + b"\x00"),
        "UNSUBSCRIBE": packet(0xA2, b"\x00\x01" + none + b"\x00\x01t"),
        "UNSUBACK": packet(0xB0, b"\x00\x01" + none + (b"\x11" if version == 5 else b"")),
        "PINGREQ": PING,
        "PINGRESP": PONG,
        "DISCONNECT": b"\xe0\x00",
        "AUTH continue": Auth(0x18, METHOD).encode(5),
        "AUTH again": Auth(0x19, METHOD).encode(5),
        "reserved 15": b"\xf0\x00",
    }


NAMES = tuple(packets(5))
EACH = pytest.mark.parametrize("name", NAMES)
VERSIONS = pytest.mark.parametrize("version", [3, 4, 5], ids=["v3.1", "v3.1.1", "v5"])


def test_every_packet_type_is_there():
    assert {data[0] >> 4 for data in packets(5).values()} == set(range(16)) == {0, *PacketType}


@VERSIONS
@EACH
async def test_before_connect(start: Start, version: int, name: str):
    world = await start()
    peer = await world.open(version)
    data = packets(version)[name]
    if name == "CONNECT":
        await peer.send(data)
        assert (await peer.receive()).reason_code == ReasonCode.SUCCESS
        await peer.expect_nothing()
        return
    await peer.send(data + packets(version)["CONNECT"])
    assert await read_until_closed(peer) == b""
    assert world.metrics["sessions"] == 0


@VERSIONS
@EACH
async def test_after_a_refused_connect(start: Start, version: int, name: str):
    world = await start(client_id_bytes_maximum=23)
    peer = await world.open(version)
    connect = Connect("x" * 24, protocol_version=version).encode(version)
    await peer.send(connect + packets(version)[name])
    answer = await read_until_closed(peer)
    assert (answer[0], answer[3], len(answer)) == (0x20, 0x85 if version == 5 else 2, 2 + answer[1])
    assert world.metrics["sessions"] == 0


# What is answered while connected, in MQTT 5 and before; an int: closed with that reason code, None: closed without.
CONNECTED: dict[str, tuple[Any, Any]] = {
    "reserved 0": (MALFORMED, None),
    "CONNECT": (ERROR, None),
    "CONNACK": (ERROR, None),
    "PUBLISH QoS 0": (b"", b""),
    "PUBLISH QoS 1": (b"\x40\x03\x00\x01\x10", b"\x40\x02\x00\x01"),
    "PUBLISH QoS 2": (b"\x50\x03\x00\x01\x10", b"\x50\x02\x00\x01"),
    "PUBACK": (b"", b""),
    "PUBREC": (b"\x62\x03\x00\x01\x92", b"\x62\x02\x00\x01"),
    "PUBREL": (b"\x70\x03\x00\x01\x92", b"\x70\x02\x00\x01"),
    "PUBCOMP": (b"", b""),
    "SUBSCRIBE": (b"\x90\x04\x00\x01\x00\x00", b"\x90\x03\x00\x01\x00"),
    "SUBACK": (ERROR, None),
    "UNSUBSCRIBE": (b"\xb0\x04\x00\x01\x00\x11", b"\xb0\x02\x00\x01"),
    "UNSUBACK": (ERROR, None),
    "PINGREQ": (PONG, PONG),
    "PINGRESP": (ERROR, None),
    "DISCONNECT": (None, None),
    "AUTH continue": (ERROR, None),
    "AUTH again": (ERROR, None),
    "reserved 15": (ERROR, None),
}


async def check_answer(peer: Any, expected: Any) -> None:
    """Make sure of the answer to what was sent just now, and whether the connection goes on."""
    if isinstance(expected, bytes):
        await peer.send(PING)
        await expect_bytes(peer, expected + PONG)
    else:
        await peer.expect_closed(expected)


@VERSIONS
@EACH
async def test_connected(start: Start, version: int, name: str):
    world = await start()
    other = await world.connect("other", version)
    peer = await world.connect("a", version)
    await peer.send(packets(version)[name])
    await check_answer(peer, CONNECTED[name][0 if version == 5 else 1])
    await other.expect_nothing()


@VERSIONS
@EACH
async def test_after_disconnect(start: Start, version: int, name: str):
    world = await start()
    watcher = await world.connect("watcher", version)
    await watcher.subscribe("t")
    peer = await world.connect("a", version)
    await peer.send(b"\xe0\x00" + packets(version)[name])
    assert await read_until_closed(peer) == b""
    await watcher.expect_nothing()
    assert (world.metrics["sessions"], world.metrics["protocol_errors"]) == (1, 0)


@EACH
async def test_after_a_protocol_error(start: Start, name: str):
    world = await start()
    watcher = await world.connect("watcher")
    await watcher.subscribe("t")
    peer = await world.connect("a")
    await peer.send(b"\xd0\x00" + packets(5)[name])
    answer = await read_until_closed(peer)
    assert (answer[0], answer[2], len(answer)) == (0xE0, ERROR, 2 + answer[1])
    await watcher.expect_nothing()
    assert world.metrics["protocol_errors"] == 1


@EACH
async def test_while_challenged(start_clocked: Start, name: str):
    world = await start_clocked(hooks=answering(Challenge(b"?"), ACCEPT))
    peer = await world.open()
    await peer.send(Connect("a", keep_alive_s=0, properties=METHOD))
    assert isinstance(await peer.receive(), Auth)
    await peer.send(packets(5)[name])
    if name == "AUTH continue":
        assert (await peer.receive()).reason_code == ReasonCode.SUCCESS
        await peer.expect_nothing()
        return
    assert await read_until_closed(peer) == b""
    assert world.metrics["sessions"] == 0
    assert world.metrics["protocol_errors"] == (name != "DISCONNECT")


@VERSIONS
@EACH
@pytest.mark.parametrize("is_accepted", [True, False], ids=["accepted", "refused"])
async def test_while_the_answer_is_pending(start_clocked: Start, version: int, name: str, is_accepted: bool):
    asked: list[Any] = []

    def authenticate(connection: Any, connect: Any) -> object:
        asked.append(connection)
        return PENDING

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    peer = await world.open(version)
    await peer.send(Connect("a", protocol_version=version, keep_alive_s=0), packets(version)[name])
    assert await peer._read() is None  # neither answered nor closed
    if not is_accepted:
        world.engine.refuse(asked[0], ReasonCode.NOT_AUTHORIZED)
        answer = await read_until_closed(peer)
        assert (answer[0], answer[3], len(answer)) == (0x20, 0x87 if version == 5 else 5, 2 + answer[1])
        assert world.metrics["protocol_errors"] == 0
        return
    world.engine.accept(asked[0])
    assert (await peer.receive()).reason_code == ReasonCode.SUCCESS
    # It has waited, and is handled as on any connection now. What came with the CONNACK was decoded already.
    expected = CONNECTED[name][0 if version == 5 else 1]
    if isinstance(expected, bytes):
        await peer.send(PING)
        got = [await peer.receive() for _ in range(1 + (expected != b""))]
        assert [p.encode(version)[0] for p in got] == [*expected[:1], PONG[0]]
    else:
        await peer.expect_closed(expected)


@EACH
async def test_while_reauthenticating(start_clocked: Start, name: str):
    world = await start_clocked(hooks=answering(ACCEPT, Challenge(b"?"), ACCEPT))
    peer = await world.connect("a", properties=METHOD)
    await peer.send(Auth(0x19, METHOD))
    assert (await peer.receive()).reason_code == ReasonCode.CONTINUE_AUTHENTICATION
    await peer.send(packets(5)[name])
    if name == "AUTH continue":
        await peer.expect(Auth(ReasonCode.SUCCESS, METHOD))
        await peer.expect_nothing()
    else:
        await check_answer(peer, CONNECTED[name][0])


@VERSIONS
@EACH
async def test_half_a_packet_then_the_end(start: Start, version: int, name: str):
    world = await start()
    watcher = await world.connect("watcher", version)
    await watcher.subscribe("t")
    peer = await world.connect("a", version)
    await peer.send(packets(version)[name][:-1])
    await peer.lose()
    await watcher.expect_nothing()
    assert world.metrics["sessions"] == 1
