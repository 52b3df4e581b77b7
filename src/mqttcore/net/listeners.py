"""Listening sockets: bound here, accepted on by the poller or by asyncio servers."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mqttcore.config import Listener
from mqttcore.net.admission import Admission
from mqttcore.net.proxy import ProxyTrust
from mqttcore.net.tls import ServerTls

__all__ = ["BoundListener", "bind", "bind_path", "listen_at", "listen_at_path", "listener_metrics", "serve"]

log = logging.getLogger("mqttcore.net")

_PROBE_IDLE_S = 300
_PROBE_EVERY_S = 30


@dataclass(slots=True)
class BoundListener:
    """One configured listener with its sockets (one per address its host resolves to).

    connections and refused are counted by whoever accepts. max_connections 0: no limit of its own.
    """

    name: str
    allow_anonymous: bool
    max_connections: int
    accept_per_turn: int
    backlog: int
    sockets: list[socket.socket] = field(default_factory=list)
    connections: int = 0
    refused: int = 0
    # Below: what `configure` sets; without it a listener is plain and has no limits of its own.
    path: str = ""  # of a Unix socket
    path_identity: tuple[int, int] = (0, 0)  # device and inode of the file that we made
    plugins: tuple[str, ...] | None = None  # that may authenticate; None: all
    connect_timeout_ms: int = 0  # 0: the limits'
    maximum_packet_size_bytes: int | None = None
    settings: Listener = field(default_factory=Listener)  # in force
    mount_point: str = ""
    tls: ServerTls | None = None
    proxy_version: str | None = None
    proxy_trust: ProxyTrust | None = None
    certificate_authenticates: bool = False
    handshake_timeout_ms: int = 10_000
    handshakes_maximum: int = 1000
    admission: Admission | None = None
    # id(connection) -> connection, oldest first: those whose PROXY header or TLS handshake is under way.
    handshaking: dict[int, Any] = field(default_factory=dict)
    handshakes: int = 0
    handshakes_failed: int = 0
    handshakes_resumed: int = 0
    handshakes_evicted: int = 0
    proxy_rejected: int = 0
    accept_paused: int = 0
    http_connections: int = 0  # those that speak HTTP, and not MQTT in WebSocket
    http_evicted: int = 0  # of them, those that were cut to make room
    http_refused: int = 0  # and those for which none could be made
    keys_refused: int = 0  # requests of HTTP without a good API key
    keys_throttled: int = 0  # and those that came after too many of them
    requests_throttled: int = 0  # requests of a good key over its rate
    key_addresses: int = 0  # addresses that such requests are counted for

    @property
    def is_listening(self) -> bool:
        """Whether it has sockets; one that was stopped has none."""
        return bool(self.sockets)

    @property
    def is_gated(self) -> bool:
        """Whether something stands between socket and MQTT: a PROXY header, or TLS."""
        return self.tls is not None or self.proxy_version is not None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and real port of each socket; path and 0 of a Unix socket."""
        if self.path:
            return [(self.path, 0) for _ in self.sockets]
        return [sock.getsockname()[:2] for sock in self.sockets]

    def configure(self, settings: Listener, tls: ServerTls | None) -> None:
        """Take over what goes beyond address and backlog. tls: made from `settings.tls`."""
        self.max_connections = settings.max_connections
        self.accept_per_turn = settings.accept_per_turn
        self.plugins = None if settings.plugins is None else tuple(settings.plugins)
        self.connect_timeout_ms = int((settings.connect_timeout_s or 0) * 1000)
        self.maximum_packet_size_bytes = settings.maximum_packet_size_bytes
        self.mount_point = settings.mount_point
        self.tls = tls
        self.proxy_version = None if settings.proxy_protocol == "none" else settings.proxy_protocol
        self.proxy_trust = ProxyTrust(settings.proxy_trusted) if self.proxy_version else None
        self.certificate_authenticates = (
            settings.tls.identity_is_user_name if settings.tls else settings.proxy_identity_is_user_name
        )
        self.handshake_timeout_ms = int(settings.handshake_timeout_s * 1000)
        self.handshakes_maximum = settings.handshakes_maximum
        if self.admission is not None:
            self.admission.settings = settings
        else:
            self.admission = Admission(settings)

    def close(self) -> None:
        """Close the listening sockets; accepted connections stay."""
        for sock in self.sockets:
            sock.close()
        if self.path and self.sockets and _identity(self.path) == self.path_identity:  # another may have it by now
            Path(self.path).unlink()
        self.sockets.clear()


