"""Send/expect conversations with a broker, the same over five ways of carrying bytes.

memory    an Engine and Connection objects; the clock is a number that the test sets
bytewise  as memory, every byte handed over by itself
tcp       a Broker on an ephemeral loopback port, real sockets on its epoll
stream    the same, sockets on asyncio transports given to `Broker.attach`
websocket as tcp, with MQTT in WebSocket frames

A `World` is one broker with its clients. Its end makes sure that nothing is left: every gauge is back at zero once the
clients are gone and their sessions have ended.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqttcore.broker import Broker
from mqttcore.codec import (
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
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
)
from mqttcore.config import Authorization, Config, Limits, Listener
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from websocket_wire import BINARY, CLOSE, CONTINUATION, RawWebSocket, frame, upgrade_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqttcore.engine.hooks import HookTable

DEADLINE_S = 60.0  # for anything that is expected; conversations take milliseconds
FOREVER_MS = 3_000_000_000
NEVER_S = 0xFFFFFFFF  # the session expiry that no time reaches

GAUGES = (
    "awaiting_release",
    "connections",
    "in_flight",
    "queued",
    "queued_bytes",
    "retained",
    "retained_bytes",
    "sessions",
    "sessions_connected",
    "shared_groups",
    "subscriptions",
    "taps",
)

PING = b"\xc0\x00"


@dataclass
class Door:
    """The listener that memory connections come through."""

    mount_point: str = ""
    name: str = "memory"
    allow_anonymous: bool = True


class Peer(ABC):
    """A client's end of one network connection."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.connack: ConnAck | None = None
        self._decoder = Decoder(version, sender="server")
        self._arrived: deque[Any] = deque()

    # --- the carrier's part

    @abstractmethod
    async def _write(self, data: bytes) -> None:
        """Hand bytes to the broker."""

    @abstractmethod
    async def _read(self) -> bytes | None:
        """Return what the broker sent, at least a byte; b"" when it closed, None when nothing will come."""

    @abstractmethod
    async def lose(self) -> None:
        """Cut the network connection without DISCONNECT; returns when the broker has noticed."""

    # --- conversations

    async def send(self, *packets: Any) -> None:
        """Send packets, or raw bytes, in one write."""
        await self._write(b"".join(p if isinstance(p, bytes) else p.encode(self.version) for p in packets))

    async def receive(self) -> Any:
        """Return the next packet from the broker."""
        packet = await self._next()
        assert packet is not None, "no packet came"
        assert packet != b"", "the broker closed the connection"
        return packet

    async def _next(self) -> Any:
        while not self._arrived:
            data = await self._read()
            if not data:
                return data
            self._arrived.extend(self._decoder.feed(data))
        return self._arrived.popleft()

    async def expect(self, *packets: Any) -> None:
        """Receive exactly these packets next, in this order."""
        for packet in packets:
            assert await self.receive() == packet

    async def expect_nothing(self) -> None:
        """Make sure that the broker has nothing for us: the answer to a PINGREQ comes next."""
        await self.send(PingReq())
        await self.expect(PingResp())

    async def expect_closed(self, reason_code: int | None = None) -> Disconnect | None:
        """Make sure that the broker closes now; with DISCONNECT and *reason_code* first when that is given."""
        said = None
        if reason_code is not None:
            said = await self.receive()
            assert isinstance(said, Disconnect), said
            assert said.reason_code == reason_code, said
        rest = await self._next()
        assert rest == b"", f"not closed, but {rest}"
        return said

    async def connect(
        self, client_id: str = "", *, expect: int = ReasonCode.SUCCESS, session_present: bool = False, **fields: Any
    ) -> Peer:
        """Send CONNECT and take the CONNACK, whose reason code is *expect*; keeps it as `connack`."""
        fields.setdefault("keep_alive_s", 0)
        await self.send(Connect(client_id, protocol_version=self.version, **fields))
        self.connack = await self.receive()
        assert isinstance(self.connack, ConnAck), self.connack
        assert self.connack.reason_code == expect
        assert self.connack.session_present == session_present
        return self

    async def subscribe(self, *filters: str | Subscription, qos: int = 2, subscription_id: int = 0) -> None:
        """Subscribe and take the SUBACK, which grants everything."""
        wanted = [f if isinstance(f, Subscription) else Subscription(f, qos) for f in filters]
        properties = {PropertyId.SUBSCRIPTION_IDENTIFIER: subscription_id} if subscription_id else None
        await self.send(Subscribe(0x5555, wanted, properties))
        await self.expect(SubAck(0x5555, [s.qos for s in wanted]))

    async def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 0, packet_id: int = 0, **fields: Any
    ) -> None:
        """Publish and go through the acknowledgements; at QoS 0 until the broker has handled it."""
        await self.send(Publish(topic, payload, qos=qos, packet_id=packet_id or (0x7777 if qos else 0), **fields))
        if qos == 0:
            await self.send(PingReq())
            await self._acknowledged(PingResp)
        elif qos == 1:
            await self._acknowledged(PubAck)
        else:
            await self._acknowledged(PubRec)
            await self.send(PubRel(packet_id or 0x7777))
            await self._acknowledged(PubComp)

    async def _acknowledged(self, kind: type) -> None:
        # Our own subscriptions may bring messages first: they stay for receive().
        messages = []
        while not isinstance(packet := await self.receive(), kind):
            assert isinstance(packet, Publish), packet
            messages.append(packet)
        self._arrived.extendleft(reversed(messages))

    async def receive_publish(self, *, acknowledge: bool = True) -> Publish:
        """Take the next PUBLISH, and acknowledge it to the end."""
        packet = await self.receive()
        assert isinstance(packet, Publish), packet
        if acknowledge and packet.qos == 1:
            await self.send(PubAck(packet.packet_id))
        elif acknowledge and packet.qos == 2:
            await self.send(PubRec(packet.packet_id))
            await self._acknowledged(PubRel)
            await self.send(PubComp(packet.packet_id))
        return packet

    async def disconnect(self, reason_code: int = 0, properties: dict[int, Any] | None = None) -> None:
        """Send DISCONNECT and wait until the broker closed."""
        await self.send(Disconnect(reason_code, properties))
        await self.expect_closed()


