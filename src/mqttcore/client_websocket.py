"""A transport for `mqttcore.client` that carries MQTT in WebSocket; the framing is aiohttp's."""

import asyncio
import ssl
from typing import Any

import aiohttp

from mqttcore.errors import ClientError

__all__ = ["connect_websocket"]

_HIGH_WATER_BYTES = 65_536
_FRAME_BYTES = 65_536
_MESSAGE_MAXIMUM_BYTES = 300_000_000  # the largest packet, and what comes in one message with it


async def connect_websocket(
    protocol: asyncio.Protocol,
    *,
    host: str,
    port: int,
    path: str,
    unix_path: str | None = None,
    local_host: str | None = None,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> None:
    """Connect *protocol* to a server; arguments are those of `open_client`, path is that of the HTTP request.

    Raises ClientError when the server does not speak WebSocket there, OSError (ssl.SSLError) without a connection.
    """
    connector: aiohttp.BaseConnector
    if unix_path is not None:
        connector = aiohttp.UnixConnector(unix_path)
    else:
        connector = aiohttp.TCPConnector(local_addr=(local_host, 0) if local_host else None)
    session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
    shown = f"[{host}]" if ":" in host else host
    try:
        ws = await session.ws_connect(
            f"{'ws' if tls is None else 'wss'}://{shown}:{port}{path}",
            protocols=("mqtt",),  # [MQTT-6.0.0-3]
            max_msg_size=_MESSAGE_MAXIMUM_BYTES,
            ssl=tls or True,
            server_hostname=server_name,
        )
    except BaseException as error:
        await session.close()
        if isinstance(error, aiohttp.WSServerHandshakeError):
            raise ClientError(f"{path} is not for WebSocket: HTTP status {error.status}") from error
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            raise error.certificate_error from error
        if isinstance(error, aiohttp.ClientConnectorError):
            raise error.os_error from error
        if isinstance(error, aiohttp.ClientError | ValueError):
            raise ClientError(str(error)) from error
        raise
    _WebSocketTransport(session, ws, protocol)


class _WebSocketTransport(asyncio.Transport):
    """What a protocol sees of a WebSocket connection: bytes both ways. Two tasks live as long as it does."""

    def __init__(
        self, session: aiohttp.ClientSession, ws: "aiohttp.ClientWebSocketResponse[Any]", protocol: asyncio.Protocol
    ) -> None:
        super().__init__()
        self._session = session
        self._ws = ws
        self._protocol = protocol
        self._outgoing = bytearray()
        self._has_outgoing = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._is_full = False
        self._is_closing = False
        self._is_aborted = False
        self._cutting: asyncio.Task[None] | None = None
        protocol.connection_made(self)
        self._writing = asyncio.create_task(self._write())
        self._reading = asyncio.create_task(self._read())

    def write(self, data: Any) -> None:
        """Send bytes, in frames of the transport's choice [MQTT-6.0.0-2]."""
        self._outgoing += data
        self._has_outgoing.set()
        if len(self._outgoing) > _HIGH_WATER_BYTES and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._is_closing

    def close(self) -> None:
        """Send what is left, then Close."""
        self._is_closing = True
        self._has_outgoing.set()

    def abort(self) -> None:
        """Cut the connection."""
        self._is_closing = self._is_aborted = True
        self._outgoing.clear()
        self._may_read.set()
        self._writing.cancel()
        if self._cutting is None:  # whoever reads sees the end
            self._cutting = asyncio.create_task(self._session.close())

    def pause_reading(self) -> None:
        """Leave what comes to the socket."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Take it again."""
        self._may_read.set()

    async def _write(self) -> None:
        while True:
            await self._has_outgoing.wait()
            if self._outgoing:
                part = bytes(self._outgoing[:_FRAME_BYTES])
                del self._outgoing[:_FRAME_BYTES]
                try:
                    await self._ws.send_bytes(part)
                except (ConnectionError, aiohttp.ClientError):
                    return  # whoever reads notices, too
                if self._is_full and len(self._outgoing) <= _HIGH_WATER_BYTES // 2:
                    self._is_full = False
                    self._protocol.resume_writing()
            elif self._is_closing:
                await self._ws.close()
                return
            else:
                self._has_outgoing.clear()

    async def _read(self) -> None:
        error: Exception | None = None
        try:
            async for message in self._ws:
                if message.type is aiohttp.WSMsgType.ERROR:
                    error = message.data
                    break
                if message.type is not aiohttp.WSMsgType.BINARY:  # [MQTT-6.0.0-1]
                    error = ClientError("the server sent a frame that is not binary")
                    await self._ws.close(code=aiohttp.WSCloseCode.UNSUPPORTED_DATA)
                    break
                self._protocol.data_received(message.data)
                await self._may_read.wait()
                if self._is_aborted:
                    break
        finally:
            self._is_closing = True
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            await self._session.close()
            await self._ws.close()  # gives back what is cut off already; says nothing any more
            self._protocol.connection_lost(error)
