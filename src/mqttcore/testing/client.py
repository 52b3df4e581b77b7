"""A client of a `MemoryBroker`: says packets or raw bytes, and expects what comes."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from mqttcore.codec import (
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    Packet,
    PingReq,
    PingResp,
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
    Will,
)
from mqttcore.constants import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mqttcore.engine.connection import Connection
    from mqttcore.testing.broker import MemoryBroker

__all__ = ["MemoryClient"]

P = TypeVar("P", bound=Packet)

_DEADLINE_S = 30.0  # for what must come; a busy machine is no fault of a plugin


class MemoryClient:
    """One end of a connection without a network. Made by `MemoryBroker.open` and `MemoryBroker.connect`."""

    def __init__(self, broker: MemoryBroker, connection: Connection, version: int) -> None:
        self._broker = broker
        self._connection = connection
        self._decoder = Decoder(version, sender="server")
        self._arrived: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._packet_id = 0
        self.version = version
        self.connack: ConnAck | None = None  # the last one that came

    @property
    def is_closed(self) -> bool:
        """Whether the broker has closed the connection; packets may still wait to be received."""
        return self._connection.is_closed

    @property
    def client_id(self) -> str:
        """The Client Identifier, also when the broker chose it."""
        return self._connection.client_id or ""

    # --- packets ----------------------------------------------------------------------------------------------------

    async def send(self, *packets: Packet | bytes) -> None:
        """Send packets, or raw bytes, in one write; returns when the broker has taken it."""
        data = b"".join(one if isinstance(one, bytes) else one.encode(self.version) for one in packets)
        self._connection.receive(data)
        await self._broker.settle()

    async def receive(self) -> Packet:
        """Return the next packet; AssertionError when none comes, or the broker closed."""
        packet = await self._next()
        assert packet is not None, f"the broker closed the connection of {self.client_id!r}"
        return packet

    async def expect(self, kind: type[P]) -> P:
        """Return the next packet, which is a *kind*."""
        packet = await self.receive()
        assert isinstance(packet, kind), f"expected {kind.__name__}, got {packet}"
        return packet

    async def expect_nothing(self) -> None:
        """Make sure that the broker has sent nothing: the answer to a PINGREQ comes next."""
        await self.send(PingReq())
        await self.expect(PingResp)

    async def expect_closed(self, reason_code: int | None = None) -> Disconnect | None:
        """Make sure that the broker closes now; with DISCONNECT and *reason_code* first when that is given."""
        said: Disconnect | None = None
        if reason_code is not None:
            said = await self.expect(Disconnect)
            assert said.reason_code == reason_code, f"expected reason code 0x{reason_code:02X}, got {said}"
        left = await self._next()
        assert left is None, f"not closed, but {left}"
        return said

    async def _next(self) -> Packet | None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                while not self._arrived:
                    if self._connection.is_closed:
                        return None
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"nothing came to {self.client_id!r} within {_DEADLINE_S:g} s") from None
        packet: Packet = self._arrived.popleft()
        return packet

    def collect(self) -> None:
        """Take what the broker has written; the broker calls it."""
        while data := self._connection.take_output():
            self._arrived.extend(self._decoder.feed(data))
        self._changed.set()

    # --- conversations ----------------------------------------------------------------------------------------------

    async def connect(
        self,
        client_id: str = "",
        *,
        user_name: str | None = None,
        password: bytes | None = None,
        clean_start: bool = True,
        keep_alive_s: int = 0,
        will: Will | None = None,
        properties: Mapping[int, Any] | None = None,
        expect: int | None = ReasonCode.SUCCESS,
    ) -> ConnAck:
        """Send CONNECT and return the CONNACK, whose reason code is *expect*; None: any."""
        packet = Connect(
            client_id,
            protocol_version=self.version,
            clean_start=clean_start,
            keep_alive_s=keep_alive_s,
            user_name=user_name,
            password=password,
            will=will,
            properties=dict(properties) if properties else None,
        )
        await self.send(packet)
        self.connack = await self.expect(ConnAck)
        code = self.connack.reason_code
        assert expect is None or code == expect, f"CONNACK says 0x{code:02X}, not 0x{expect:02X}"
        return self.connack

    async def subscribe(self, *filters: str | Subscription, qos: int = 2) -> list[int]:
        """Subscribe; returns the reason codes of the SUBACK. Retained messages come after."""
        wanted = [one if isinstance(one, Subscription) else Subscription(one, qos) for one in filters]
        packet_id = self._next_packet_id()
        await self.send(Subscribe(packet_id, wanted))
        return list((await self._answer(SubAck, packet_id)).reason_codes)

    async def unsubscribe(self, *filters: str) -> list[int]:
        """Unsubscribe; returns the reason codes of the UNSUBACK, none below MQTT 5."""
        packet_id = self._next_packet_id()
        await self.send(Unsubscribe(packet_id, list(filters)))
        return list((await self._answer(UnsubAck, packet_id)).reason_codes)

    async def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[int, Any] | None = None,
    ) -> int:
        """Publish and go through the acknowledgements; returns the reason code, 0 at QoS 0 when it was handled."""
        packet_id = self._next_packet_id() if qos else 0
        block = dict(properties) if properties else None
        await self.send(Publish(topic, payload, qos=qos, retain=retain, packet_id=packet_id, properties=block))
        if qos == 0:
            if not self.is_closed:
                await self.send(PingReq())
                await self._answer(PingResp, 0)
            return 0
        if qos == 1:
            return (await self._answer(PubAck, packet_id)).reason_code
        received = await self._answer(PubRec, packet_id)
        if received.reason_code < 0x80:
            await self.send(PubRel(packet_id))
            await self._answer(PubComp, packet_id)
        return received.reason_code

    async def message(self) -> Publish:
        """Return the next message, acknowledged to its end."""
        packet = await self.expect(Publish)
        if packet.qos == 1:
            await self.send(PubAck(packet.packet_id))
        elif packet.qos == 2:
            await self.send(PubRec(packet.packet_id))
            await self._answer(PubRel, packet.packet_id)
            await self.send(PubComp(packet.packet_id))
        return packet

    async def disconnect(self, reason_code: int = 0, properties: Mapping[int, Any] | None = None) -> None:
        """Send DISCONNECT."""
        await self.send(Disconnect(reason_code, dict(properties) if properties else None))
        await self.lose()

    async def lose(self) -> None:
        """Cut the network connection; after `disconnect` that goes by itself."""
        self._connection.connection_lost()
        await self._broker.settle()

    def _next_packet_id(self) -> int:
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id

    async def _answer(self, kind: type[P], packet_id: int) -> P:
        # Messages may come first: they stay for message().
        before: list[Packet] = []
        while not isinstance(packet := await self.receive(), kind) or getattr(packet, "packet_id", 0) != packet_id:
            assert isinstance(packet, Publish), f"expected {kind.__name__}, got {packet}"
            before.append(packet)
        self._arrived.extendleft(reversed(before))
        return packet
