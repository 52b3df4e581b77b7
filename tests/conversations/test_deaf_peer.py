"""A peer that sends and never reads: what the broker holds for it stays bounded, and nothing is lost."""

import asyncio
import socket

import pytest

from mqttcore.codec import Connect, Publish

from .harness import DEADLINE_S, BrokerWorld, make_world

CHUNK = 65_536
PATIENCE_TURNS = 2_000  # of the loop, in which the broker may take more


async def send_until_it_stops(sock: socket.socket, chunk: bytes) -> int:
    """Bytes that went before nobody took any more."""
    sent = 0
    turns = 0
    while turns < PATIENCE_TURNS:
        try:
            sent += sock.send(chunk[sent % len(chunk) :])
            turns = 0
        except BlockingIOError:
            turns += 1
        await asyncio.sleep(0)
        assert sent < 256 * CHUNK * 4, "the broker takes everything"
    return sent


@pytest.mark.parametrize("carrier", ["tcp", "stream"])
@pytest.mark.parametrize(
    ("packet", "answer_bytes"),
    [(b"\xc0\x00" * 8, 16), (Publish("t", b"12345678", qos=1, packet_id=1).encode(4), 4)],
    ids=["ping", "publish"],
)
async def test_sender_that_does_not_read(carrier: str, packet: bytes, answer_bytes: int):
    world = await make_world(carrier, output_high_water_bytes=16_384)
    assert isinstance(world, BrokerWorld)
    watch = await world.connect("watch")
    peer = await world.open(4)  # its port is the way in
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with asyncio.timeout(3 * DEADLINE_S):
            await loop.sock_connect(sock, peer.writer.get_extra_info("peername"))
            await loop.sock_sendall(sock, Connect("deaf", protocol_version=4, keep_alive_s=0).encode(4))
            sent = await send_until_it_stops(sock, packet * (CHUNK // len(packet)))
            assert world.engine.session("deaf").connection.pending_bytes < 16_384 * 4 + 131_072 + 100_000
            await watch.expect_nothing()  # others are served
            wanted = 4 + sent // len(packet) * answer_bytes
            got = 0
            while got < wanted:
                got += len(await loop.sock_recv(sock, 1_000_000))
    await world.end()
    await world.close()
