"""Every door of the broker: what a half-open crowd says there, and how an honest client gets in."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from broker_process import BrokerProcess
from certificates import Authority
from load import wire
from websocket_wire import frame, upgrade_request

CONNACK = b"\x20\x02\x00\x00"
HELLO_BEGUN = bytes.fromhex("160301020001")  # a ClientHello that stops in its header
PROXY_HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 1883\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Door:
    """begun: with which each of a crowd stops. kib: what one of the crowd may take. has_tls, is_http: of the listener.

    speaks: what an honest client says, `mqtt`, `websocket` or `http`. header: what it says before.
    """

    begun: bytes
    kib: int
    speaks: str = "mqtt"
    header: bytes = b""
    is_http: bool = False
    has_tls: bool = False

    def listener(self, folder: Path) -> str:
        """Return what the listener's table has besides name, port and bounds. Makes certificates in *folder*."""
        lines = [f'protocol = "{"http" if self.is_http else "mqtt"}"']
        if self.header:
            lines.append('proxy_protocol = "any"\nproxy_trusted = ["127.0.0.0/8"]')
        if self.has_tls:
            own = Authority(folder).server("localhost")
            lines.append(f'[listeners.tls]\ncertificate_file = "{own.certificate}"\nkey_file = "{own.key}"')
        return "\n".join(lines)

    def enter_s(self, broker: BrokerProcess, port: int, context: ssl.SSLContext | None) -> float:
        """Have a client come in, and leave; return how long it took until it was served. context: where there is TLS.

        One that is turned away tries again: a crowd that is younger than a second may be at work on its handshakes, and
        has not to make room.
        """
        began_s = time.monotonic()
        while True:
            try:
                self._enter(broker, port, context)
            except (ConnectionResetError, ssl.SSLEOFError):
                assert time.monotonic() < began_s + TIMEOUT_S, "turned away again and again"
            else:
                return time.monotonic() - began_s

    def _enter(self, broker: BrokerProcess, port: int, context: ssl.SSLContext | None) -> None:
        with socket.create_connection((broker.host, port), timeout=TIMEOUT_S) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(self.header)
            if context is None:
                self._be_served(plain)
            else:
                with context.wrap_socket(plain, server_hostname="localhost") as secure:
                    self._be_served(secure)

    def _be_served(self, sock: socket.socket) -> None:
        connect = wire.connect("entrant", clean_session=True)
        if self.speaks == "http":
            sock.sendall(GET)
            assert _until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        elif self.speaks == "websocket":
            sock.sendall(upgrade_request())
            assert _until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
            sock.sendall(frame(connect))
            assert _until(sock, CONNACK).endswith(CONNACK)
        else:
            sock.sendall(connect)
            assert _until(sock, CONNACK) == CONNACK


DOORS = {
    "tcp": Door(b"\x10", 8),
    "tls": Door(HELLO_BEGUN, 64, has_tls=True),
    "proxy": Door(b"PROXY TCP4", 8, header=PROXY_HEADER),
    "http": Door(b"GET / HTTP/1.1\r\nHost: ", 32, speaks="http", is_http=True),
    "https": Door(HELLO_BEGUN, 96, speaks="http", is_http=True, has_tls=True),
    "websocket": Door(upgrade_request(), 16, speaks="websocket", is_http=True),
}


def _until(sock: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        data = sock.recv(4096)
        assert data, f"closed after {found!r}"
        found += data
    return found
