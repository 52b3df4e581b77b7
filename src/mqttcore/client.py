"""A small asyncio client for MQTT 3.1, 3.1.1 and 5.0: one connection, no reconnecting.

Made for the command line, tests and scripts. What it promises:

- A message counts as received when `receive` hands it out; only then is it acknowledged.
- About `queue_maximum` messages wait for `receive`; then the socket is not read any more, acknowledgements included.
  So one task that both receives and waits for the outcome of QoS 1 or 2 messages can stop itself; use two tasks.
- No more QoS 1 and 2 messages are under way than `in_flight_maximum` and the server's Receive Maximum allow.

Packet ids of both directions live as long as the connection: a session that is resumed by a new `Client` may bring
messages that the former one saw.
"""

import asyncio
import errno
import logging
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from mqttcore.codec import (
    Auth,
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
    UnsubAck,
    Unsubscribe,
)
from mqttcore.constants import PropertyId, ProtocolVersion, ReasonCode
from mqttcore.errors import ClientError, ConnectionLost, ConnectionRefused, ProtocolError

__all__ = ["Client", "Properties", "open_client", "reason_text"]

Properties = Mapping[int, Any]  # PropertyId → value, as the codec has them

_PACKET_MAXIMUM_BYTES = 268_435_460  # the largest Remaining Length and its fixed header of five bytes, §2.1.4
_PACKET_IDS = 65_535
_CLOSE_TIMEOUT_S = 2.0
_SENT_PER_TURN = 100
_CLOSED = "the server closed the connection"

_log = logging.getLogger(__name__)


def reason_text(reason_code: int, properties: Properties | None = None) -> str:
    """Return the standard's name of *reason_code*, and the peer's Reason String if *properties* has one."""
    try:
        name = ReasonCode(reason_code).name.replace("_", " ").capitalize().replace("Qos", "QoS")
    except ValueError:
        name = f"Unknown reason code 0x{reason_code:02X}"
    reason_string = (properties or {}).get(PropertyId.REASON_STRING)
    return f"{name}: {reason_string}" if reason_string else name


async def open_client(
    connect: Connect,
    *,
    host: str = "localhost",
    port: int = 1883,
    unix_path: str | None = None,
    local_host: str | None = None,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    websocket_path: str | None = None,
    timeout_s: float = 10.0,
    in_flight_maximum: int = 20,
    queue_maximum: int = 1000,
) -> "Client":
    """Open a connection, send *connect* and return the client once the server has accepted it.

    unix_path: a Unix socket instead of host and port. local_host: address to connect from. tls: speak TLS, with
    server_name, or else the host, as the name that the server's certificate must have. websocket_path: speak MQTT in
    WebSocket, at that path. timeout_s: for everything up to CONNACK. Raises ConnectionRefused, or ClientError when
    there is no connection or no CONNACK in time.
    """
    client = Client(connect, in_flight_maximum=in_flight_maximum, queue_maximum=queue_maximum)
    loop = asyncio.get_running_loop()
    place = unix_path or f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            if websocket_path is not None:
                from mqttcore.client_websocket import connect_websocket  # aiohttp, which few want

                await connect_websocket(
                    client._wire,
                    host=host,
                    port=port,
                    path=websocket_path,
                    unix_path=unix_path,
                    local_host=local_host,
                    tls=tls,
                    server_name=server_name,
                )
            elif unix_path is not None:
                # asyncio insists on a name where TLS checks one.
                await loop.create_unix_connection(
                    lambda: client._wire, unix_path, ssl=tls, server_hostname=(server_name or host) if tls else None
                )
            else:
                local_address = (local_host, 0) if local_host else None
                await loop.create_connection(
                    lambda: client._wire,
                    host,
                    port,
                    local_addr=local_address,
                    ssl=tls,
                    server_hostname=server_name if tls else None,
                )
            await client._shake_hands()
    except NotImplementedError as error:
        raise ClientError(f"cannot connect to {place}: there are no Unix sockets on this system") from error
    except TimeoutError as error:
        client.abort()
        raise ClientError(f"cannot connect to {place}: no answer within {timeout_s:g} s") from error
    except ssl.SSLError as error:
        client.abort()
        raise ClientError(f"cannot connect to {place}: {_os_error_text(error)}") from error
    except OSError as error:
        raise ClientError(f"cannot connect to {place}: {_os_error_text(error)}") from error
    except ClientError as error:
        client.abort()
        if isinstance(error, ConnectionLost) and tls is None and str(error).endswith(_CLOSED):
            raise ConnectionLost(f"{_CLOSED} without answering CONNECT; perhaps it expects TLS") from error
        if websocket_path is None or isinstance(error, ConnectionRefused | ConnectionLost):
            raise
        raise ClientError(f"cannot connect to {place}: {error}") from error
    except BaseException:
        client.abort()
        raise
    return client


