"""What stands between a socket and HTTP: first a PROXY header, then TLS; each where the listener has it."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mqttcore.http.place import Place
from mqttcore.net.proxy_header import BadHeader, parse_header

if TYPE_CHECKING:
    from mqttcore.http.connection import HttpConnection
    from mqttcore.net.listeners import BoundListener
    from mqttcore.net.proxy import ProxyInfo

__all__ = ["Entrance"]

log = logging.getLogger("mqttcore.http")

_PATIENCE_MS = 1000  # a handshake that was silent for less does not have to make room for another


class Entrance(asyncio.Protocol):
    """The first protocol of a connection; the one of HTTP takes its place when header and handshake are through.

    make_connection: called with place and proxy. handshakes: holds the tasks of handshakes under way.
    on_failure: called with address, listener's name and reason when one is given up.
    """

    def __init__(
        self,
        listener: "BoundListener",
        make_connection: Callable[..., "HttpConnection"],
        handshakes: set[asyncio.Task[None]],
        on_failure: Callable[[object, str, str], object],
    ) -> None:
        self._listener = listener
        self._make_connection = make_connection
        self._handshakes = handshakes
        self._on_failure = on_failure
        self._place = Place(listener, on_failure)
        self._proxy: ProxyInfo | None = None
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reads_header = listener.proxy_version is not None
        self._held = b""  # what came and has not been passed on
        self._peer: Any = None
        self.heard_ms = time.monotonic_ns() // 1_000_000

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: be counted, or turned away."""
        self._transport = transport  # type: ignore[assignment]
        self._peer = transport.get_extra_info("peername")
        if not self._is_welcome():
            self.abort()
            return
        self._listener.handshaking[id(self)] = self
        if self._reads_header:
            self._deadline = asyncio.get_running_loop().call_later(
                self._listener.handshake_timeout_ms / 1000, self._give_up
            )
        else:
            self._begin_tls()

    def data_received(self, data: bytes) -> None:
        """Asyncio: a part of the header, or what a client said right behind its handshake."""
        if self._transport is None:
            return
        self._held += data
        if self._reads_header:
            self.heard_ms = time.monotonic_ns() // 1_000_000
            self._read_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Asyncio: the peer is gone, or was sent away."""
        self._end()

    def make_room(self) -> None:
        """Cut the connection for the sake of another one."""
        self._on_failure(self._peer, self._listener.name, "made room for a newer handshake")
        self.abort()

    def abort(self) -> None:
        """Cut the connection; its place is free at once."""
        transport = self._transport
        self._end()
        if transport is not None:
            transport.abort()

    def _is_welcome(self) -> bool:
        listener = self._listener
        if not self._place.take(self._peer):
            return False
        if self._peer is None:  # gone before we looked, as the checks of proxies are: there is nobody to be judged
            return False
        if listener.proxy_trust is not None:
            if not listener.proxy_trust.covers(self._peer):
                listener.proxy_rejected += 1
                log.info("listener %s: %s is not among proxy_trusted: closed", listener.name, self._peer)
                self._on_failure(self._peer, listener.name, "not among proxy_trusted")
                return False
        elif not self._place.admit(self._peer):
            return False
        if len(listener.handshaking) < listener.handshakes_maximum:
            return True
        oldest: Entrance = next(iter(listener.handshaking.values()))
        if self.heard_ms - oldest.heard_ms < _PATIENCE_MS:
            listener.refused += 1
            self._on_failure(self._peer, listener.name, "handshakes_maximum")
            return False
        listener.handshakes_evicted += 1
        oldest.make_room()
        return True

    def _read_header(self) -> None:
        listener = self._listener
        assert listener.proxy_version is not None
        try:
            found = parse_header(self._held, listener.proxy_version)
        except BadHeader as error:
            listener.proxy_rejected += 1
            self._fail(f"PROXY header: {error}")
            return
        if found is None:
            return
        used, self._proxy = found
        self._held = self._held[used:]
        self._reads_header = False
        self._stop_clock()
        if self._proxy.source is not None:
            self._peer = self._proxy.source
            if not self._place.admit(self._peer):
                self.abort()
                return
        if listener.tls is None:
            assert self._transport is not None
            self._pass_on(self._transport)
        else:
            self._begin_tls()

    def _begin_tls(self) -> None:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._transport.pause_reading()  # until TLS reads; some loops let this one read all the same
        task = loop.create_task(self._secure(self._transport))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)
        # start_tls asks for two callbacks in the loop's next turn, which make its protocol ready and let the transport
        # read. Ours comes behind them in the same turn, before anything more can be read.
        loop.call_soon(loop.call_soon, self._feed, self._transport)

    async def _secure(self, transport: asyncio.Transport) -> None:
        listener = self._listener
        assert listener.tls is not None
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                self,
                listener.tls.context,
                server_side=True,
                ssl_handshake_timeout=listener.handshake_timeout_ms / 1000,
            )
        except OSError as error:
            listener.handshakes_failed += 1
            self._fail(f"TLS: {_reason(error)}")
            return
        # One that is closing may have told us already, and would not tell the protocol of HTTP.
        if self._transport is None or secured is None or transport.is_closing() or secured.is_closing():
            listener.handshakes_failed += 1
            self._fail("TLS: the client is gone")
            return
        listener.handshakes += 1
        if secured.get_extra_info("ssl_object").session_reused:
            listener.handshakes_resumed += 1
        self._pass_on(secured)

    def _pass_on(self, transport: asyncio.Transport) -> None:
        place, self._place = self._place, Place(self._listener, self._on_failure)
        self._end()
        connection = self._make_connection(place=place, proxy=self._proxy)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if self._held:
            connection.data_received(self._held)
            self._held = b""

    def _feed(self, transport: asyncio.Transport) -> None:
        # What came before TLS could read goes to it, as if it had just been read.
        data, self._held = self._held, b""
        protocol: Any = transport.get_protocol()  # a BufferedProtocol, though not by name in every loop
        while data and not transport.is_closing():
            buffer = memoryview(protocol.get_buffer(len(data)))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]

    def _give_up(self) -> None:
        self._deadline = None
        self._fail("no PROXY header in time")

    def _fail(self, reason: str) -> None:
        log.info("listener %s: %s: %s", self._listener.name, self._peer, reason)
        self._on_failure(self._peer, self._listener.name, reason)
        self.abort()

    def _end(self) -> None:
        self._stop_clock()
        self._listener.handshaking.pop(id(self), None)
        self._place.free()
        self._transport = None

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _reason(error: OSError) -> str:
    # A client that leaves amid the handshake is a bare ConnectionAbortedError.
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or "the client is gone"
