"""WebSocket frames by hand, right ones and wrong ones, and a client that says exactly what it is told."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

DEADLINE_S = 60
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 §1.3 has this pair

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(
    payload: bytes = b"",
    opcode: int = BINARY,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x11\xa2\x33\xc4",
    length: bytes | None = None,
) -> bytes:
    """Return a frame. length: the second byte's low bits and what follows them, instead of the payload's real size."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 0x10000:
            length = b"\x7e" + struct.pack("!H", size)
        else:
            length = b"\x7f" + struct.pack("!Q", size)
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | length[0]]) + length[1:]
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(struct.pack("!H", code) + reason.encode(), CLOSE)


# What is said after the upgrade -> the code with which the connection is closed (RFC 6455 §7.4.1).
BROKEN_FRAMING = {
    "text frame": (frame(b"\x10\x00", TEXT), 1003),
    "text frame that is empty": (frame(b"", TEXT), 1003),
    "unmasked": (frame(b"\x10\x00", mask=None), 1002),
    "reserved bit 1": (frame(b"\x10\x00", rsv=4), 1002),
    "reserved bit 2": (frame(b"\x10\x00", rsv=2), 1002),
    "reserved bit 3": (frame(b"\x10\x00", rsv=1), 1002),
    "reserved data opcode": (frame(b"\x10\x00", 3), 1002),
    "reserved control opcode": (frame(b"", 11), 1002),
    "long ping": (frame(b"x" * 126, PING), 1002),
    "fragmented ping": (frame(b"x", PING, fin=False), 1002),
    "continuation of nothing": (frame(b"\x10\x00", CONTINUATION), 1002),
    "message within a message": (frame(b"\x10", fin=False) + frame(b"\x00"), 1002),
    "length not minimal, 16 bits": (frame(b"\x10\x00", length=b"\x7e\x00\x05"), 1002),
    "length not minimal, 64 bits": (frame(b"\x10\x00", length=b"\x7f" + struct.pack("!Q", 5)), 1002),
    "length with the top bit": (frame(b"", length=b"\x7f" + b"\xff" * 8), 1002),
    "length lie, 64 bits": (frame(b"", length=b"\x7f\x7f" + b"\xff" * 7), 1009),
    "length over the maximum": (frame(b"", length=b"\x7f" + struct.pack("!Q", 16_777_217)), 1009),
    "close with half a code": (frame(b"\x03", CLOSE), 1002),
    "close with a code of no frame": (close_frame(1005), 1002),
    "close with an unknown code": (close_frame(999), 1002),
    "close with a reason that is not UTF-8": (frame(b"\x03\xe8\xff\xfe", CLOSE), 1007),
}


def upgrade_request(
    path: str = "/mqtt", *, protocols: str | None = "mqtt", leave_out: str = "", **headers: str
) -> bytes:
    """Return a request to upgrade. headers: more, or others; `_` stands for `-`. leave_out: one not to be sent."""
    said = {
        "host": "localhost",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
    }
    if protocols is not None:
        said["sec-websocket-protocol"] = protocols
    said |= {name.replace("_", "-").lower(): value for name, value in headers.items()}
    said.pop(leave_out, None)
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass
class Answer:
    """An HTTP answer without its body."""

    status: int
    headers: dict[str, str]


@dataclass
class Frame:
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big")


class RawWebSocket:
    """A client without manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, host: str, port: int) -> RawWebSocket:
        """Open a connection and say nothing."""
        return cls(*await asyncio.open_connection(host, port))

    @classmethod
    async def open(cls, host: str, port: int, **request: str) -> RawWebSocket:
        """Open a connection and upgrade it."""
        client = await cls.connect(host, port)
        await client.send(upgrade_request(**request))
        answer = await client.answer()
        assert answer.status == 101, answer
        return client

    async def send(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), DEADLINE_S)

    async def answer(self) -> Answer:
        """Return the next HTTP answer's status and headers, whose names are in lower case."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        first, *lines = head.decode().split("\r\n")[:-2]
        fields = (line.partition(":") for line in lines)
        return Answer(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields})

    async def frame(self) -> Frame | None:
        """Return the next frame; None when the broker closed. A server's frames are whole and unmasked."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                first, second = await self.reader.readexactly(2)
                assert first & 0xF0 == 0x80
                assert not second & 0x80
                size = second
                if size >= 126:
                    size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
                return Frame(first & 0x0F, await self.reader.readexactly(size))
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                return None
            except ConnectionResetError:
                return None

    async def end(self) -> list[Frame]:
        """Return all frames until the broker closes the connection."""
        frames = []
        while (one := await self.frame()) is not None:
            frames.append(one)
        return frames

    async def close(self) -> None:
        """Cut the connection."""
        self.writer.transport.abort()

    async def __aenter__(self) -> RawWebSocket:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
