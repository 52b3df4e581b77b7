"""Turns that wait a moment for more packets: under load only."""

import asyncio
import socket

import pytest

from mqttcore.codec import Connect, Decoder, PingReq
from mqttcore.config import Limits
from mqttcore.engine.engine import Engine
from mqttcore.net.listeners import BoundListener
from mqttcore.net.poller import Poller

DEADLINE_S = 60
ROUNDS = 50
PINGREQ = PingReq().encode(4)


async def ping_in_step(poller: Poller, clients: int) -> None:
    """Have all clients send PINGREQ at once, in turn after turn of the loop; then wait for all answers."""
    loop = asyncio.get_running_loop()
    listener = BoundListener("pair", True, 0, 1, 1)
    ends = []
    for number in range(clients):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        poller.adopt(theirs, listener)
        ours.send(Connect(f"c{number}", protocol_version=4).encode(4))
        ends.append((ours, Decoder(4, sender="server")))
    async with asyncio.timeout(DEADLINE_S):
        # Nothing else between two turns: they are to follow closely, whatever the machine.
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
            for ours, _ in ends:
                ours.send(PINGREQ)
        for ours, decoder in ends:
            answers = 0
            while answers < ROUNDS + 1:  # the first one is the CONNACK
                answers += len(decoder.feed(await loop.sock_recv(ours, 1000)))
            ours.close()


@pytest.mark.parametrize(("clients", "gather_us", "gathers"), [(1, 50, False), (4, 50, True), (4, 0, False)])
async def test_packets_gather_under_load_only(clients: int, gather_us: int, gathers: bool):
    engine = Engine(Limits(), now_ms=1)
    poller = Poller(engine, asyncio.get_running_loop(), gather_us=gather_us)
    try:
        await ping_in_step(poller, clients)
        assert engine.metrics()["packets_sent_pingresp"] >= ROUNDS * clients
        assert (poller.gathered > 0) == gathers
    finally:
        poller.close()
        engine.close()
