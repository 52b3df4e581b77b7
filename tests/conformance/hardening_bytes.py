"""Packets as raw bytes, right and wrong, and what a broker says to them; for the hardening cases.

A case is a number in the project's list of bad input, faults and abuse; tests carry it in their names.
"""

from collections.abc import Sequence

import pytest

from conversations.harness import Peer, World

versions = pytest.mark.parametrize("version", [4, 5], ids=["v3.1.1", "v5"])

NORMAL_DISCONNECT = b"\xe0\x00"
ILL_FORMED_UTF8 = {
    "no start byte": b"a\xff",
    "continuation alone": b"a\x80",
    "cut short": b"\xe2\x82",
    "overlong slash": b"\xc0\xaf",
    "overlong NUL": b"\xc0\x80",
    "surrogate": b"\xed\xa0\x80",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "beyond U+10FFFF": b"\xf4\x90\x80\x80",
}


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def text(value: str | bytes) -> bytes:
    """A UTF-8 Encoded String, or bytes in its place."""
    data = value.encode() if isinstance(value, str) else value
    return u16(len(data)) + data


def varint(number: int) -> bytes:
    """A Variable Byte Integer in its shortest form."""
    data = bytearray()
    while True:
        number, byte = divmod(number, 128)
        data.append(byte | 0x80 if number else byte)
        if not number:
            return bytes(data)


def packet(first: int, *parts: bytes) -> bytes:
    """A control packet with the right Remaining Length."""
    body = b"".join(parts)
    return bytes([first]) + varint(len(body)) + body


def block(version: int, properties: bytes = b"") -> bytes:
    """A property block with its length, which only MQTT 5 has."""
    return varint(len(properties)) + properties if version == 5 else b""


def connect(
    version: int,
    client_id: str | bytes = "c",
    *,
    flags: int = 0x02,
    properties: bytes = b"",
    name: str = "MQTT",
    level: int | None = None,
    keep_alive_s: int = 0,
    tail: bytes = b"",
) -> bytes:
    """CONNECT; tail: the payload behind the client id."""
    return packet(
        0x10,
        text(name),
        bytes([version if level is None else level, flags]),
        u16(keep_alive_s),
        block(version, properties),
        text(client_id),
        tail,
    )


def publish(
    version: int,
    topic: str | bytes = "t",
    payload: bytes = b"",
    *,
    first: int = 0x30,
    packet_id: int | None = None,
    properties: bytes = b"",
) -> bytes:
    """PUBLISH; without packet_id the field is missing, so that QoS 1 and 2 need one."""
    identifier = b"" if packet_id is None else u16(packet_id)
    return packet(first, text(topic), identifier, block(version, properties), payload)


def subscribe(
    version: int,
    *pairs: tuple[str | bytes, int],
    packet_id: int = 1,
    first: int = 0x82,
    properties: bytes = b"",
) -> bytes:
    """SUBSCRIBE with pairs of Topic Filter and Subscription Options."""
    return packet(
        first, u16(packet_id), block(version, properties), *(text(name) + bytes([options]) for name, options in pairs)
    )


def unsubscribe(version: int, *filters: str | bytes, packet_id: int = 1, first: int = 0xA2) -> bytes:
    return packet(first, u16(packet_id), block(version), *(text(name) for name in filters))


async def everything_until_closed(peer: Peer) -> bytes:
    """Return what the broker sent until it closed, as bytes; it must close."""
    said = b""
    while data := await peer._read():
        said += data
    assert data is not None, f"the broker left the connection open after {said.hex(' ')}"
    return said


async def assert_says(peer: Peer, expected: bytes) -> None:
    """The broker's next bytes are these, and no more come with them."""
    said = b""
    while len(said) < len(expected) and (data := await peer._read()):
        said += data
    assert said.hex(" ") == expected.hex(" ")


async def assert_fatal(
    world: World, version: int, data: bytes | Sequence[bytes], reason_code: int, *, peer: Peer | None = None
) -> None:
    """Send bytes that end a connection: MQTT 5 says why in DISCONNECT, 3.1.1 says nothing; others go on."""
    witness = await world.connect("witness", version)
    peer = peer or await world.connect("guilty", version)
    before = world.metrics["protocol_errors"]
    await peer.send(data if isinstance(data, bytes) else b"".join(data))
    said = await everything_until_closed(peer)
    if version == 5:
        assert said[:1] == b"\xe0", said.hex(" ")
        assert said[1] == len(said) - 2, said.hex(" ")
        assert said[2] == reason_code, said.hex(" ")
    else:
        assert said == b""
    assert world.metrics["protocol_errors"] == before + 1
    await witness.expect_nothing()


async def answer_to_connect(world: World, version: int, data: bytes) -> bytes:
    """Send a CONNECT that is refused; what the broker said before it closed."""
    peer = await world.open(version)
    await peer.send(data)
    said = await everything_until_closed(peer)
    assert world.metrics["sessions"] == 0
    return said


def assert_refused(said: bytes, version: int, reason_code: int) -> None:
    """The bytes are one CONNACK with this code: a reason code of MQTT 5, a return code of 3.1.1; no session."""
    assert said[:1] == b"\x20", said.hex(" ")
    assert said[1] == len(said) - 2, said.hex(" ")
    assert said[2:4] == bytes([0, reason_code]), said.hex(" ")
    if version < 5:
        assert len(said) == 4