class Client:
    """One connection; made by `open_client`, closed by `close` or by leaving `async with`."""

    def __init__(self, connect: Connect, *, in_flight_maximum: int, queue_maximum: int) -> None:
        self.version: int = connect.protocol_version
        self.connack: ConnAck = ConnAck()  # replaced by the server's
        self._connect = connect
        self._queue_maximum = queue_maximum
        self._in_flight_maximum = in_flight_maximum
        self._accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = _Wire(
            Decoder(
                self.version,
                maximum_packet_size_bytes=connect.properties.get(PropertyId.MAXIMUM_PACKET_SIZE, _PACKET_MAXIMUM_BYTES),
            ),
            self._handle,
            self._fail,
            self._end,
        )
        self._is_closing = False
        self._lost: ConnectionLost | None = None
        # Outgoing: packet id → (class of the answer that is waited for, future of the answer)
        self._awaited: dict[int, tuple[type, asyncio.Future[Any]]] = {}
        self._last_packet_id = 0
        self._sent = 0
        self._window = asyncio.Semaphore(in_flight_maximum)
        # Incoming
        self._received: deque[Publish] = deque()
        self._arrival = asyncio.Event()
        self._qos2_answered: dict[int, bool] = {}  # packet id → whether PUBREC has gone out; leaves with PUBREL
        self._topic_aliases: dict[int, str] = {}
        # Keep alive
        self._ping_timer: asyncio.TimerHandle | None = None
        self._is_ping_unanswered = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            ConnAck: self._on_connack,
            Publish: self._on_publish,
            PubAck: self._on_published,
            PubRec: self._on_pubrec,
            PubRel: self._on_pubrel,
            PubComp: self._on_published,
            SubAck: self._on_subscribed,
            UnsubAck: self._on_subscribed,
            PingResp: self._on_pingresp,
            Disconnect: self._on_disconnect,
            Auth: self._on_auth,
        }

    # ---- what the connection is ----

    @property
    def client_id(self) -> str:
        """The client identifier, the server's choice if it made one."""
        assigned: str | None = self.connack.properties.get(PropertyId.ASSIGNED_CLIENT_IDENTIFIER)
        return assigned if assigned is not None else self._connect.client_id

    @property
    def waiting(self) -> int:
        """Number of messages that `receive` would hand out at once."""
        return len(self._received)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self.close()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended; raise ConnectionLost unless `close` or `abort` ended it."""
        await self._wire.ended.wait()
        if self._lost is not None:
            raise self._lost

    async def close(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        """Send DISCONNECT and wait, two seconds at most, until the server has closed the connection.

        Closing the socket at once, with messages in it that were not read, would make the kernel reset the connection,
        and the server could miss DISCONNECT and the last acknowledgements.
        """
        if self._wire.ended.is_set():
            return
        if not self._is_closing and self._lost is None:
            self._write(Disconnect(reason_code, dict(properties or {})))
            self._is_closing = True
            self._received.clear()
            self._wire.resume_reading()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._wire.ended.wait()
        except TimeoutError:
            self.abort()
            await self._wire.ended.wait()

    def abort(self) -> None:
        """End the connection without DISCONNECT: the server publishes the will."""
        self._is_closing = True
        self._wire.abort()

    # ---- subscribing and receiving ----

    async def subscribe(
        self, subscriptions: Sequence[Subscription], properties: Properties | None = None
    ) -> tuple[int, ...]:
        """Subscribe and return the reason codes, in the order of *subscriptions*; before MQTT 5 0x80 is any failure."""
        packet_id = self._take_packet_id()
        packet = Subscribe(packet_id, list(subscriptions), dict(properties or {}))
        return tuple((await self._ask(packet_id, packet, SubAck)).reason_codes)

    async def unsubscribe(self, topic_filters: Sequence[str], properties: Properties | None = None) -> tuple[int, ...]:
        """Unsubscribe and return the reason codes, in the order of *topic_filters*; none before MQTT 5."""
        packet_id = self._take_packet_id()
        packet = Unsubscribe(packet_id, list(topic_filters), dict(properties or {}))
        return tuple((await self._ask(packet_id, packet, UnsubAck)).reason_codes)

    async def receive(self) -> Publish:
        """Return the next message and acknowledge it; raise ConnectionLost when there is none left to come.

        Raises ClientError after `close`. For one task at a time.
        """
        while not self._received:
            self._check_open()
            self._arrival.clear()
            await self._arrival.wait()
        message = self._received.popleft()
        if len(self._received) <= self._queue_maximum // 2:
            self._wire.resume_reading()
        if message.qos and not self._wire.ended.is_set():
            if message.qos == 1:
                self._write(PubAck(message.packet_id))
            else:
                self._write(PubRec(message.packet_id))
                self._qos2_answered[message.packet_id] = True
        return message

    async def __aiter__(self) -> AsyncIterator[Publish]:
        """Yield messages for ever; ConnectionLost ends it."""
        while True:
            yield await self.receive()

    # ---- publishing ----

    async def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> int:
        """Publish and return the reason code of the last acknowledgement; 0 at QoS 0 and before MQTT 5."""
        return await (await self.send(topic, payload, qos=qos, retain=retain, properties=properties))

    async def send(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> "asyncio.Future[int]":
        """Send a message as soon as there is room for it; return the future of its reason code (done at QoS 0).

        Raises ClientError for what the server said it doesn't take (QoS, retained messages, size), ConnectionLost.
        """
        self._check_publish(qos, retain)
        self._sent += 1
        if self._sent % _SENT_PER_TURN == 0:
            # Nothing below waits while there is room, and a loop without a turn never notices a lost connection.
            await asyncio.sleep(0)
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if qos:
            await self._window.acquire()
        try:
            await self._wire.writable.wait()
            self._check_open()
            packet_id = self._take_packet_id() if qos else 0
            packet = Publish(
                topic, payload, qos=qos, retain=retain, packet_id=packet_id, properties=dict(properties or {})
            )
            self._write(packet)
        except BaseException:
            if qos:
                self._window.release()
            raise
        if qos:
            self._awaited[packet_id] = (PubAck if qos == 1 else PubRec, outcome)
        else:
            outcome.set_result(0)
        return outcome

    def _check_publish(self, qos: int, retain: bool) -> None:
        maximum_qos = self.connack.properties.get(PropertyId.MAXIMUM_QOS, 2)
        if qos > maximum_qos:  # [MQTT-3.2.2-11]
            raise ClientError(f"the server takes QoS {maximum_qos} at most")
        if retain and not self.connack.properties.get(PropertyId.RETAIN_AVAILABLE, 1):  # [MQTT-3.2.2-14]
            raise ClientError("the server does not retain messages")

    # ---- packets out ----

    def _check_open(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._is_closing:
            raise ClientError("the client is closed")

    def _write(self, packet: Any) -> None:
        encoded = packet.encode(self.version)
        maximum = self.connack.properties.get(PropertyId.MAXIMUM_PACKET_SIZE, _PACKET_MAXIMUM_BYTES)
        if len(encoded) > maximum:  # [MQTT-3.2.2-15]
            raise ClientError(f"the server takes packets of {maximum} bytes at most, this one has {len(encoded)}")
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("sending %r", packet)
        self._wire.write(encoded)

    def _take_packet_id(self) -> int:
        if len(self._awaited) >= _PACKET_IDS:
            raise ClientError("every packet id is in use")
        packet_id = self._last_packet_id
        while True:
            packet_id = packet_id % _PACKET_IDS + 1
            if packet_id not in self._awaited:
                self._last_packet_id = packet_id
                return packet_id

    async def _ask(self, packet_id: int, packet: Any, answer: type) -> Any:
        self._check_open()
        self._write(packet)
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._awaited[packet_id] = (answer, outcome)
        return await outcome

    # ---- packets in ----

    async def _shake_hands(self) -> None:
        self._write(self._connect)
        await self._accepted

    def _handle(self, packet: Any) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("received %r", packet)
        handler = self._handlers.get(type(packet))
        if handler is None:
            raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "§2.1.2", f"{type(packet).__name__} from a server")
        if not self._accepted.done() and not isinstance(packet, ConnAck | Auth):
            raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "MQTT-3.2.0-1", "a packet before CONNACK")
        handler(packet)

    def _on_connack(self, packet: ConnAck) -> None:
        if self._accepted.done():
            raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "MQTT-3.2.0-2", "a second CONNACK")
        if packet.reason_code:
            text = reason_text(packet.reason_code, packet.properties)
            self._accepted.set_exception(ConnectionRefused(packet.reason_code, text))
            self.abort()
            return
        self.connack = packet
        self._window = asyncio.Semaphore(
            min(self._in_flight_maximum, packet.properties.get(PropertyId.RECEIVE_MAXIMUM, _PACKET_IDS))
        )
        self._start_keep_alive(packet.properties.get(PropertyId.SERVER_KEEP_ALIVE, self._connect.keep_alive_s))
        self._accepted.set_result(None)

    def _on_publish(self, packet: Publish) -> None:
        if self._is_closing:
            return
        if packet.qos == 2:
            if packet.packet_id in self._qos2_answered:
                if self._qos2_answered[packet.packet_id]:
                    self._write(PubRec(packet.packet_id))
                return
            self._qos2_answered[packet.packet_id] = False
        self._received.append(self._with_topic(packet))
        self._arrival.set()
        if len(self._received) >= self._queue_maximum:
            self._wire.pause_reading()

    def _with_topic(self, packet: Publish) -> Publish:
        alias = packet.properties.get(PropertyId.TOPIC_ALIAS)
        if alias is None:
            return packet
        if not 0 < alias <= self._connect.properties.get(PropertyId.TOPIC_ALIAS_MAXIMUM, 0):
            raise ProtocolError(ReasonCode.TOPIC_ALIAS_INVALID, "MQTT-3.1.2-26", f"topic alias {alias}")
        if packet.topic:
            self._topic_aliases[alias] = packet.topic
            return packet
        if alias not in self._topic_aliases:
            raise ProtocolError(ReasonCode.PROTOCOL_ERROR, "§3.3.2.3.4", f"topic alias {alias} without a topic")
        return Publish(
            self._topic_aliases[alias],
            packet.payload,
            qos=packet.qos,
            retain=packet.retain,
            dup=packet.dup,
            packet_id=packet.packet_id,
            properties=packet.properties,
        )

    def _outcome_awaiting(self, packet_id: int, answers: tuple[type, ...]) -> asyncio.Future[Any] | None:
        """Return the future of what waits for one of *answers*; None for answers that nothing waits for."""
        expected, outcome = self._awaited.get(packet_id, (None, None))
        return outcome if expected in answers else None

    def _on_subscribed(self, packet: SubAck | UnsubAck) -> None:
        outcome = self._outcome_awaiting(packet.packet_id, (type(packet),))
        if outcome is not None:
            del self._awaited[packet.packet_id]
            if not outcome.done():  # its caller may have given up
                outcome.set_result(packet)

    def _on_published(self, packet: PubAck | PubComp) -> None:
        if self._outcome_awaiting(packet.packet_id, (type(packet),)) is not None:
            self._conclude(packet.packet_id, packet.reason_code)

    def _on_pubrec(self, packet: PubRec) -> None:
        outcome = self._outcome_awaiting(packet.packet_id, (PubRec, PubComp))
        if outcome is None:
            if self.version >= ProtocolVersion.MQTT_5:
                self._write(PubRel(packet.packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND))
        elif packet.reason_code >= ReasonCode.UNSPECIFIED_ERROR:  # [MQTT-4.3.3-4]
            self._conclude(packet.packet_id, packet.reason_code)
        else:
            self._awaited[packet.packet_id] = (PubComp, outcome)
            self._write(PubRel(packet.packet_id))

    def _conclude(self, packet_id: int, reason_code: int) -> None:
        _, outcome = self._awaited.pop(packet_id)
        self._window.release()
        if not outcome.done():
            outcome.set_result(reason_code)

    def _on_pubrel(self, packet: PubRel) -> None:
        is_known = self._qos2_answered.pop(packet.packet_id, None) is not None
        is_told = not is_known and self.version >= ProtocolVersion.MQTT_5
        self._write(PubComp(packet.packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND if is_told else 0))

    def _on_pingresp(self, packet: PingResp) -> None:
        self._is_ping_unanswered = False

    def _on_disconnect(self, packet: Disconnect) -> None:
        text = reason_text(packet.reason_code, packet.properties)
        self._lose(ConnectionLost(f"the server disconnected: {text}", packet.reason_code))
        self._wire.abort()

    def _on_auth(self, packet: Auth) -> None:
        raise ProtocolError(
            ReasonCode.BAD_AUTHENTICATION_METHOD, "§4.12", "the server asks for an exchange of AUTH packets"
        )

    # ---- keep alive ----

    def _start_keep_alive(self, keep_alive_s: int) -> None:
        if keep_alive_s:
            # Looking twice in a keep-alive time, and pinging after half of it in silence, keeps [MQTT-3.1.2-20].
            self._ping_timer = asyncio.get_running_loop().call_later(
                keep_alive_s / 2, self._check_keep_alive, keep_alive_s / 2
            )

    def _check_keep_alive(self, interval_s: float) -> None:
        if self._is_ping_unanswered and not self._wire.is_reading_paused:
            self._lose(ConnectionLost("no PINGRESP in time"))
            self._wire.abort()
            return
        if not self._wire.take_has_written() and not self._is_ping_unanswered:
            self._is_ping_unanswered = True
            self._write(PingReq())
        self._ping_timer = asyncio.get_running_loop().call_later(interval_s, self._check_keep_alive, interval_s)

    # ---- the end ----

    def _fail(self, error: ProtocolError) -> None:
        """Answer a server that breaks the standard, and give up."""
        self._lose(ConnectionLost(f"the server broke the protocol: {error}"))
        if self.version >= ProtocolVersion.MQTT_5 and self._accepted.done():
            self._wire.write(Disconnect(error.reason_code).encode(self.version))
        self._wire.close()

    def _end(self, error: Exception | None) -> None:
        """Take note that the transport is gone, and tell everybody who waits."""
        if not self._is_closing:
            self._lose(ConnectionLost(_os_error_text(error) if error else _CLOSED))
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        reason = self._lost or ClientError("the client is closed")
        awaited, self._awaited = self._awaited, {}
        for expected, outcome in awaited.values():
            if not outcome.done():
                outcome.set_exception(reason)
                outcome.exception()  # nobody has to ask
            if expected in (PubAck, PubRec, PubComp):
                self._window.release()
        if not self._accepted.done():
            self._accepted.set_exception(reason)
            self._accepted.exception()
        self._arrival.set()

    def _lose(self, error: ConnectionLost) -> None:
        self._lost = self._lost or error


class _Wire(asyncio.Protocol):
    """The transport's side: bytes to packets, write readiness, pausing."""

    def __init__(
        self,
        decoder: Decoder,
        on_packet: Callable[[Any], None],
        on_fault: Callable[[ProtocolError], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self._decoder = decoder
        self._on_packet = on_packet
        self._on_fault = on_fault
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._has_written = False
        self.is_reading_paused = False
        self.writable = asyncio.Event()
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by shape only
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            for packet in self._decoder.feed(data):
                self._on_packet(packet)
        except ProtocolError as error:
            self._on_fault(error)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.writable.set()
        self._on_end(exc)
        self.ended.set()

    def write(self, data: bytes) -> None:
        # A transport that failed is closing before `connection_lost` says so, and complains about more.
        if self._transport is not None and not self._transport.is_closing():
            self._has_written = True
            self._transport.write(data)

    def take_has_written(self) -> bool:
        """Say whether anything was written since the last call."""
        has_written, self._has_written = self._has_written, False
        return has_written

    def pause_reading(self) -> None:
        if self._transport is not None and not self.is_reading_paused:
            self.is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self.is_reading_paused:
            self.is_reading_paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _os_error_text(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        told = getattr(error, "verify_message", None) or (error.reason or str(error)).replace("_", " ").lower()
        return f"TLS: {told}"
    if isinstance(error, ConnectionError) and error.errno is None and not error.args:
        return _CLOSED  # uvloop says so without a word, amid a TLS handshake
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    # asyncio puts words of its own, with addresses, where the system's should be; resolver errors have other numbers.
    return os.strerror(error.errno) if error.errno in errno.errorcode else error.strerror or str(error)
