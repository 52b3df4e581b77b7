"""The clients of the checker: MQTT 3.1.1 with sessions that outlive broker and connection, and what they remember."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from durability.ledger import Ledger, Sender
from mqttcore.codec import (
    ConnAck,
    Connect,
    Decoder,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
)

VERSION = 4
DEADLINE_S = 60.0


class Wire(asyncio.Protocol):
    """One connection: packets in and out."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take
        self._decoder = Decoder(VERSION, sender="server")
        self._transport: asyncio.Transport | None = None
        self.is_closed = False
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for packet in self._decoder.feed(data):
            self._take(packet)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True

    def send(self, packet: Any) -> None:
        if not self.is_closed and self._transport is not None and not self._transport.is_closing():
            self._transport.write(packet.encode(VERSION))

    def cut(self) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()


class Peer:
    """A client with a session; `connect` may be called again and again."""

    def __init__(self, client_id: str, ledger: Ledger) -> None:
        self.client_id = client_id
        self.ledger = ledger
        self.has_session = False  # a CONNACK promised that it is kept
        self.wire: Wire | None = None
        self._connected: asyncio.Future[ConnAck] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._packet_id = 0

    async def connect(self, port: int, clean: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self._connected = loop.create_future()
        self.wire = wire = Wire(self.take)
        async with asyncio.timeout(DEADLINE_S):
            await loop.create_connection(lambda: wire, "127.0.0.1", port)
            wire.send(Connect(self.client_id, protocol_version=VERSION, clean_start=clean, keep_alive_s=0))
            connack = await self._connected
        assert connack.reason_code == 0, connack
        if self.has_session and not clean and not connack.session_present:
            self.ledger.fault(f"the session of {self.client_id} is gone")
        self.has_session = not clean
        self.resume()

    def resume(self) -> None:
        """Go on where the last connection ended."""

    def disconnect(self) -> None:
        """Cut the connection, if there is one."""
        if self.wire is not None:
            self.wire.cut()
        for future in [self._connected, *self._answers.values()]:
            if future is not None and not future.done():
                future.cancel()
        self._answers.clear()

    def next_packet_id(self) -> int:
        self._packet_id = self._packet_id % 65535 + 1
        return self._packet_id

    def send(self, packet: Any) -> None:
        assert self.wire is not None
        self.wire.send(packet)

    async def request(self, packet: Any) -> Any:
        """Send SUBSCRIBE, UNSUBSCRIBE or a PUBLISH of QoS 1 and return the answer."""
        answer = self._answers[packet.packet_id] = asyncio.get_running_loop().create_future()
        self.send(packet)
        async with asyncio.timeout(DEADLINE_S):
            return await answer

    async def subscribe(self, topic_filter: str, qos: int) -> bool:
        """Subscribe; whether it was granted, or refused because it cannot be kept."""
        answer = await self.request(Subscribe(self.next_packet_id(), [Subscription(topic_filter, qos)]))
        assert answer.reason_codes in ([qos], [0x80]), answer
        return answer.reason_codes == [qos]

    async def unsubscribe(self, topic_filter: str) -> None:
        await self.request(Unsubscribe(self.next_packet_id(), [topic_filter]))

    def take(self, packet: Any) -> None:
        if isinstance(packet, ConnAck):
            assert self._connected is not None
            if not self._connected.done():
                self._connected.set_result(packet)
        elif isinstance(packet, SubAck | UnsubAck | PubAck):
            answer = self._answers.pop(packet.packet_id, None)
            if answer is not None and not answer.done():
                answer.set_result(packet)


class Publisher(Peer):
    """Sends numbered messages as fast as its window allows; what is not acknowledged is sent again, in order."""

    def __init__(self, client_id: str, qos: int, ledger: Ledger, window: int, rng: random.Random) -> None:
        super().__init__(client_id, ledger)
        self.sender = ledger.senders[client_id] = Sender(qos)
        self.qos = qos
        self.is_stopped = False
        self._window = window
        self._rng = rng
        self._in_flight: dict[int, tuple[int, bytes]] = {}  # packet id -> number, payload; in order
        self._released: dict[int, int] = {}  # packet id -> number: PUBREL sent

    @property
    def is_quiet(self) -> bool:
        return not self._in_flight and not self._released

    def resume(self) -> None:
        for packet_id, (_, payload) in self._in_flight.items():
            self._publish(packet_id, payload, dup=True)
        for packet_id in self._released:
            self.send(PubRel(packet_id))
        self._fill()

    def _publish(self, packet_id: int, payload: bytes, dup: bool) -> None:
        topic = f"d/{self.client_id}"
        self.send(Publish(topic, payload, qos=self.qos, packet_id=packet_id, dup=dup))

    def _fill(self) -> None:
        while not self.is_stopped and len(self._in_flight) + len(self._released) < self._window:
            packet_id = self.next_packet_id()
            if packet_id in self._in_flight or packet_id in self._released:
                continue
            self.sender.sent += 1
            filling = 20_000 if self._rng.random() < 0.005 else self._rng.randrange(150)
            payload = b"%s %d %s" % (self.client_id.encode(), self.sender.sent, b"x" * filling)
            self._in_flight[packet_id] = (self.sender.sent, payload)
            self._publish(packet_id, payload, dup=False)

    def take(self, packet: Any) -> None:
        if isinstance(packet, PubAck) and packet.packet_id in self._in_flight:
            assert packet.reason_code == 0
            self.sender.acknowledge(self._in_flight.pop(packet.packet_id)[0])
            self._fill()
        elif isinstance(packet, PubRec):
            # PUBREC already promises that the message is kept.
            number = self._in_flight.pop(packet.packet_id, None)
            if number is not None:
                self._released[packet.packet_id] = number[0]
                self.sender.acknowledge(number[0])
            self.send(PubRel(packet.packet_id))
        elif isinstance(packet, PubComp):
            self._released.pop(packet.packet_id, None)
            self._fill()
        else:
            super().take(packet)


class Subscriber(Peer):
    """Takes messages; acknowledges them at once, or after `delay_s`."""

    def __init__(self, client_id: str, qos: int, ledger: Ledger) -> None:
        super().__init__(client_id, ledger)
        self.qos = qos
        self.delay_s = 0.0
        self._unreleased: set[int] = set()  # QoS 2: what makes of at least once exactly once

    def take(self, packet: Any) -> None:
        if isinstance(packet, Publish):
            self._receive(packet)
        elif isinstance(packet, PubRel):
            self._unreleased.discard(packet.packet_id)
            self.send(PubComp(packet.packet_id))
        else:
            super().take(packet)

    def _receive(self, packet: Publish) -> None:
        name, number = packet.payload.split(b" ", 2)[:2]
        sender = name.decode(), int(number)
        packet_id = packet.packet_id
        if packet.qos == 2:
            if packet_id not in self._unreleased:
                self._unreleased.add(packet_id)
                self.ledger.receive(self.client_id, 2, *sender)
            self._later(PubRec(packet_id))
            return
        self.ledger.receive(self.client_id, packet.qos, *sender)
        self._later(PubAck(packet_id))

    def _later(self, packet: Any) -> None:
        assert self.wire is not None
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, self._acknowledge, self.wire, packet)
        else:
            self._acknowledge(self.wire, packet)

    def _acknowledge(self, wire: Wire, packet: Any) -> None:
        if not wire.is_closed:
            wire.send(packet)


class Watcher(Peer):
    """Keeps the topics and payloads that it gets; acknowledges them."""

    def __init__(self, client_id: str, ledger: Ledger) -> None:
        super().__init__(client_id, ledger)
        self.seen: dict[str, bytes] = {}
        self._awaited: tuple[str, asyncio.Future[None]] | None = None

    async def until(self, topic: str) -> None:
        """Wait for a message of *topic*."""
        if topic in self.seen:
            return
        waiting = asyncio.get_running_loop().create_future()
        self._awaited = topic, waiting
        async with asyncio.timeout(DEADLINE_S):
            await waiting

    def take(self, packet: Any) -> None:
        if not isinstance(packet, Publish):
            super().take(packet)
            return
        self.seen[packet.topic] = packet.payload
        if packet.qos:
            self.send(PubAck(packet.packet_id))
        if self._awaited is not None and self._awaited[0] == packet.topic and not self._awaited[1].done():
            self._awaited[1].set_result(None)
