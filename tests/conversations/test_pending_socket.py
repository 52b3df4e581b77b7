"""A CONNECT whose answer comes later, on a real socket: nothing is read meanwhile, and nothing is lost."""

import asyncio
import socket

from mqttcore.codec import Connect, Decoder, PubAck, Publish
from mqttcore.config import Limits
from mqttcore.constants import ReasonCode
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.net.listeners import BoundListener
from mqttcore.net.poller import Poller

from .harness import DEADLINE_S

MESSAGES = 2_000
TURNS = 200


async def test_reading_stops_until_the_answer():
    asked = []

    def authenticate(client: object, connect: object) -> object:
        asked.append(client)
        return PENDING

    loop = asyncio.get_running_loop()
    engine = Engine(Limits(), HookTable(authenticate=authenticate), now_ms=1)
    poller = Poller(engine, loop)
    engine.set_wake(lambda: loop.call_soon(poller.flush))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    poller.adopt(theirs, BoundListener("pair", True, 0, 1, 1))
    data = Connect("a").encode(5) + b"".join(
        Publish("t", bytes(500), qos=1, packet_id=i + 1).encode(5) for i in range(MESSAGES)
    )
    with ours:
        async with asyncio.timeout(DEADLINE_S):
            sending = asyncio.ensure_future(loop.sock_sendall(ours, data))
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert engine.metrics()["bytes_received"] < 2 * 131_072
            assert engine.metrics()["packets_received_publish"] == 0
            assert not sending.done()
            engine.accept(asked[0])
            decoder = Decoder(5, sender="server")
            got = []
            while len(got) < 1 + MESSAGES:
                got += decoder.feed(await loop.sock_recv(ours, 65_536))
            await sending
    assert got[1:] == [PubAck(i + 1, ReasonCode.NO_MATCHING_SUBSCRIBERS) for i in range(MESSAGES)]
    poller.close()
    metrics = engine.metrics()
    assert metrics["connections"] == metrics["sessions"] == 0
    engine.close()
