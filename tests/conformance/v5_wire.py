"""MQTT 5 packets put together byte by byte, so that they can also be wrong, and looked at byte by byte."""

from conversations.harness import Peer, World
from mqttcore.codec import ConnAck


def varint(value: int) -> bytes:
    """Encode a Variable Byte Integer in as few bytes as it takes."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str | bytes) -> bytes:
    """Encode a string, or what shall pass for one."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def pair(name: str | bytes, value: str | bytes) -> bytes:
    """Encode a User Property."""
    return b"\x26" + text(name) + text(value)


def block(*properties: bytes) -> bytes:
    """Encode properties with their length."""
    data = b"".join(properties)
    return varint(len(data)) + data


def packet(first: int, *parts: bytes) -> bytes:
    """Encode a packet from its first byte and what follows the Remaining Length."""
    body = b"".join(parts)
    return bytes([first]) + varint(len(body)) + body


def connect(
    *payload: bytes,
    flags: int = 0x02,
    keep_alive_s: int = 0,
    properties: bytes = b"",
    name: bytes = b"MQTT",
    level: int = 5,
) -> bytes:
    """Encode CONNECT; payload: the fields behind the variable header, a Client Identifier when none is given."""
    header = text(name) + bytes([level, flags]) + keep_alive_s.to_bytes(2, "big") + block(properties)
    return packet(0x10, header, *(payload or (text("c"),)))


def publish(
    topic: str | bytes, payload: bytes = b"", *, flags: int = 0, packet_id: int = 0, properties: bytes = b""
) -> bytes:
    """Encode PUBLISH; flags: DUP 8, QoS 2 and 4, RETAIN 1. There is a packet id when the QoS bits ask for one."""
    identifier = packet_id.to_bytes(2, "big") if flags & 6 else b""
    return packet(0x30 | flags, text(topic), identifier, block(properties), payload)


def ack(first: int, packet_id: int, *rest: bytes) -> bytes:
    """Encode what starts with a packet id."""
    return packet(first, packet_id.to_bytes(2, "big"), *rest)


def subscribe(
    topic_filter: str | bytes, options: int = 0, *, packet_id: int = 1, properties: bytes = b"", first: int = 0x82
) -> bytes:
    """Encode SUBSCRIBE with one Topic Filter."""
    return ack(first, packet_id, block(properties), text(topic_filter), bytes([options]))


def unsubscribe(topic_filter: str | bytes, *, packet_id: int = 1, properties: bytes = b"", first: int = 0xA2) -> bytes:
    """Encode UNSUBSCRIBE with one Topic Filter."""
    return ack(first, packet_id, block(properties), text(topic_filter))


async def expect_bytes(peer: Peer, *expected: bytes) -> None:
    """Make sure that exactly these bytes come next; nothing of a packet may be left over from `receive`."""
    wanted = b"".join(expected)
    got = b""
    while len(got) < len(wanted):
        data = await peer._read()
        assert data, f"{got!r} came, and then nothing of {wanted[len(got) :]!r}"
        got += data
    assert got == wanted


async def expect_refused(peer: Peer, reason_code: int) -> ConnAck:
    """Make sure that a CONNECT is answered with this code and that the broker closes then."""
    answer = await peer.receive()
    assert isinstance(answer, ConnAck), answer
    assert (answer.reason_code, answer.session_present) == (reason_code, False), answer
    await peer.expect_closed()
    return answer


async def expect_silence(peer: Peer) -> None:
    """Make sure that nothing comes, without asking for anything that would; in memory only."""
    assert await peer._next() is None


# Limits with which a CONNACK says nothing but the maximum packet size, see connack().
PLAIN = {"receive_maximum": 65535, "topic_alias_maximum": 0, "maximum_packet_size_bytes": 2_000_000}


def connack(*, session_present: bool = False) -> bytes:
    """Encode the CONNACK of a server with the limits PLAIN."""
    return packet(0x20, bytes([session_present, 0]), block(b"\x27" + (2_000_000).to_bytes(4, "big")))


async def resume(world: World, client_id: str) -> Peer:
    """Connect to an existing session, for another 1000 s; the CONNACK is still to be read, as bytes."""
    peer = await world.open()
    await peer.send(connect(text(client_id), flags=0, properties=b"\x11\x00\x00\x03\xe8"))
    return peer
