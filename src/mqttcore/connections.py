"""The connections of a broker: those that were accepted elsewhere, those of the loop's transports, and their output."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from mqttcore.config import Listener
from mqttcore.constants import ReasonCode
from mqttcore.errors import MqttCoreError
from mqttcore.mount_point import check_mount_point
from mqttcore.net.channel import TlsPipes
from mqttcore.net.listeners import BoundListener
from mqttcore.net.stream import StreamConnection, WebSocketStream
from mqttcore.net.tls import describe
from mqttcore.publishing import Publishing

if TYPE_CHECKING:
    from socket import socket

    from mqttcore.engine.connection import Connection
    from mqttcore.net.poller import Poller
    from mqttcore.net.proxy import ProxyInfo

__all__ = ["Connections"]

log = logging.getLogger("mqttcore.broker")

_ENDED_AT_ONCE = 200  # connections of a listener that is stopped


class Connections(Publishing):
    """Base of Broker. Sockets belong to the poller, transports stand in `_streams`."""

    def __init__(self, *, events_queued_maximum: int) -> None:
        super().__init__(events_queued_maximum=events_queued_maximum)
        self._poller: Poller | None = None
        self._streams: set[StreamConnection] = set()
        self._pipes = TlsPipes()
        self._flush_handle: asyncio.Handle | None = None
        self._drained = asyncio.Event()  # set whenever the last closing connection is gone

    async def attach(
        self,
        transport: asyncio.Transport,
        *,
        allow_anonymous: bool = False,
        name: str = "attached",
        mount_point: str = "",
    ) -> None:
        """Serve MQTT on an accepted transport of the running loop, one with TLS, say; from now on it is the broker's.

        The transport must not have read what belongs to MQTT: pause it before it does, it is resumed here. mount_point:
        as of a listener; ValueError for what is none.
        """
        self._running()
        if transport.is_closing():  # its end may have been told to who had it before: we would wait for it for ever
            log.info("attached transport of %s: the peer is gone", name)
            transport.abort()
            return
        protocol = self._new_protocol(_unbound(name, allow_anonymous, mount_point))
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()

    def attach_socket(
        self, sock: socket, *, allow_anonymous: bool = False, name: str = "attached", mount_point: str = ""
    ) -> None:
        """Serve MQTT on an accepted stream socket; from now on it is the broker's. MqttCoreError where not on Linux.

        mount_point: as of a listener; ValueError for what is none.
        """
        self._running()
        if self._poller is None:
            raise MqttCoreError("sockets are attached on Linux only; use attach() with a transport")
        self._poller.adopt(sock, _unbound(name, allow_anonymous, mount_point))

    def attach_websocket(
        self,
        transport: asyncio.Transport,
        *,
        upgraded: bytes,
        received: bytes = b"",
        settings: Listener | None = None,
        allow_anonymous: bool = False,
        name: str = "attached",
        listener: BoundListener | None = None,
        is_counted: bool = False,
        proxy: ProxyInfo | None = None,
    ) -> None:
        """Serve MQTT in WebSocket on a transport whose request to upgrade was read; from now on it is the broker's.

        `mqttcore.http.websocket_handler` does the HTTP part for aiohttp applications. upgraded: the HTTP answer that
        agrees; it is written here. received: what was read beyond the request. settings: its `websocket_…` bounds
        and mount point count. listener: where it is counted, with its own mount point; None: nowhere, with
        *allow_anonymous* and *name*. is_counted: the listener's limits per address have it already. proxy: what a PROXY
        header before the request said.
        """
        engine = self._running()
        if transport.is_closing():  # its end may have been told to who had it before: we would wait for it for ever
            transport.abort()
            return
        chosen = settings or Listener()
        listener = listener or _unbound(name, allow_anonymous, chosen.mount_point)
        framing: dict[str, Any] = {
            "upgraded": upgraded,
            "message_bytes_maximum": chosen.websocket_message_bytes_maximum,
            "pings_per_s_maximum": chosen.websocket_pings_per_s_maximum,
            "is_counted": is_counted,
            "proxy": proxy,
        }
        session = transport.get_extra_info("ssl_object")
        if session is None:
            tls = None if proxy is None else proxy.tls
        else:
            tls = describe(session, None, listener.tls.settings.identity if listener.tls is not None else "cn")
        if listener.certificate_authenticates:
            if tls is not None and tls.is_verified:
                framing["certified_name"] = tls.identity or ""  # "": a certificate that names nobody
            elif listener.tls is not None and listener.tls.settings.client_certificate == "required":
                framing["certified_name"] = ""  # resumed with one that has expired meanwhile
        framing["tls_info"] = tls
        if self._poller is not None and (sock := _socket_of(transport)) is not None:
            self._poller.adopt_websocket(sock, listener, received=received, **framing)
            transport.abort()  # closes its own descriptor only
            return
        connection = WebSocketStream(engine, listener, when_closed=self._stream_closed, **framing)
        self._streams.add(connection)
        transport.set_protocol(cast("asyncio.BaseProtocol", connection))
        connection.connection_made(transport)
        if received:
            connection.data_received(received)
        transport.resume_reading()

    def _new_protocol(self, listener: BoundListener) -> asyncio.BaseProtocol:
        connection = StreamConnection(
            self._running(), listener, when_closed=self._stream_closed, pipes=self._pipes if listener.is_gated else None
        )
        self._streams.add(connection)
        return cast("asyncio.BaseProtocol", connection)

    def _stream_closed(self, connection: StreamConnection) -> None:
        self._streams.discard(connection)
        if not self._streams:
            self._drained.set()

    async def _end_connections(self, listener: BoundListener) -> int:
        connections: list[Connection] = [one for one in self._streams if one.listener is listener]
        if self._poller is not None:
            connections += self._poller.connections_of(listener)
        disconnected = 0
        for number, connection in enumerate(connections, 1):
            disconnected += connection.current_session is not None
            connection.close(ReasonCode.ADMINISTRATIVE_ACTION, "the listener was stopped", publish_will=True)
            if number % _ENDED_AT_ONCE == 0:
                self._wake()
                await asyncio.sleep(0)  # others wait meanwhile
        self._wake()
        return disconnected

    # --- output -----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        # Output outside a turn: written in the next one, together with what else comes until then.
        if self._flush_handle is None and self._loop is not None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()  # called directly: the one that was asked for has nothing left to do
            self._flush_handle = None
        engine = self._running()
        if self._poller is not None:
            self._poller.flush()
        else:
            engine.flush()
            if engine.has_output:
                self._wake()


def _unbound(name: str, allow_anonymous: bool, mount_point: str) -> BoundListener:
    """Return what stands for the listener of connections that were accepted elsewhere."""
    if mount_point:
        check_mount_point(mount_point)
    return BoundListener(name, allow_anonymous, 0, 1, 1, mount_point=mount_point)


def _socket_of(transport: asyncio.Transport) -> socket | None:
    """Return a second descriptor of the transport's connection; None when its bytes need the transport."""
    given = transport.get_extra_info("socket")
    if given is None or transport.get_extra_info("sslcontext") is not None or transport.get_write_buffer_size():
        return None
    try:
        return cast("socket", given.dup())
    except OSError as error:  # out of descriptors: the transport has its own
        log.error("WebSocket connection stays with the event loop: %s", error)
        return None