class World(ABC):
    """One broker and its clients."""

    has_clock = False  # whether advance() works

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """The broker's engine."""

    @abstractmethod
    async def open(self, version: int = 5, mount_point: str = "") -> Peer:
        """Return a client's end of a fresh network connection; mount_point: of the listener it comes through."""

    async def connect(self, client_id: str = "", version: int = 5, *, mount_point: str = "", **fields: Any) -> Peer:
        """Return a connected client; see `Peer.connect`."""
        return await (await self.open(version, mount_point)).connect(client_id, **fields)

    @property
    def metrics(self) -> dict[str, int]:
        """Counters and gauges now."""
        return self.engine.metrics()

    def advance(self, ms: int) -> None:
        """Move the clock on."""
        raise AssertionError("this carrier has no clock that can be set")

    @abstractmethod
    async def end_sessions(self) -> None:
        """End every session that is left."""

    async def end(self) -> None:
        """Take all clients away and make sure that nothing of them stays."""
        for peer in self.peers:
            await peer.lose()
        await self.end_sessions()
        self.engine.retained.clear()
        left = {name: value for name, value in self.metrics.items() if name in GAUGES and value}
        assert not left
        assert self.engine.topics.count == 0

    @abstractmethod
    async def close(self) -> None:
        """Stop the broker."""


class MemoryPeer(Peer):
    """A Connection, called directly."""

    def __init__(self, version: int, connection: Connection, world: MemoryWorld) -> None:
        super().__init__(version)
        self.connection = connection
        self.world = world

    async def _write(self, data: bytes) -> None:
        if self.world.is_bytewise:
            for i in range(len(data)):
                self.connection.receive(data[i : i + 1])
        else:
            self.connection.receive(data)
        self.world.engine.flush()

    async def _read(self) -> bytes | None:
        data = self.connection.take_output()
        if data:
            return data
        return b"" if self.connection.is_closed else None

    async def lose(self) -> None:
        self.connection.connection_lost()
        self.world.engine.flush()


class MemoryWorld(World):
    """An engine without a network."""

    has_clock = True

    wall_offset_ms = 1_700_000_000_000  # wall clock minus the engine's

    def __init__(
        self,
        limits: Limits,
        hooks: HookTable | None,
        *,
        is_bytewise: bool,
        sys_for_anonymous: bool,
        authorization: Authorization,
    ) -> None:
        super().__init__()
        self.is_bytewise = is_bytewise
        self.now_ms = 1_000
        self._engine = Engine(
            limits,
            hooks,
            now_ms=self.now_ms,
            sys_for_anonymous=sys_for_anonymous,
            authorization=authorization,
        )
        self._engine.set_wall_clock(self.now_ms + self.wall_offset_ms)

    @property
    def wall_s(self) -> float:
        """The wall clock, in seconds as of `time.time()`."""
        return (self.now_ms + self.wall_offset_ms) / 1000

    @property
    def engine(self) -> Engine:
        return self._engine

    async def open(self, version: int = 5, mount_point: str = "") -> MemoryPeer:
        peer = MemoryPeer(version, Connection(self.engine, Door(mount_point), ("memory", len(self.peers))), self)
        self.peers.append(peer)
        return peer

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.engine.advance(self.now_ms)
        self.engine.flush()

    async def end_sessions(self) -> None:
        self.advance(FOREVER_MS)
        for session in self.engine.sessions():
            if session.session_expiry_s == NEVER_S:
                self.engine.discard_session(session.client_id)

    async def close(self) -> None:
        self.engine.close()


