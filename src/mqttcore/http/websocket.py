"""The upgrade from HTTP to MQTT in WebSocket (RFC 6455 §4.2, MQTT 5 §6); from then on the broker has the connection."""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from mqttcore.config import Listener, is_loopback, trusts_machine
from mqttcore.http.connection import HttpConnection
from mqttcore.http.refusals import tell_refusal
from mqttcore.http.replies import problem

if TYPE_CHECKING:
    from mqttcore.broker import Broker
    from mqttcore.net.listeners import BoundListener

__all__ = ["upgrade_handler", "websocket_handler"]

_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # §1.3
_SUBPROTOCOLS = ("mqtt", "mqttv3.1")  # the second is what clients of MQTT 3.1 offer


class _Refused(Exception):
    def __init__(self, answer: web.Response) -> None:
        self.answer = answer


class _Switched(web.StreamResponse):
    """Tells aiohttp that there is nothing left to answer."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing: the broker has written the answer."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


class _Rest:
    """Takes what aiohttp read beyond the request; in the place of its WebSocket reader."""

    def __init__(self) -> None:
        self.received = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep *data*."""
        self.received += data
        return False, b""

    def feed_eof(self) -> None:
        """Be told that aiohttp's part is over."""


def websocket_handler(
    broker: "Broker",
    settings: Listener | None = None,
    *,
    allow_anonymous: bool = False,
    listener: "BoundListener | None" = None,
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return a handler that serves MQTT in WebSocket, for a GET route of any aiohttp application in the broker's loop.

        app.router.add_get("/mqtt", websocket_handler(broker, allow_anonymous=True), allow_head=False)

    settings: its `websocket_…` fields count, but for the path. listener: where connections are counted.
    What is no upgrade to MQTT is answered with a problem: 400, 403 for an origin not allowed, 426, 503.
    """
    upgrade = upgrade_handler(broker, settings, allow_anonymous=allow_anonymous, listener=listener)

    async def handler(request: web.Request) -> web.StreamResponse:
        """Answer the upgrade; traces hear of a refusal."""
        answer = await upgrade(request)
        tell_refusal(broker, request, answer, None if listener is None else listener.name)
        return answer

    return handler


def upgrade_handler(
    broker: "Broker", settings: Listener | None, *, allow_anonymous: bool, listener: "BoundListener | None"
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """As `websocket_handler`, for an application that tells traces of every refusal itself."""
    chosen = settings if settings is not None else Listener(protocol="http")
    origins = frozenset(origin.casefold() for origin in chosen.websocket_origins)

    async def handler(request: web.Request) -> web.StreamResponse:
        """Answer the upgrade and hand the connection to the broker."""
        if not broker.is_ready:
            return problem(503, "the broker takes no clients now")
        if listener is not None and not listener.is_listening:  # what came before it was stopped may still ask
            return problem(503, "the listener takes no clients now")
        try:
            is_anonymous_by_default = (
                listener is not None and listener.allow_anonymous and trusts_machine(broker.config, chosen)
            )
            _check_origin(request, origins, local_only=is_anonymous_by_default)
            upgraded = _agree(request, needs_subprotocol=chosen.websocket_subprotocol_required)
        except _Refused as refused:
            return refused.answer
        protocol: Any = request.protocol
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        rest = _Rest()
        protocol.set_parser(rest)
        is_counted, proxy = False, None
        if isinstance(protocol, HttpConnection):
            proxy = protocol.proxy
            is_counted = protocol.hand_over()
        else:  # aiohttp lets go, and closes nothing: it has no transport any more
            protocol.transport = None
            protocol.connection_lost(None)
        broker.attach_websocket(
            transport,
            upgraded=upgraded,
            received=rest.received,
            settings=chosen,
            allow_anonymous=allow_anonymous,
            listener=listener,
            is_counted=is_counted,
            proxy=proxy,
        )
        return _Switched()

    return handler


def _check_origin(request: web.Request, origins: frozenset[str], *, local_only: bool) -> None:
    # §10.2: browsers say whose script it is; other clients say nothing, and could say anything.
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return
    if origins and origin.casefold() not in origins:
        raise _Refused(problem(403, "pages of this origin may not connect"))
    if not origins and local_only and not _is_local(origin):
        # Whoever is on this machine may come in without authentication; the pages its browser shows are not.
        raise _Refused(problem(403, "pages from elsewhere need websocket_origins, or allow_anonymous = true"))


def _is_local(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return False
    return parts.scheme == "file" or is_loopback(host) or host.endswith(".localhost")  # RFC 6761 §6.3


def _agree(request: web.Request, *, needs_subprotocol: bool) -> bytes:
    """Return the answer to an upgrade as it goes over the network."""
    headers = request.headers
    if not _has_token(request, hdrs.UPGRADE, "websocket") or not _has_token(request, hdrs.CONNECTION, "upgrade"):
        raise _Refused(problem(426, "MQTT in WebSocket is spoken here", headers={hdrs.UPGRADE: "websocket"}))
    if request.version < (1, 1):
        raise _Refused(problem(400, "an upgrade needs HTTP/1.1"))
    if headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        raise _Refused(problem(426, "the version of WebSocket is 13", headers={hdrs.SEC_WEBSOCKET_VERSION: "13"}))
    if request.body_exists:  # who reads it as one, and who as frames, would not agree where those begin
        raise _Refused(problem(400, "a request to upgrade has no body"))
    keys = headers.getall(hdrs.SEC_WEBSOCKET_KEY, [])
    key = keys[0] if len(keys) == 1 else ""
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise _Refused(problem(400, "Sec-WebSocket-Key is not 16 bytes in base64"))
    offered = _tokens(request, hdrs.SEC_WEBSOCKET_PROTOCOL)
    agreed = next((name for name in offered if name in _SUBPROTOCOLS), None)
    if agreed is None and (offered or needs_subprotocol):
        raise _Refused(problem(400, "the WebSocket sub-protocol is mqtt"))
    accept = base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT_GUID, usedforsecurity=False).digest()).decode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
    ]
    if agreed is not None:  # [MQTT-6.0.0-4]
        lines.append(f"Sec-WebSocket-Protocol: {agreed}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _tokens(request: web.Request, name: str) -> list[str]:
    lines = request.headers.getall(name, [])
    return [token.strip() for line in lines for token in line.split(",") if token.strip()]


def _has_token(request: web.Request, name: str, token: str) -> bool:
    return any(given.lower() == token for given in _tokens(request, name))
