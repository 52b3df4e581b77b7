"""HTTP listeners behind TLS, on Unix sockets, and under the listener's limits of admission."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from certificates import Authority, Issued
from mqttcore import Broker, Config, Listener
from mqttcore.codec import ConnAck, Connect, Decoder, Publish, SubAck, Subscribe, Subscription
from mqttcore.config import Tls
from network.clients import address_of, until
from network.conftest import quiet_config
from network.tls import client_context, overwrite
from websocket_wire import PING, RawWebSocket, frame, upgrade_request

pytestmark = pytest.mark.usefixtures("driver")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def secure(server: Issued, **tls: Any) -> Config:
    settings = Tls(certificate_file=str(server.certificate), key_file=str(server.key), **tls)
    return quiet_config(Listener(port=0, protocol="http", tls=settings))


async def open_secure(broker: Broker, context: ssl.SSLContext) -> RawWebSocket:
    host, port = address_of(broker)
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
    client = RawWebSocket(reader, writer)
    await client.send(upgrade_request())
    assert (await client.answer()).status == 101
    return client


async def test_mqtt_in_websocket_in_tls(authority: Authority):
    async with Broker(secure(authority.server("localhost"))) as broker:
        async with await open_secure(broker, client_context(authority)) as client:
            payload = b"x" * 200_000
            await client.send(
                frame(Connect("c").encode(5))
                + frame(Subscribe(1, [Subscription("t")]).encode(5))
                + frame(b"?", PING)
                + frame(Publish("t", payload).encode(5))
            )
            decoder, packets = Decoder(5, sender="server"), []
            while len(packets) < 3:
                packets += decoder.feed((await client.frame()).payload.removeprefix(b"?"))
            assert [type(packet) for packet in packets] == [ConnAck, SubAck, Publish]
            assert packets[2].payload == payload
            info = broker.client("c").tls
            assert info.version == "TLSv1.3"
            assert info.alpn is None
        await until(lambda: broker.metrics()["connections"] == 0)


async def test_client_certificate_is_known_behind_the_upgrade(authority: Authority):
    own = authority.issue("thing-7")
    config = secure(authority.server("localhost"), client_certificate="required", client_ca_file=str(authority.file))
    async with Broker(config) as broker, await open_secure(broker, client_context(authority, own)) as client:
        await client.send(frame(Connect("c").encode(5)))
        await client.frame()
        assert broker.client("c").tls.identity == "thing-7"


async def test_https_answers_and_speaks_http_by_alpn(authority: Authority):
    context = client_context(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with Broker(secure(authority.server("localhost"))) as broker, aiohttp.ClientSession() as session:
        _, port = address_of(broker)
        async with session.get(f"https://localhost:{port}/healthz", ssl=context) as answer:
            assert answer.status == 200
        host, port = address_of(broker)
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.transport.abort()


async def test_handshake_that_stalls_is_cut_off(authority: Authority):
    settings = secure(authority.server("localhost")).listeners[0]
    listener = Listener(port=0, protocol="http", tls=settings.tls, handshake_timeout_s=0.3)
    async with Broker(quiet_config(listener)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        async with asyncio.timeout(8):  # the default is ten
            assert await client.reader.read() == b""


async def test_new_certificate_serves_new_connections(authority: Authority):
    server, later = authority.server("localhost"), authority.server("localhost", file="later")
    async with Broker(secure(server)) as broker:
        context = client_context(authority)
        host, port = address_of(broker)
        shown = []
        for _ in range(2):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
            shown.append(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
            writer.transport.abort()
            overwrite(later.certificate, server.certificate)
            overwrite(later.key, server.key)
            await broker.reload(broker.config)
        assert shown[0] != shown[1]


async def test_http_on_a_unix_socket(tmp_path: Path):
    path = str(tmp_path / "http.sock")
    config = quiet_config(Listener(path=path, protocol="http"))
    async with Broker(config) as broker:
        client = RawWebSocket(*await asyncio.open_unix_connection(path))
        await client.send(upgrade_request())
        assert (await client.answer()).status == 101
        await client.send(frame(Connect("c").encode(5)))
        assert (await client.frame()).payload[:1] == b"\x20"
        assert broker.client("c").is_connected
        await client.close()


async def test_limits_per_address_hold_over_the_upgrade():
    config = quiet_config(Listener(port=0, protocol="http", connections_per_address=2))
    async with Broker(config) as broker:
        clients = [await RawWebSocket.open(*address_of(broker)) for _ in range(2)]
        third = await RawWebSocket.connect(*address_of(broker))
        assert await third.frame() is None
        assert broker.metrics()["connections_refused_address"] == 1
        await clients.pop().close()
        await until(lambda: broker.metrics()["connections"] == 1)
        clients.append(await RawWebSocket.open(*address_of(broker)))
        for client in (*clients, third):
            await client.close()
        await until(lambda: broker.listeners[0].connections == 0)
        again = [await RawWebSocket.open(*address_of(broker)) for _ in range(2)]
        for client in again:
            await client.close()


async def test_connection_rate_holds_for_http():
    async with Broker(quiet_config(Listener(port=0, protocol="http", connection_rate=1))) as broker:
        first = await RawWebSocket.open(*address_of(broker))
        # one of them comes within the second, however slow we are
        others = [await RawWebSocket.connect(*address_of(broker)) for _ in range(10)]
        await until(lambda: broker.metrics()["connections_refused_rate"] >= 1)
        for client in (first, *others):
            await client.close()
