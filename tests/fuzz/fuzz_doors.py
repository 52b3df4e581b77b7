"""Fuzz what stands between a socket and MQTT: WebSocket frames, PROXY headers, TLS records.

    python tests/fuzz/fuzz_doors.py --seconds 600 [--seed N]

A round has clients of each door, which say what is valid, mutated or rubbish, cut at random. What must hold: nothing
raises and nothing is logged as our error; whatever is written can be read; where it is cut does not matter; what one
TLS session leaves in the shared pipes never reaches another; who broke a door's rules is sent away, and when a client
has gone nothing is left of it. A finding prints the seed of its round, and `--seed N --rounds 1` repeats it.
"""

from __future__ import annotations

import functools
import itertools
import random
import ssl
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from certificates import Authority
from fuzz.fuzz_feed import Dice
from fuzz.rounds import Finding, fuzz_rounds, run_command
from mqttcore import Limits, Listener
from mqttcore.codec import Connect, Decoder
from mqttcore.config import Tls
from mqttcore.engine.engine import Engine
from mqttcore.errors import ProtocolError
from mqttcore.net.channel import TlsPipes
from mqttcore.net.listeners import BoundListener
from mqttcore.net.proxy_header import BadHeader, parse_header
from mqttcore.net.stream import StreamConnection, WebSocketStream
from mqttcore.net.tls import ServerTls
from websocket_wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
UPGRADED = b"HTTP!"
UNREAD_MAXIMUM = 1 << 20
LIMITS = Limits(maximum_packet_size_bytes=5000, output_high_water_bytes=2048, connect_packet_bytes_maximum=2000)


class Transport:
    """An asyncio transport whose other end is the fuzzer."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes) -> None:
        if self.is_closed:
            raise Finding("written to a transport that is closed")
        self.written += data

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Whatever is asked: reads come from the fuzzer."""

    resume_reading = pause_reading


class Door:
    """An engine with one connection, made by *make* from engine and listener."""

    def __init__(self, listener: BoundListener, make: Callable[[Engine, BoundListener], StreamConnection]) -> None:
        self.engine = Engine(LIMITS, now_ms=1)
        self.listener = listener
        self.transport = Transport()
        self.connection = make(self.engine, listener)
        self.connection.connection_made(self.transport)
        self.engine.flush()

    def feed(self, data: bytes) -> None:
        """Hand over what was received, as asyncio does: not after the end."""
        if not self.transport.is_closed:
            self.connection.data_received(data)
            self.engine.flush()

    def end(self) -> None:
        """Lose the connection; raises Finding when something stays."""
        self.connection.connection_lost()
        left = {
            "connections": self.engine.metrics()["connections"],
            "counted": self.listener.connections,
            "handshaking": len(self.listener.handshaking),
        }
        if any(left.values()):
            raise Finding(f"left after the end: {left}")
        self.engine.close()


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """Return *data* cut at random."""
    edges = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 1, 3, 20))))
    return [data[begin:end] for begin, end in itertools.pairwise([0, *edges, len(data)]) if end > begin]


# --- WebSocket --------------------------------------------------------------------------------------------------------


def frames(rng: random.Random, dice: Dice) -> bytes:
    """Return frames of a client, most of them valid, that hold a stream of packets or rubbish."""
    stream = Connect("c").encode(5) + b"".join(dice.packet(5).encode(5) for _ in range(rng.randrange(6)))
    if rng.random() < 0.2:
        stream = dice.mutated(stream)
    said, is_first, at = b"", True, 0
    while at < len(stream):
        end = min(len(stream), at + rng.choice((0, 1, 3, 50, 125, 126, 1000, 70_000)))
        fin = rng.random() < 0.6
        one = frame(
            stream[at:end],
            BINARY if is_first else CONTINUATION,
            fin=fin,
            mask=rng.randbytes(4) if rng.random() < 0.99 else None,
            rsv=0 if rng.random() < 0.99 else rng.randrange(8),
        )
        at, is_first = end, fin
        if rng.random() < 0.1:
            one += frame(rng.randbytes(rng.randrange(126)), rng.choice((PING, PING, PONG)))
        if rng.random() < 0.03:
            one += rng.choice(
                (
                    frame(b"x", TEXT),
                    frame(b"x" * rng.randrange(200), rng.randrange(16)),
                    frame(b"", length=b"\x7f" + struct.pack("!Q", rng.getrandbits(rng.choice((8, 32, 63, 64))))),
                    frame(b"", length=b"\x7e" + rng.randbytes(2)),
                    close_frame(rng.choice((999, 1000, 1005, 3000, rng.randrange(65536)))),
                    frame(rng.randbytes(rng.randrange(126)), CLOSE),
                )
            )
        said += one if rng.random() < 0.97 else dice.mutated(one)
    return said


