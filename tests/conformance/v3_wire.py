"""MQTT 3.1 and 3.1.1 packets put together byte by byte, so that they can also be wrong, and read byte by byte."""

from __future__ import annotations

from conversations.harness import Peer, World

ACCEPTED = b"\x20\x02\x00\x00"
RESUMED = b"\x20\x02\x01\x00"
PINGREQ = b"\xc0\x00"
PINGRESP = b"\xd0\x00"
DISCONNECT = b"\xe0\x00"

# bits of PUBLISH's first byte
DUP, QOS1, QOS2, RETAIN = 8, 2, 4, 1
# bits of CONNECT's flags
USER_NAME, PASSWORD, WILL_RETAIN, WILL_QOS1, WILL_QOS2, WILL, CLEAN = 0x80, 0x40, 0x20, 0x08, 0x10, 0x04, 0x02

# encodings that UTF-8 does not have
ILL_FORMED = {
    "high surrogate": b"a\xed\xa0\x80",
    "low surrogate": b"a\xed\xbf\xbf",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "overlong slash": b"\xe0\x80\xaf",
    "overlong NUL": b"\xc0\x80",
    "lone continuation": b"a\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "cut short": b"a\xe2\x82",
    "0xFF": b"\xff",
}
WITH_NULL = {"only": b"\x00", "inside": b"a\x00b", "at the end": b"topic/level\x00"}


def text(value: str | bytes) -> bytes:
    """Encode a string, or what shall pass for one."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def packet(first: int, *parts: bytes) -> bytes:
    """Encode a packet from its first byte and what follows the Remaining Length."""
    body = b"".join(parts)
    length = bytearray()
    size = len(body)
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | 0x80 if size else digit)
        if not size:
            return bytes([first]) + bytes(length) + body


def connect(
    *payload: str | bytes,
    flags: int = CLEAN,
    keep_alive_s: int = 0,
    name: bytes = b"MQTT",
    level: int = 4,
    rest: bytes = b"",
) -> bytes:
    """Encode CONNECT; payload: its length-prefixed fields in their order, rest: bytes behind them."""
    header = text(name) + bytes([level, flags]) + keep_alive_s.to_bytes(2, "big")
    return packet(0x10, header, *(text(field) for field in payload), rest)


def publish(topic: str | bytes, payload: bytes = b"", *, flags: int = 0, packet_id: int = 0) -> bytes:
    """Encode PUBLISH; it has a packet id when the flags ask for QoS 1, 2 or 3."""
    return packet(0x30 | flags, text(topic), packet_id.to_bytes(2, "big") if flags & 6 else b"", payload)


def ack(first: int, packet_id: int) -> bytes:
    """Encode PUBACK and its like."""
    return packet(first, packet_id.to_bytes(2, "big"))


def puback(packet_id: int) -> bytes:
    return ack(0x40, packet_id)


def pubrec(packet_id: int) -> bytes:
    return ack(0x50, packet_id)


def pubrel(packet_id: int) -> bytes:
    return ack(0x62, packet_id)


def pubcomp(packet_id: int) -> bytes:
    return ack(0x70, packet_id)


def subscribe(packet_id: int, *wanted: tuple[str | bytes, int], first: int = 0x82) -> bytes:
    """Encode SUBSCRIBE; wanted: Topic Filters with their Requested QoS byte."""
    return packet(first, packet_id.to_bytes(2, "big"), *(text(name) + bytes([qos]) for name, qos in wanted))


def suback(packet_id: int, *codes: int) -> bytes:
    return packet(0x90, packet_id.to_bytes(2, "big"), bytes(codes))


def unsubscribe(packet_id: int, *filters: str | bytes, first: int = 0xA2) -> bytes:
    return packet(first, packet_id.to_bytes(2, "big"), *(text(name) for name in filters))


def unsuback(packet_id: int) -> bytes:
    return ack(0xB0, packet_id)


def packet_id_of(packet: bytes) -> int:
    """Return the packet id of a short PUBLISH with QoS 1 or 2."""
    at = 4 + int.from_bytes(packet[2:4], "big")
    return int.from_bytes(packet[at : at + 2], "big")


class Wire:
    """A client's end of a network connection as the bytes that pass."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._arrived = b""

    async def send(self, *packets: bytes) -> None:
        """Send bytes in one write."""
        await self.peer.send(*packets)

    async def lose(self) -> None:
        """Cut the network connection without DISCONNECT."""
        await self.peer.lose()

    async def receive_bytes(self, size: int) -> bytes:
        """Return the next *size* bytes."""
        while len(self._arrived) < size:
            data = await self.peer._read()
            assert data, f"{self._arrived!r} came, and not {size} bytes"
            self._arrived += data
        got, self._arrived = self._arrived[:size], self._arrived[size:]
        return got

    async def expect(self, *packets: bytes) -> None:
        """Make sure that exactly these bytes come next."""
        wanted = b"".join(packets)
        assert await self.receive_bytes(len(wanted)) == wanted

    async def receive(self) -> bytes:
        """Return the next packet, shorter than 130 bytes."""
        head = await self.receive_bytes(2)
        assert head[1] < 0x80
        return head + await self.receive_bytes(head[1])

    async def expect_nothing(self) -> None:
        """Make sure that the broker has nothing for us: the answer to a PINGREQ comes next."""
        await self.send(PINGREQ)
        await self.expect(PINGRESP)

    async def expect_closed(self) -> None:
        """Make sure that the broker closes now, without sending another byte."""
        assert self._arrived == b""
        assert await self.peer._read() == b""

    async def subscribe(self, *wanted: tuple[str | bytes, int]) -> None:
        """Subscribe and see everything granted."""
        await self.send(subscribe(0x5555, *wanted))
        await self.expect(suback(0x5555, *(qos for _, qos in wanted)))

    async def publish(self, topic: str | bytes, payload: bytes = b"", *, flags: int = 0) -> None:
        """Publish and go through the acknowledgements; at QoS 0 until the broker has handled it."""
        packet_id = 0x7777
        await self.send(publish(topic, payload, flags=flags, packet_id=packet_id))
        if flags & QOS1:
            await self.expect(puback(packet_id))
        elif flags & QOS2:
            await self.expect(pubrec(packet_id))
            await self.send(pubrel(packet_id))
            await self.expect(pubcomp(packet_id))
        else:
            await self.expect_nothing()

    async def disconnect(self) -> None:
        """Send DISCONNECT and wait until the broker closed."""
        await self.send(DISCONNECT)
        await self.expect_closed()


async def dial(world: World, version: int = 4) -> Wire:
    """Return a fresh network connection."""
    return Wire(await world.open(version))


async def client(world: World, client_id: str, *payload: str | bytes, answer: bytes = ACCEPTED, **fields: int) -> Wire:
    """Return a connected client of 3.1.1; fields: as of `connect`."""
    wire = await dial(world)
    await wire.send(connect(client_id, *payload, **fields))
    await wire.expect(answer)
    return wire
