"""Peers that begin and do not go on: PROXY headers and TLS handshakes have a deadline and a bound (HARDENING 3, 4)."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certificates import Authority
from mqttcore import Broker
from mqttcore.codec import PingReq, PingResp
from network.clients import until
from network.test_tls import Client
from network.tls import client_context, tls_config

pytestmark = pytest.mark.usefixtures("driver")

HELLO_BEGUN = bytes.fromhex("160301020001")  # a ClientHello that stops in its header


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def half_open(broker: Broker, count: int, said: bytes = b"") -> AsyncIterator[list[socket.socket]]:
    """Hold *count* connections that have said *said* and nothing since."""
    loop = asyncio.get_running_loop()
    sockets = []
    try:
        for _ in range(count):
            sock = socket.socket()
            sockets.append(sock)
            sock.setblocking(False)
            await loop.sock_connect(sock, broker.addresses[0][1:])
            if said:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(sock, said)
        yield sockets
    finally:
        for sock in sockets:
            sock.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("said", [b"", HELLO_BEGUN])
async def test_handshake_that_stalls_is_ended_by_its_deadline(authority: Authority, said: bytes):
    config = tls_config(authority.server(), listener={"handshake_timeout_s": 0.3})
    async with Broker(config) as broker, half_open(broker, 3, said) as sockets:
        async with asyncio.timeout(8):  # the default is ten
            for sock in sockets:
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(sock, 100) == b""
        await until(lambda: broker.metrics()["connections"] == 0)
        assert broker.metrics()["handshakes_under_way"] == 0
        assert broker.metrics()["tls_handshakes_failed"] == 3


async def test_connect_has_its_own_deadline_after_the_handshake(authority: Authority):
    config = tls_config(authority.server(), listener={"handshake_timeout_s": 60, "connect_timeout_s": 0.3})
    async with Broker(config) as broker, await Client.open(broker, client_context(authority)) as client:
        async with asyncio.timeout(8):
            assert await client.receive() is None


async def test_silent_handshakes_are_bounded_and_make_room(authority: Authority):
    config = tls_config(authority.server(), listener={"handshakes_maximum": 20})
    async with Broker(config) as broker, half_open(broker, 60, HELLO_BEGUN):
        await until(lambda: broker.metrics()["handshakes_under_way"] == 20)
        # All are silent. Who comes now waits until they have been for a second, at most, and then gets through.
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ConnectionError):
                    async with await Client.open(broker, client_context(authority)) as client:
                        assert (await client.connect()).reason_code == 0
                        break
                await asyncio.sleep(0.05)
        assert broker.metrics()["handshakes_under_way"] <= 20
        assert broker.metrics()["handshakes_evicted"] > 0


async def test_honest_crowd_beyond_the_bound_gets_through(authority: Authority, driver: str):
    if driver == "transports":
        pytest.skip("asyncio accepts by itself: who comes beyond the bound is closed, and has to come again")
    config = tls_config(authority.server(), listener={"handshakes_maximum": 2})
    context = client_context(authority)
    async with Broker(config) as broker:

        async def visit(number: int) -> int:
            async with await Client.open(broker, context) as client:
                return (await client.connect(f"c{number}")).reason_code

        codes = await asyncio.gather(*(visit(number) for number in range(30)))
        assert codes == [0] * 30
        assert broker.metrics()["handshakes_evicted"] == 0


async def test_a_thousand_silent_handshakes_do_not_disturb_who_is_connected(authority: Authority):
    listener = {"handshake_timeout_s": 100, "handshakes_maximum": 2000}
    config = tls_config(authority.server(), listener=listener)
    loop = asyncio.get_running_loop()
    async with Broker(config) as broker, await Client.open(broker, client_context(authority)) as client:

        async def quickest() -> float:
            waits = []
            for _ in range(20):
                began = loop.time()
                await client.send(PingReq())
                assert isinstance(await client.receive(), PingResp)
                waits.append(loop.time() - began)
            return min(waits)  # what else the machine does comes on top, and not to each

        await client.connect()
        alone = await quickest()
        async with half_open(broker, 1000, HELLO_BEGUN):
            await until(lambda: broker.metrics()["handshakes_under_way"] == 1000)
            assert await quickest() < max(10 * alone, 0.5)
        await until(lambda: broker.metrics()["handshakes_under_way"] == 0)
