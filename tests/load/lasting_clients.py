"""QoS 2 clients with persistent sessions that lose their connections and resume them, as [MQTT-4.4.0-1] asks."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import defaultdict
from collections.abc import Callable

from load import wire

WINDOW = 8  # messages a publisher has under way


class Cuts:
    """How many connections are still to be cut, by whom ever draws first."""

    def __init__(self, total: int, seed: int) -> None:
        self.left = total
        self.random = random.Random(seed)
        self.done = asyncio.Event()

    def draw(self, packets: int) -> int:
        """Return after how many received packets the next connection dies; 0: it lives."""
        return self.random.randint(1, packets) if self.left else 0

    def spend(self) -> None:
        if self.left:
            self.left -= 1
        if not self.left:
            self.done.set()


class LastingClient(asyncio.Protocol):
    """One client id and its session state. The connection dies after a random number of packets and is opened anew."""

    def __init__(self, client_id: str, cuts: Cuts, packets_per_cut: int) -> None:
        self.client_id = client_id
        self.cuts = cuts
        self.packets_per_cut = packets_per_cut
        self.packets_left = 0
        self.transport: asyncio.Transport | None = None
        self.had_session = False
        self.is_ready = False
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.address: tuple[str, int] = ("", 0)
        self.reconnecting: asyncio.Task[None] | None = None

    async def run(self, address: tuple[str, int]) -> None:
        """Work until finished; raise what went wrong."""
        self.address = address
        await self._open()
        await asyncio.wait({self.finished, self.failure}, return_when=asyncio.FIRST_COMPLETED)
        if self.reconnecting is not None:
            await self.reconnecting
        if self.transport is not None:
            self.transport.write(wire.disconnect())
            self.transport.close()
        if self.failure.done():
            self.failure.result()

    async def _open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, *self.address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.splitter = wire.Splitter()
        self.is_ready = False
        self.packets_left = self.cuts.draw(self.packets_per_cut)
        transport.write(wire.connect(self.client_id, clean_session=False))

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.is_ready = False
        if self.finished.done() or self.failure.done():
            return
        self.reconnecting = asyncio.get_running_loop().create_task(self._open())
        self.reconnecting.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)

    def finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            for first, body in self.splitter.feed(data):
                self._on_packet(first, body)
                if self.packets_left:
                    self.packets_left -= 1
                    if not self.packets_left:
                        self._cut()
                        return
        except Exception as error:
            self.fail(error)

    def _cut(self) -> None:
        assert self.transport is not None
        self.cuts.spend()
        self.is_ready = False
        if self.cuts.random.random() < 0.5:  # half of them in the middle of a packet
            self.transport.write(self.torn_packet())
            self.transport.close()
        else:
            self.transport.abort()

    def _on_packet(self, first: int, body: bytes) -> None:
        if first >> 4 != wire.CONNACK:
            self.on_packet(first, body)
            return
        assert body[1] == 0, f"{self.client_id}: CONNACK {body[1]}"
        # a session that the broker has forgotten would look like lost messages
        assert bool(body[0]) == self.had_session, f"{self.client_id}: Session Present is {body[0]}"
        self.had_session = True
        self.is_ready = True
        self.resume()

    def send(self, packet: bytes) -> None:
        if self.is_ready and self.transport is not None:
            self.transport.write(packet)

    def on_packet(self, first: int, body: bytes) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def torn_packet(self) -> bytes:
        raise NotImplementedError


class Publisher(LastingClient):
    """Publishes 0, 1, 2, … to its topic, at least `quota` messages and as long as cuts are left."""

    def __init__(self, client_id: str, cuts: Cuts, packets_per_cut: int, topic: str, quota: int) -> None:
        super().__init__(client_id, cuts, packets_per_cut)
        self.topic = topic
        self.quota = quota
        self.sent = 0
        # packet id -> payload of a PUBLISH, or None once PUBREC came and PUBREL is on its way; in the order of sending
        self.in_flight: dict[int, bytes | None] = {}

    def resume(self) -> None:
        for packet_id, payload in self.in_flight.items():  # [MQTT-4.6.0-1] in the original order
            if payload is None:
                self.send(wire.acknowledge(wire.PUBREL, packet_id))
            else:
                self.send(wire.publish(packet_id, self.topic, payload, 2, dup=True))
        self.publish_more()

    def publish_more(self) -> None:
        while self.is_ready and len(self.in_flight) < WINDOW and (self.sent < self.quota or self.cuts.left):
            packet_id = self.sent % 65535 + 1
            payload = struct.pack("!Q", self.sent)
            self.in_flight[packet_id] = payload
            self.sent += 1
            self.send(wire.publish(packet_id, self.topic, payload, 2))
        if not self.in_flight and self.sent >= self.quota and not self.cuts.left:
            self.finish()

    def on_packet(self, first: int, body: bytes) -> None:
        packet_id = wire.packet_id_of(body)
        if first >> 4 == wire.PUBREC:
            assert packet_id in self.in_flight
            self.in_flight[packet_id] = None
            self.send(wire.acknowledge(wire.PUBREL, packet_id))
        elif first >> 4 == wire.PUBCOMP:
            self.in_flight.pop(packet_id, None)  # a resent PUBREL is answered twice
            self.publish_more()
        else:
            raise AssertionError(f"{self.client_id}: packet {first:#x}")

    def torn_packet(self) -> bytes:
        packet = wire.publish(1, self.topic, b"torn" * 4, 2)
        return packet[: self.cuts.random.randrange(1, len(packet))]


class Subscriber(LastingClient):
    """Receives at QoS 2 exactly once; received: the numbers per topic, as they came."""

    def __init__(self, client_id: str, cuts: Cuts, packets_per_cut: int, topic_filter: str) -> None:
        super().__init__(client_id, cuts, packets_per_cut)
        self.topic_filter = topic_filter
        self.subscribed = asyncio.Event()
        self.unreleased: set[int] = set()
        self.received: defaultdict[str, list[int]] = defaultdict(list)
        self.count = 0
        self.on_message: Callable[[], None] = lambda: None

    def resume(self) -> None:
        if not self.subscribed.is_set():
            self.send(wire.subscribe(1, self.topic_filter, 2))

    def on_packet(self, first: int, body: bytes) -> None:
        match first >> 4:
            case wire.PUBLISH:
                topic, packet_id, payload = wire.parse_publish(first, body)
                assert first & 0x06 == 0x04, f"{self.client_id}: PUBLISH with flags {first & 15:#x}"
                if packet_id not in self.unreleased:  # [MQTT-4.3.3-10] later copies are the same message
                    self.unreleased.add(packet_id)
                    self.received[topic].append(struct.unpack("!Q", payload)[0])
                    self.count += 1
                    self.on_message()
                self.send(wire.acknowledge(wire.PUBREC, packet_id))
            case wire.PUBREL:
                packet_id = wire.packet_id_of(body)
                self.unreleased.discard(packet_id)
                self.send(wire.acknowledge(wire.PUBCOMP, packet_id))
                self.on_message()
            case wire.SUBACK:
                assert body[2] == 2, f"{self.client_id}: SUBACK {body[2]:#x}"
                self.subscribed.set()
            case _:
                raise AssertionError(f"{self.client_id}: packet {first:#x}")

    def torn_packet(self) -> bytes:
        return wire.acknowledge(wire.PUBREC, 1)[: self.cuts.random.randrange(1, 4)]


async def forget_session(client_id: str, address: tuple[str, int]) -> None:
    """Connect once with Clean Session, which ends the session, and disconnect."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(wire.connect(client_id, clean_session=True))
    assert (await reader.readexactly(4))[3] == 0
    writer.write(wire.disconnect())
    await writer.drain()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
