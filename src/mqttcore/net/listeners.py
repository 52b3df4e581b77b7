"""Listening sockets: bound here, accepted on by the poller or by asyncio servers."""

import contextlib
import logging
import socket
from dataclasses import dataclass, field

__all__ = ["BoundListener", "bind"]

log = logging.getLogger("mqttcore.net")


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

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and real port of each socket."""
        return [sock.getsockname()[:2] for sock in self.sockets]

    def close(self) -> None:
        """Close the listening sockets; accepted connections stay."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()


def bind(
    name: str, host: str, port: int, *, backlog: int, allow_anonymous: bool, max_connections: int, accept_per_turn: int
) -> BoundListener:
    """Bind and listen on every address of *host*; with port 0 all get the port that the first was given.

    host: a name, an IPv4 or IPv6 address, or empty for all interfaces. Raises OSError, naming the address.
    """
    listener = BoundListener(name, allow_anonymous, max_connections, accept_per_turn, backlog)
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
            # Accepted sockets inherit it on Linux; asyncio sets it itself elsewhere.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {address[0]} port {port}: {error.strerror}") from error
            sock.listen(backlog)
            port = port or sock.getsockname()[1]
    except BaseException:
        listener.close()
        raise
    return listener