class StreamPeer(Peer):
    """A real socket."""

    def __init__(
        self, version: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, world: BrokerWorld
    ) -> None:
        super().__init__(version)
        self.reader = reader
        self.writer = writer
        self.world = world
        self.is_lost = False

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), DEADLINE_S)

    async def _read(self) -> bytes | None:
        try:
            return await asyncio.wait_for(self.reader.read(65536), DEADLINE_S)
        except TimeoutError:
            return None

    async def lose(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        self.writer.transport.abort()
        expected = sum(not peer.is_lost for peer in self.world.peers)
        await self.world.until(lambda: self.world.metrics["connections"] <= expected)


class WebSocketPeer(StreamPeer):
    """A real socket on which the packets are in WebSocket frames: what is written at once, in two fragments."""

    def __init__(
        self, version: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, world: BrokerWorld
    ) -> None:
        super().__init__(version, reader, writer, world)
        self._websocket = RawWebSocket(reader, writer)

    async def _write(self, data: bytes) -> None:
        half = len(data) // 2
        await super()._write(frame(data[:half], fin=False) + frame(data[half:], CONTINUATION))

    async def _read(self) -> bytes | None:
        try:
            one = await self._websocket.frame()
        except TimeoutError:
            return None
        if one is None or one.opcode == CLOSE:
            return b""
        assert one.opcode == BINARY
        return one.payload


class BrokerWorld(World):
    """A Broker with real sockets.

    through_streams: they go through asyncio's transports; through_websocket: MQTT is spoken in WebSocket. mount_points:
    of its listeners, one each.
    """

    peers: list[StreamPeer]

    def __init__(
        self,
        limits: Limits,
        *,
        through_streams: bool,
        through_websocket: bool,
        sys_for_anonymous: bool,
        authorization: Authorization,
        mount_points: Sequence[str],
    ) -> None:
        super().__init__()
        self.mount_points = mount_points
        self.through_streams = through_streams
        self.through_websocket = through_websocket
        self.broker = Broker(
            Config(
                listeners=[
                    Listener(
                        name=f"l{i}", port=0, protocol="http" if through_websocket else "mqtt", mount_point=mount_point
                    )
                    for i, mount_point in enumerate(mount_points)
                ],
                limits=limits,
                sys_for_anonymous=sys_for_anonymous,
                authorization=authorization,
                sys_interval_s=0,
                shutdown_timeout_s=1.0,
                overload_lag_ms=0,  # a busy machine is no reason to refuse a client
            )
        )
        self._servers: list[asyncio.Server] = []
        self._attaching: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the broker."""
        await self.broker.start()
        if self.through_streams:
            loop = asyncio.get_running_loop()
            for mount_point in self.mount_points:
                handover = functools.partial(_Handover, self, mount_point)
                self._servers.append(await loop.create_server(handover, "127.0.0.1", 0))

    @property
    def engine(self) -> Engine:
        assert self.broker._engine is not None
        return self.broker._engine

    def attach(self, transport: asyncio.Transport, mount_point: str) -> None:
        """Give an accepted transport to the broker."""
        transport.pause_reading()
        task = asyncio.get_running_loop().create_task(
            self.broker.attach(transport, allow_anonymous=True, mount_point=mount_point)
        )
        self._attaching.add(task)
        task.add_done_callback(self._attaching.discard)

    async def open(self, version: int = 5, mount_point: str = "") -> StreamPeer:
        place = self.mount_points.index(mount_point)
        port = self._servers[place].sockets[0].getsockname()[1] if self._servers else self.broker.addresses[place][2]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if self.through_websocket:
            websocket = RawWebSocket(reader, writer)
            await websocket.send(upgrade_request())
            assert (await websocket.answer()).status == 101
        peer = (WebSocketPeer if self.through_websocket else StreamPeer)(version, reader, writer, self)
        self.peers.append(peer)
        return peer

    async def until(self, is_so: Any) -> None:
        """Let the broker's loop, which is ours, turn until *is_so* returns true."""
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():  # noqa: ASYNC110 (counters have no event)
                await asyncio.sleep(0)

    async def end_sessions(self) -> None:
        for client in self.broker.clients():
            self.broker.discard_session(client.client_id)

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        await self.broker.stop()


class _Handover(asyncio.Protocol):
    """The first protocol of an accepted transport, until the broker has it."""

    def __init__(self, world: BrokerWorld, mount_point: str) -> None:
        self.world = world
        self.mount_point = mount_point

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.world.attach(transport, self.mount_point)


async def make_world(
    carrier: str,
    hooks: HookTable | None = None,
    *,
    sys_for_anonymous: bool = False,
    authorization: Authorization | None = None,
    mount_points: Sequence[str] = ("",),
    **limits: Any,
) -> World:
    """Return a started world; mount_points: of its listeners; limits: fields of config.Limits."""
    authorization = authorization or Authorization()
    if carrier in ("memory", "bytewise"):
        return MemoryWorld(
            Limits(**limits),
            hooks,
            is_bytewise=carrier == "bytewise",
            sys_for_anonymous=sys_for_anonymous,
            authorization=authorization,
        )
    assert hooks is None, "hooks are for carriers in memory"
    world = BrokerWorld(
        Limits(**limits),
        through_streams=carrier == "stream",
        through_websocket=carrier == "websocket",
        sys_for_anonymous=sys_for_anonymous,
        authorization=authorization,
        mount_points=mount_points,
    )
    await world.start()
    return world
