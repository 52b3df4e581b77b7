"""One HTTP connection: aiohttp's, with a place in its listener's count and deadlines for requests and answers."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mqttcore.http.lobby import Lobby
from mqttcore.http.place import Place
from mqttcore.http.replies import problem

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from mqttcore.net.listeners import BoundListener
    from mqttcore.net.proxy import ProxyInfo

__all__ = ["HttpConnection"]

log = logging.getLogger("mqttcore.http")

_BUFFER_BYTES = 65_536  # unsent, from which on a client is not read; with TLS it would be half a megabyte


class HttpConnection(web.RequestHandler):
    """aiohttp's protocol. Who stalls is cut off; aiohttp's own time-out is for keep-alive between requests.

    header_timeout_s: from the opening, or the first byte of a later request, to the end of the headers.
    answer_timeout_s: from there until the answer was taken by the client's system.
    lobby: of the listener. place: of a connection that was admitted already. proxy: what its PROXY header said.
    """

    __slots__ = (
        "_answer_timeout_s",
        "_due_s",
        "_header_timeout_s",
        "_is_admitted",
        "_is_answering",
        "_lobby",
        "_place",
        "_timer",
        "proxy",
    )

    def __init__(
        self,
        manager: web.Server,
        listener: "BoundListener",
        lobby: Lobby,
        *,
        loop: asyncio.AbstractEventLoop,
        header_timeout_s: float,
        answer_timeout_s: float,
        place: Place | None = None,
        proxy: "ProxyInfo | None" = None,
        **others: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **others)
        self._is_admitted = place is not None
        self._place = place or Place(listener)
        self._lobby = lobby
        self.proxy = proxy
        self._header_timeout_s = header_timeout_s
        self._answer_timeout_s = answer_timeout_s
        self._due_s: float | None = None  # by the loop's clock, when this is cut off; None: not now
        self._timer: asyncio.TimerHandle | None = None  # never later than that
        self._is_answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: take a place of the listener, or turn the client away."""
        place = self._place
        peer = transport.get_extra_info("peername")
        is_welcome = self._is_admitted or (place.take() and place.admit(peer))
        if self.proxy is not None and self.proxy.source is not None:
            peer = self.proxy.source
        if not is_welcome or not self._lobby.enter(self, peer):
            place.free()
            transport.abort()  # type: ignore[attr-defined]
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(_BUFFER_BYTES)  # type: ignore[attr-defined]
        self._set_deadline(self._header_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Asyncio: the first byte of a request starts the time of its headers."""
        if self._due_s is None:
            self._set_deadline(self._header_timeout_s)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Asyncio, or whoever takes the transport over: the place is free."""
        self._lobby.leave(self)
        self._place.free()
        self._due_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Asyncio: who does not read is not read, least of all in TLS, where OpenSSL answers some of it by itself."""
        super().pause_writing()
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Asyncio: it has read."""
        super().resume_writing()
        if self.transport is not None and not (self._reading_paused or self._buffer_paused):
            self.transport.resume_reading()

    def hand_over(self) -> bool:
        """Let go of the transport, whose next owner counts it; return whether that one is to uncount its address."""
        is_counted = self._place.hand_over()
        self.transport = None  # so that it is not closed
        self.connection_lost(None)
        return is_counted

    def with_client(self, request: web.Request) -> web.Request:
        """Return *request* with the address and scheme that the client used towards the proxy."""
        if self.proxy is None or self.proxy.source is None:
            return request
        source = self.proxy.source
        scheme = "https" if self.proxy.tls is not None else request.scheme
        return request.clone(remote=source[0] if isinstance(source, tuple) else source, scheme=scheme)

    def headers_are_complete(self) -> None:
        """Be told that a request is about to be answered."""
        self._is_answering = True
        self._lobby.waits(self)
        self._set_deadline(self._answer_timeout_s)

    def has_good_key(self) -> None:
        """Be told that who asks may: the request is not cut short to make room."""
        self._lobby.vouch(self)

    def cut(self) -> None:
        """Be closed at once, to make room."""
        self._place.free()
        if self.transport is not None:
            self.transport.abort()

    def end(self) -> None:
        """Close the connection: at once, or when the request under way has been answered."""
        if self._is_answering:
            self.close()
        else:
            self.force_close()

    def log_access(self, request: "BaseRequest", response: web.StreamResponse, time: float | None) -> None:
        """Be told by aiohttp that an answer is through; nothing is logged."""
        self._is_answering = False
        self._lobby.waits(self)
        self._due_s = None

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Be told by aiohttp of what it did not expect; a body that cannot be read to its end is the peer's fault."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.info("a request's body cannot be read: %s", kw["exc_info"])
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: "BaseRequest",
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp could not parse; the peer's fault, so no traceback."""
        self.headers_are_complete()
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        answer = problem(status, "not a request of HTTP/1.1, or larger than we take")
        answer.force_close()
        return answer

    def _set_deadline(self, timeout_s: float) -> None:
        # Every request has three; a timer is made anew only for one that is due before it.
        loop = asyncio.get_running_loop()
        self._due_s = due_s = loop.time() + timeout_s
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        loop = asyncio.get_running_loop()
        if self._due_s > loop.time():
            self._timer = loop.call_at(self._due_s, self._look)
        elif self.transport is not None:
            self.transport.abort()
