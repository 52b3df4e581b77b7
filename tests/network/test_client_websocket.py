"""Our client speaking WebSocket: to our broker, and to mosquitto."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from broker_process import BrokerProcess, running_broker
from certificates import Authority
from mqttcore import Broker, Listener
from mqttcore.client import Client, open_client
from mqttcore.codec import Connect, Subscription, Will
from mqttcore.config import Tls
from mqttcore.errors import ClientError, ConnectionLost, ConnectionRefused
from network.clients import address_of, until
from network.conftest import quiet_config
from network.tls import client_context

HTTP = Listener(port=0, protocol="http")


async def join(broker: Broker, client_id: str = "c", **how: Any) -> Client:
    host, port = address_of(broker)
    return await open_client(Connect(client_id), host=host, port=port, websocket_path="/mqtt", **how)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_go_round(qos: int):
    async with Broker(quiet_config(HTTP)) as broker, await join(broker) as client:
        await client.subscribe([Subscription("t", qos)])
        for payload in (b"", b"x", b"y" * 300_000):
            assert await client.publish("t", payload, qos=qos) == 0
            assert (await client.receive()).payload == payload
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_flood_to_a_slow_reader_arrives_in_order():
    config = quiet_config(HTTP, queued_messages_maximum=10_000)
    async with Broker(config) as broker, await join(broker, queue_maximum=5) as client:
        await client.subscribe([Subscription("t", 1)])
        for number in range(500):
            broker.publish_nowait("t", b"%05d" % number + b"x" * 5000, qos=1)
        assert [int((await client.receive()).payload[:5]) for _ in range(500)] == list(range(500))


async def test_many_messages_wait_for_room_to_write():
    async with Broker(quiet_config(HTTP)) as broker, broker.subscribe("t") as messages, await join(broker) as client:
        for number in range(300):
            await client.send("t", b"%05d" % number + b"x" * 5000)
        assert [int((await anext(messages)).payload[:5]) for _ in range(300)] == list(range(300))


async def test_cut_connection_publishes_the_will():
    async with Broker(quiet_config(HTTP)) as broker, broker.subscribe("gone") as messages:
        host, port = address_of(broker)
        client = await open_client(Connect("c", will=Will("gone", b"!")), host=host, port=port, websocket_path="/mqtt")
        client.abort()
        async with asyncio.timeout(5):
            assert (await anext(messages)).payload == b"!"
        await client.wait_closed()


async def test_broker_that_stops_says_so():
    broker = Broker(quiet_config(HTTP))
    await broker.start()
    client = await join(broker)
    stopping = asyncio.create_task(broker.stop())
    with pytest.raises(ConnectionLost, match="shutting down"):
        await client.wait_closed()
    await stopping


async def test_wrong_path_and_no_server_are_told():
    async with Broker(quiet_config(HTTP, Listener(name="tcp", port=0))) as broker:
        host, port = address_of(broker)
        with pytest.raises(ClientError, match=r"/other is not for WebSocket: HTTP status 404"):
            await open_client(Connect("c"), host=host, port=port, websocket_path="/other")
        with pytest.raises(ClientError, match="cannot connect to"):
            await open_client(Connect("c"), host=host, port=broker.addresses[1][2], websocket_path="/mqtt", timeout_s=3)
    with pytest.raises(ClientError, match="Connection refused"):
        await open_client(Connect("c"), host=host, port=port, websocket_path="/mqtt")


async def test_refused_connect_is_the_same_as_on_tcp():
    config = quiet_config(Listener(port=0, protocol="http", allow_anonymous=False))
    async with Broker(config) as broker:
        with pytest.raises(ConnectionRefused) as caught:
            await join(broker)
        assert caught.value.reason_code == 0x87


async def test_text_frames_of_a_server_end_the_connection():
    async def speak_text(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("mqtt",))
        await ws.prepare(request)
        await ws.receive()
        await ws.send_str("\x20\x03\x00\x00\x00")
        closing = await ws.receive()
        assert closing.data == 1003
        return ws

    app = web.Application()
    app.router.add_get("/mqtt", speak_text)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    with pytest.raises(ClientError, match="not binary"):
        await open_client(Connect("c"), host=host, port=port, websocket_path="/mqtt")
    await runner.cleanup()


async def test_tls_and_its_errors(tmp_path: Path):
    authority = Authority(tmp_path)
    server = authority.server("localhost")
    tls = Tls(certificate_file=str(server.certificate), key_file=str(server.key))
    async with Broker(quiet_config(Listener(port=0, protocol="http", tls=tls))) as broker:
        _, port = address_of(broker)
        where = {"host": "localhost", "port": port, "websocket_path": "/mqtt"}
        async with await open_client(Connect("c"), tls=client_context(authority), **where) as client:
            await client.publish("t", b"x", qos=1)
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other", "other")
        with pytest.raises(ClientError, match=r"TLS: .*certificate"):
            await open_client(Connect("c"), tls=client_context(stranger), **where)


async def test_unix_socket(tmp_path: Path):
    path = str(tmp_path / "http.sock")
    async with Broker(quiet_config(Listener(path=path, protocol="http"))) as broker:
        async with await open_client(Connect("c"), unix_path=path, websocket_path="/mqtt"):
            assert broker.client("c").is_connected
        await until(lambda: broker.metrics()["connections"] == 0)


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    if shutil.which("mosquitto", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("mosquitto is missing")
    with running_broker(tmp_path_factory.mktemp("mosquitto"), kind="mosquitto") as broker:
        yield broker


@pytest.mark.interop
async def test_mosquitto_understands_us(mosquitto: BrokerProcess):
    where = {"host": mosquitto.host, "port": mosquitto.websocket_port, "websocket_path": "/mqtt"}
    client = await open_client(Connect("c"), **where)
    await client.subscribe([Subscription("t", 2)])
    for qos in (0, 1, 2):
        await client.publish("t", b"%d" % qos * 3_000, qos=qos)
    came = [await client.receive() for _ in range(3)]
    assert sorted((message.qos, len(message.payload)) for message in came) == [(q, 3_000) for q in range(3)]
    client.abort()
    await client.wait_closed()


@pytest.mark.parametrize(
    "address",
    [
        lambda port: ["-L", f"ws://127.0.0.1:{port}/mqtt"],
        lambda port: ["-L", f"ws://127.0.0.1:{port}"],
        lambda port: ["-h", "127.0.0.1", "-p", str(port), "--websocket"],
        lambda port: ["-h", "127.0.0.1", "-p", str(port), "--websocket", "/mqtt"],
    ],
)
def test_command_line(session_broker: BrokerProcess, address: Callable[[int], list[str]]):
    command = [sys.executable, "-W", "error", "-m", "mqttcore"]
    where = address(session_broker.websocket_port)
    run = {"capture_output": True, "text": True, "timeout": 60, "check": False}
    sent = subprocess.run([*command, "pub", *where, "-t", "cli/ws", "-m", "warm", "-q", "1", "-r"], **run)
    assert (sent.returncode, sent.stderr) == (0, "")
    got = subprocess.run([*command, "sub", *where, "-t", "cli/ws", "-C", "1"], **run)
    assert (got.returncode, got.stdout, got.stderr) == (0, "warm\n", "")
