"""The broker's last packet reaches a peer that is still sending."""

import asyncio
import socket

from mqttcore.codec import ConnAck, Connect, Decoder, Disconnect, Publish
from mqttcore.constants import ReasonCode

from .harness import DEADLINE_S, make_world


async def test_disconnect_is_read_by_a_client_that_sends_on():
    world = await make_world("tcp", maximum_packet_size_bytes=1000)
    loop = asyncio.get_running_loop()
    decoder = Decoder(5, sender="server")
    with socket.socket() as sock:
        sock.setblocking(False)
        async with asyncio.timeout(DEADLINE_S):
            await loop.sock_connect(sock, ("127.0.0.1", world.broker.addresses[0][2]))
            await loop.sock_sendall(sock, Connect("a").encode(5))
            (connack,) = decoder.feed(await loop.sock_recv(sock, 1000))
            assert isinstance(connack, ConnAck)
            # far more than the broker reads at once: with bytes left unread, its close would be a reset
            await loop.sock_sendall(sock, Publish("t", bytes(8_000_000)).encode(5))
            (said,) = decoder.feed(await loop.sock_recv(sock, 1000))
            assert isinstance(said, Disconnect)
            assert said.reason_code == ReasonCode.PACKET_TOO_LARGE
            assert await loop.sock_recv(sock, 1000) == b""
    await world.end()
    await world.close()