def bind_path(
    name: str, path: str, mode: int, *, backlog: int, allow_anonymous: bool, max_connections: int, accept_per_turn: int
) -> BoundListener:
    """Listen on a Unix socket at *path*, with permissions *mode*; a socket there that nobody listens on is replaced.

    Raises OSError, naming the path: something else is there, or somebody listens on it.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, f"cannot listen on {path}: Python has no Unix sockets on this system")
    listener = BoundListener(name, allow_anonymous, max_connections, accept_per_turn, backlog, path=path)
    listen_at_path(listener, mode)
    return listener


def listen_at_path(listener: BoundListener, mode: int) -> None:
    """Give a Unix socket to a listener that has none; as `bind_path`."""
    path = listener.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.sockets.append(sock)
    try:
        sock.setblocking(False)
        _remove_stale(path)
        # Nobody gets in between: the file is born with the least permissions.
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        listener.path_identity = _identity(path) or (0, 0)
        Path(path).chmod(mode)
        sock.listen(listener.backlog)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from error
        raise


def _remove_stale(path: str) -> None:
    try:
        state = Path(path).lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(state.st_mode):
        raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        else:
            raise OSError(errno.EADDRINUSE, "somebody listens on it")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        state = Path(path).lstat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _keep_alive(sock: socket.socket) -> None:
    # Finds peers that are gone without a word and asked for no MQTT keep-alive.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", _PROBE_IDLE_S), ("TCP_KEEPINTVL", _PROBE_EVERY_S), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def bind(
    name: str, host: str, port: int, *, backlog: int, allow_anonymous: bool, max_connections: int, accept_per_turn: int
) -> BoundListener:
    """Bind and listen on every address of *host*; with port 0 all get the port that the first was given.

    host: a name, an IPv4 or IPv6 address, or empty for all interfaces. Raises OSError, naming the address.
    """
    listener = BoundListener(name, allow_anonymous, max_connections, accept_per_turn, backlog)
    listen_at(listener, host, port)
    return listener


def listen_at(listener: BoundListener, host: str, port: int) -> None:
    """Give sockets to a listener that has none; as `bind`."""
    found = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )
    try:
        for family, kind, proto, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, proto)
            listener.sockets.append(sock)
            sock.setblocking(False)
            with contextlib.suppress(AttributeError):
                sock.set_inheritable(False)
            if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit these on Linux; asyncio sets the first itself elsewhere.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {address[0]} port {port}: {error.strerror}") from error
            sock.listen(listener.backlog)
            port = port or sock.getsockname()[1]
    except BaseException:
        listener.close()
        raise


async def serve(
    listener: BoundListener, make_protocol: Callable[[], asyncio.BaseProtocol], servers: list[asyncio.Server]
) -> None:
    """Have the event loop accept on the listener's sockets; *servers* gets one for each. Raises what they raise."""
    loop = asyncio.get_running_loop()
    listen = loop.create_unix_server if listener.path else loop.create_server
    for sock in listener.sockets:
        # asyncio's `backlog` is also how often it accepts in one turn; and when descriptors are out, how often it fails
        # to, and says so, every second. So the kernel is told afterwards how many may wait.
        servers.append(await listen(make_protocol, sock=sock, backlog=listener.accept_per_turn))
        sock.listen(listener.backlog)


def listener_metrics(listeners: Sequence[BoundListener]) -> dict[str, int]:
    """Return what the listeners count, all together; the keys are stable.

    tls_certificate_seconds_left: of the certificate that ends first; -1 without any.
    """
    with_tls = [one.tls for one in listeners if one.tls is not None]
    admissions = [one.admission for one in listeners if one.admission is not None]
    return {
        "listeners_stopped": sum(not one.is_listening for one in listeners),
        "connections_refused_full": sum(one.refused for one in listeners),
        "connections_refused_rate": sum(one.rate_refused for one in admissions),
        "connections_refused_address": sum(one.address_refused for one in admissions),
        "connections_refused_http": sum(one.http_refused for one in listeners),
        "http_connections": sum(one.http_connections for one in listeners),
        "http_connections_evicted": sum(one.http_evicted for one in listeners),
        "addresses_counted": sum(one.addresses for one in admissions),
        "addresses_overflowed": sum(one.addresses_overflowed for one in admissions),
        "accept_pauses": sum(one.accept_paused for one in listeners),
        "http_keys_refused": sum(one.keys_refused for one in listeners),
        "http_keys_throttled": sum(one.keys_throttled for one in listeners),
        "http_requests_throttled": sum(one.requests_throttled for one in listeners),
        "http_key_addresses": sum(one.key_addresses for one in listeners),
        "proxy_headers_rejected": sum(one.proxy_rejected for one in listeners),
        "tls_handshakes": sum(one.handshakes for one in listeners),
        "tls_handshakes_failed": sum(one.handshakes_failed for one in listeners),
        "tls_handshakes_resumed": sum(one.handshakes_resumed for one in listeners),
        "handshakes_evicted": sum(one.handshakes_evicted for one in listeners),
        "handshakes_under_way": sum(len(one.handshaking) for one in listeners),
        "tls_alarms": sum(one.is_alarming for one in with_tls),
        "tls_reloads": sum(one.reloads for one in with_tls),
        "tls_certificate_seconds_left": max(0, int(min(one.expires_s for one in with_tls) - time.time()))
        if with_tls
        else -1,
    }
