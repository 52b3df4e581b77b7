"""The HTTP server of one listener, as the broker starts and stops it."""

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from mqttcore.config import Listener
from mqttcore.http.app import make_app
from mqttcore.http.connection import HttpConnection
from mqttcore.http.entrance import Entrance
from mqttcore.http.lobby import Lobby
from mqttcore.net.listeners import BoundListener, serve

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["HttpServer"]

log = logging.getLogger("mqttcore.http")


class HttpServer:
    """Serves `make_app` on the sockets of *listener*. routes: of plugins."""

    def __init__(
        self,
        broker: "Broker",
        listener: BoundListener,
        settings: Listener,
        *,
        routes: Iterable[web.AbstractRouteDef] = (),
        shutdown_timeout_s: float = 5.0,
    ) -> None:
        self._listener = listener
        self._tell_failure = broker.traces.connection_failed
        self._settings = settings
        self._servers: list[asyncio.Server] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._make_first: Callable[[], asyncio.BaseProtocol] | None = None  # once it has accepted
        self._runner = web.AppRunner(
            make_app(broker, settings, routes=routes, listener=listener),
            access_log=None,
            shutdown_timeout=max(shutdown_timeout_s / 2, 0.01),  # aiohttp waits so long twice; 0 would be for ever
        )

    async def accept(self) -> None:
        """Accept on the listener's sockets; again, after `close`, on its new ones. Raises what they raise."""
        if self._make_first is None:
            await self._make_ready()
        assert self._make_first is not None
        await serve(self._listener, self._make_first, self._servers)

    async def _make_ready(self) -> None:
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # set up just now
        settings = self._settings
        make = functools.partial(
            HttpConnection,
            server,
            self._listener,
            Lobby(self._listener, settings),
            loop=asyncio.get_running_loop(),
            header_timeout_s=settings.http_header_timeout_s,
            answer_timeout_s=settings.http_request_timeout_s + settings.http_header_timeout_s,
            keepalive_timeout=settings.http_keep_alive_s,
            max_line_size=settings.http_line_bytes_maximum,
            max_field_size=settings.http_line_bytes_maximum,
            max_headers=settings.http_headers_maximum,
            lingering_time=2.0,
            access_log=None,
            logger=log,
        )
        self._make_first = make
        if self._listener.is_gated:
            self._make_first = functools.partial(Entrance, self._listener, make, self._handshakes, self._tell_failure)

    def close(self) -> None:
        """Accept no more; connections stay, and so does what `accept` needs."""
        for server in self._servers:
            server.close()
            task = asyncio.get_running_loop().create_task(server.wait_closed())  # until its last connection ends
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._servers.clear()

    def end_connections(self) -> None:
        """Close the connections that speak HTTP, or do not yet; who waits for an answer gets it first."""
        for entrance in list(self._listener.handshaking.values()):
            entrance.abort()
        if self._runner.server is not None:
            for connection in self._runner.server.connections:
                connection.end()  # type: ignore[attr-defined]  # a HttpConnection: we make no other

    async def stop(self) -> None:
        """Accept no more, and let requests under way be answered within shutdown_timeout_s."""
        self.close()
        for entrance in list(self._listener.handshaking.values()):
            entrance.abort()
        if self._handshakes:
            await asyncio.wait(self._handshakes)
        await self._runner.cleanup()

    async def wait_closed(self) -> None:
        """Wait until no connection is left; after `stop`, and after those handed on have ended."""
        if self._closing:
            await asyncio.wait(self._closing)
