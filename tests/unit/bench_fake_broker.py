"""A broker that forwards at will: tests say what becomes of each PUBLISH. In a thread, on a loopback port."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# Number of a PUBLISH since the start, and the packet as a subscriber gets it (QoS 0 form) → packets to send instead.
Forward = Callable[[int, bytes], list[bytes]]


def faithfully(_number: int, packet: bytes) -> list[bytes]:
    return [packet]


@dataclass
class FakeBroker:
    """What it answers, and what it saw. qos: of what it forwards; None: as published."""

    forward: Forward = faithfully
    version: int = 4
    connack: bytes = b"\x20\x02\x00\x00"
    granted: int = 0
    qos: int | None = None
    closes_at: int = 1 << 60  # number of the PUBLISH at which it hangs up
    is_silent: bool = False  # takes PUBLISHes and does nothing
    answers_publish: bool = True  # with PUBACK or PUBREC
    packets: Counter[int] = field(default_factory=Counter)  # by packet type
    unacknowledged: set[tuple[int, int]] = field(default_factory=set)  # (connection, packet id) of publishers
    most_unacknowledged: int = 0
    published: int = 0
    port: int = 0
    _subscribers: dict[str, list[asyncio.StreamWriter]] = field(default_factory=dict)
    _packet_id: int = 0

    @contextmanager
    def running(self) -> Iterator["FakeBroker"]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), loop)
            server = starting.result(100)
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self._stop(server), loop).result(100)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(100)
            loop.close()

    async def _stop(self, server: asyncio.Server) -> None:
        server.close()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        if serving:  # each ends when it has read everything its client sent
            _, late = await asyncio.wait(serving, timeout=60)
            assert not late

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first = (await reader.readexactly(1))[0]
                size = shift = 0
                while True:
                    digit = (await reader.readexactly(1))[0]
                    size |= (digit & 0x7F) << shift
                    shift += 7
                    if digit < 0x80:
                        break
                self._on_packet(first, await reader.readexactly(size), writer)
                if self.published >= self.closes_at:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _on_packet(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        kind = first >> 4
        self.packets[kind] += 1
        if kind == 1:
            writer.write(self.connack)
        elif kind == 8:
            self._on_subscribe(body, writer)
        elif kind == 3:
            self._on_publish(first, body, writer)
        elif kind == 12:
            writer.write(b"\xd0\x00")
        elif kind == 5:  # of a subscriber
            writer.write(b"\x62\x02" + body[:2])
        elif kind == 6:  # of a publisher
            self.unacknowledged.discard((id(writer), int.from_bytes(body[:2], "big")))
            writer.write(b"\x70\x02" + body[:2])

    def _on_subscribe(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        at = 3 if self.version == 5 else 2
        codes = b""
        while at < len(body):
            size = int.from_bytes(body[at : at + 2], "big")
            self._subscribers.setdefault(body[at + 2 : at + 2 + size].decode(), []).append(writer)
            codes += bytes([self.granted])
            at += size + 3
        head = body[:2] + (b"\x00" if self.version == 5 else b"")
        writer.write(b"\x90" + bytes([len(head + codes)]) + head + codes)

    def _on_publish(self, first: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        qos = first >> 1 & 3
        end = 2 + int.from_bytes(body[:2], "big")
        number, self.published = self.published, self.published + 1
        rest = body[end + 2 :] if qos else body[end:]
        if self.is_silent:
            return
        if qos:
            packet_id = body[end : end + 2]
            self.unacknowledged.add((id(writer), int.from_bytes(packet_id, "big")))
            self.most_unacknowledged = max(self.most_unacknowledged, len(self.unacknowledged))
            if self.answers_publish:
                writer.write((b"\x40" if qos == 1 else b"\x50") + b"\x02" + packet_id)
            if qos == 1:
                self.unacknowledged.discard((id(writer), int.from_bytes(packet_id, "big")))
        sent_qos = qos if self.qos is None else self.qos
        for payload in self.forward(number, rest):
            for subscriber in self._subscribers.get(body[2:end].decode(), []):
                self._packet_id = self._packet_id % 65535 + 1
                packet_id = self._packet_id.to_bytes(2, "big") if sent_qos else b""
                out = body[:end] + packet_id + payload
                assert len(out) < 128 * 128
                size = bytes([len(out)]) if len(out) < 128 else bytes([len(out) & 0x7F | 0x80, len(out) >> 7])
                subscriber.write(bytes([0x30 | sent_qos << 1]) + size + out)