def read_frames(written: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return the bytes in binary frames, and the other frames; raises Finding for what is no frame of a server."""
    rest, stream, others = written, b"", []
    while rest:
        size, at = rest[1] & 0x7F, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(rest[2:at], "big")
        if rest[0] & 0x70 or rest[1] & 0x80 or len(rest) < at + size or rest[0] & 0x0F not in (BINARY, PONG, CLOSE):
            raise Finding(f"no frame of a server: {rest[:20].hex()}")
        if others and others[-1][0] == CLOSE:
            raise Finding("a frame behind Close")
        if rest[0] & 0x0F == BINARY:
            stream += rest[at : at + size]
        else:
            others.append((rest[0] & 0x0F, rest[at : at + size]))
        rest = rest[at + size :]
    return stream, others


def is_closed_by(parts: list[bytes]) -> bool:
    """Say whether a client that sends *parts* is closed; raises Finding for what it hears."""
    door = Door(
        BoundListener("fuzz", True, 0, 1, 1),
        lambda engine, listener: WebSocketStream(
            engine, listener, upgraded=UPGRADED, message_bytes_maximum=100_000, pings_per_s_maximum=20
        ),
    )
    for part in parts:
        door.feed(part)
    if not door.transport.written.startswith(UPGRADED):
        raise Finding("the answer to the upgrade is not first")
    stream, others = read_frames(bytes(door.transport.written[len(UPGRADED) :]))
    if door.connection.client_id is not None and door.connection.version:
        try:
            Decoder(door.connection.version, sender="server").feed(stream)
        except ProtocolError as error:
            raise Finding(f"what cannot be read: {error}: {stream[:200].hex()}") from error
    is_closed = door.transport.is_closed
    if is_closed and (not others or others[-1][0] != CLOSE):
        raise Finding("ended without Close")
    door.end()
    return is_closed


def fuzz_websocket(rng: random.Random) -> None:
    """Say the same frames, whole and cut; raises Finding."""
    said = frames(rng, Dice(rng)) if rng.random() < 0.95 else rng.randbytes(rng.randrange(200))
    if is_closed_by([said]) != is_closed_by(pieces(rng, said)):
        raise Finding(f"the cut matters: {said.hex()}")


# --- PROXY ------------------------------------------------------------------------------------------------------------


def tlv(rng: random.Random, depth: int = 0) -> bytes:
    kind = rng.choice((1, 2, 3, 4, 5, 0x20, 0x21, 0x22, 0x23, 0x30, rng.randrange(256)))
    value = rng.randbytes(rng.choice((0, 1, 4, 20, 200)))
    if kind == 0x20 and depth == 0:
        value = bytes([rng.randrange(8)]) + rng.choice((bytes(4), rng.randbytes(4)))
        value += b"".join(tlv(rng, 1) for _ in range(rng.randrange(4)))
    elif rng.random() < 0.5:
        value = rng.choice((b"mqtt", b"a.example", "ü".encode(), b"\n"))
    size = len(value) if rng.random() < 0.97 else rng.randrange(65536)
    return struct.pack("!BH", kind, size) + value


def header(rng: random.Random) -> bytes:
    """Return a PROXY header, valid most of the time."""
    if rng.random() < 0.4:
        host = ("192.0.2.7", "::1", "2001:db8::7", "::ffff:1.2.3.4", "1.2.3", "x", "")
        words = [
            rng.choice(("TCP4", "TCP6", "UNKNOWN", "UDP4")),
            *(rng.choice(host) for _ in range(2)),
            *(rng.choice(("1", "65535", "65536", "01", "-1", "0")) for _ in range(2)),
        ]
        return f"PROXY {' '.join(words[: rng.choice((1, 5, 5, 5, 6))])}".encode() + rng.choice((b"\r\n", b"\n", b""))
    family = rng.choice((0x00, 0x11, 0x11, 0x21, 0x31, 0x12, rng.randrange(256)))
    body = rng.randbytes({1: 12, 2: 36, 3: 216}.get(family >> 4, 0)) + b"".join(
        tlv(rng) for _ in range(rng.randrange(5))
    )
    size = len(body) if rng.random() < 0.95 else rng.randrange(65536)
    return SIGNATURE + struct.pack("!BBH", rng.choice((0x21, 0x21, 0x20, rng.randrange(256))), family, size) + body


def verdict(data: bytes, version: str) -> Any:
    try:
        return parse_header(data, version)
    except BadHeader:
        return BadHeader


def check_header(said: bytes, version: str) -> Any:
    """Parse *said* byte by byte; return what comes of all of it, raises Finding when that came too early or changes."""
    found = verdict(said, version)
    if not isinstance(found, type) and found is not None and not 0 < found[0] <= len(said):
        raise Finding(f"used {found[0]} of {said.hex()}")
    end = found[0] if isinstance(found, tuple) else len(said)
    before = [verdict(said[:at], version) for at in range(1, end)]
    if any(isinstance(one, tuple) for one in before):
        raise Finding(f"complete before its end: {said.hex()}")
    if BadHeader in before and (
        found is not BadHeader or any(one is None for one in before[before.index(BadHeader) :])
    ):
        raise Finding(f"refused, then taken: {said.hex()}")
    return found


def fuzz_proxy(rng: random.Random) -> None:
    """Parse a header, then say it to a listener; raises Finding."""
    said = header(rng)
    if rng.random() < 0.3:
        said = Dice(rng).mutated(said)
    version = rng.choice(("any", "v1", "v2"))
    found = check_header(said, version)
    listener = BoundListener("fuzz", True, 0, 1, 1)
    listener.configure(Listener(proxy_protocol=version, proxy_trusted=["127.0.0.1"]), None)
    door = Door(listener, lambda engine, listener: StreamConnection(engine, listener, pipes=TlsPipes()))
    if isinstance(found, tuple):
        said = said[: found[0]] + Connect("c").encode(5)
    for part in pieces(rng, said):
        door.feed(part)
    source = found[1].source if isinstance(found, tuple) else None
    if source is not None and door.connection.peer != source:
        raise Finding(f"{door.connection.peer} is not {source}: {said.hex()}")
    if found is BadHeader and not door.transport.is_closed:
        raise Finding(f"a bad header is kept: {said.hex()}")
    if isinstance(found, tuple) and door.connection.client_id != "c":
        raise Finding(f"no CONNECT behind {said.hex()}")
    door.end()


# --- TLS --------------------------------------------------------------------------------------------------------------


@functools.cache
def server_tls() -> tuple[ServerTls, ssl.SSLContext]:
    """Return TLS of a listener, and a context of its clients."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        own = authority.server("localhost")
        tls = ServerTls(Tls(certificate_file=str(own.certificate), key_file=str(own.key)), "fuzz")
        client = ssl.create_default_context(cafile=str(authority.file))
    client.check_hostname = False
    return tls, client


class TlsClient:
    """A client of a door with TLS whose records can be spoilt on their way."""

    def __init__(self, pipes: TlsPipes) -> None:
        tls, context = server_tls()
        listener = BoundListener("fuzz", True, 0, 1, 1)
        listener.configure(Listener(tls=tls.settings), tls)
        self.door = Door(listener, lambda engine, listener: StreamConnection(engine, listener, pipes=pipes))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing)
        self.heard = b""

    def turn(self, said: bytes) -> bytes:
        """Do what can be done; return the ciphertext that is to be sent."""
        self.incoming.write(bytes(self.door.transport.written))
        self.door.transport.written.clear()
        try:
            self.session.do_handshake()
            if said:
                self.session.write(said)
            while data := self.session.read(65536):
                self.heard += data
        except ssl.SSLError:
            pass
        return self.outgoing.read()


