"""Clients of the tests: ours, and bare sockets that say exactly what they are told."""

import asyncio
import socket
from typing import Any

from mqttcore import Broker
from mqttcore.client import Client, open_client
from mqttcore.codec import Connect, Decoder, Packet, Will

DEADLINE_S = 60  # nothing takes that long, on a machine that has nothing else to do


def address_of(broker: Broker) -> tuple[str, int]:
    """Return host and port of the broker's first listening socket."""
    _, host, port = broker.addresses[0]
    return host, port


async def join(broker: Broker, client_id: str, *, will: Will | None = None, **connect: Any) -> Client:
    """Connect our client to the broker's first listener."""
    host, port = address_of(broker)
    return await open_client(Connect(client_id, will=will, **connect), host=host, port=port)


class Raw:
    """A connection without manners: writes bytes, reads packets when told to, never by itself."""

    def __init__(self, sock: socket.socket, version: int) -> None:
        self._sock = sock
        self._decoder = Decoder(version)
        self._waiting: list[Packet] = []

    @classmethod
    async def open(cls, broker: Broker, *, version: int = 5, receive_buffer_bytes: int = 0) -> "Raw":
        """Connect to the broker's first listener. receive_buffer_bytes: what the kernel may hold for us."""
        host, port = address_of(broker)
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        return cls(sock, version)

    async def send(self, *packets: Packet, version: int = 5) -> None:
        """Write packets."""
        await self.send_bytes(b"".join(packet.encode(version) for packet in packets))

    async def send_bytes(self, data: bytes) -> None:
        """Write bytes."""
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def receive(self) -> Packet | None:
        """Return the next packet; None when the broker closed the connection."""
        async with asyncio.timeout(DEADLINE_S):
            while not self._waiting:
                try:
                    data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                self._waiting.extend(self._decoder.feed(data))
        return self._waiting.pop(0)

    def close(self) -> None:
        """Close the socket, without a word."""
        self._sock.close()

    async def __aenter__(self) -> "Raw":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


async def until(holds: Any, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until *holds()* is true: for what the broker does by itself and nobody is told of."""
    async with asyncio.timeout(deadline_s):
        while not holds():  # noqa: ASYNC110  there is nothing to be notified by
            await asyncio.sleep(0.005)