def fuzz_tls(rng: random.Random) -> None:
    """Let two clients take turns; one of them is spoilt, the other must notice nothing; raises Finding."""
    pipes = TlsPipes()
    bad, good = TlsClient(pipes), TlsClient(pipes)
    dice = Dice(rng)
    for step in range(8):
        for client in (bad, good):
            said = b""
            if step == 3:
                said = Connect("c").encode(5)
            elif step > 3:
                said = b"\xc0\x00"
            sent = client.turn(said)
            if client is bad and sent and rng.random() < 0.3:
                sent = dice.mutated(sent) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200))
            for part in pieces(rng, sent):
                client.door.feed(part)
                if not pipes.is_empty:
                    raise Finding("something lies between two connections")
    good.turn(b"")
    packets = list(Decoder(5, sender="server").feed(good.heard))
    if [type(one).__name__ for one in packets] != ["ConnAck", *["PingResp"] * 4]:
        raise Finding(f"the good client heard {packets}")
    if bad.door.connection.is_closed and not bad.door.transport.is_closed:
        raise Finding("a connection that is over is kept open")
    bad.door.end()
    good.door.end()


# ----------------------------------------------------------------------------------------------------------------------

DOORS = {"websocket": (fuzz_websocket, 20), "proxy": (fuzz_proxy, 40), "tls": (fuzz_tls, 1)}


def fuzz(seed: int, seconds: float, rounds: int | None = None) -> int:
    """Play rounds from *seed* on until *seconds* are over; the number played. Raises Finding, with the seed in it."""
    return fuzz_rounds(DOORS, seed, seconds, rounds)


if __name__ == "__main__":
    run_command(__doc__.partition("\n")[0], fuzz)
