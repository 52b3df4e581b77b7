"""Listeners that are stopped and started while the broker runs: every kind, over epoll and over transports."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from certificates import Authority
from mqttcore import Broker, Config, Listener, MqttCoreError, NotPossible, ReasonCode, Will
from mqttcore.client import Client, open_client
from mqttcore.codec import ConnAck, Connect, Disconnect
from mqttcore.config import Tls
from mqttcore.errors import ClientError, ConnectionLost
from network.clients import Raw, until
from network.conftest import quiet_config
from network.test_proxy import TRUSTED, V1
from network.tls import client_context
from websocket_wire import RawWebSocket, upgrade_request

pytestmark = pytest.mark.usefixtures("driver")


@dataclass
class Door:
    """One kind of listener, and how a client comes in by it."""

    listener: Listener
    join: Callable[[Broker, str], Awaitable[Client]]


def address_of(broker: Broker, name: str = "door") -> tuple[str, int]:
    """Return where a listener is, or was."""
    return next(one.addresses[0] for one in broker.listeners if one.name == name)


@pytest.fixture(params=["tcp", "tls", "websocket", "websocket over tls", "unix"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Door:
    settings, how = {}, {}
    if "tls" in request.param:
        authority = Authority(tmp_path)
        own = authority.server("localhost")
        settings["tls"] = Tls(certificate_file=str(own.certificate), key_file=str(own.key))
        how = {"tls": client_context(authority), "server_name": "localhost"}
    if "websocket" in request.param:
        settings["protocol"] = "http"
        how["websocket_path"] = "/mqtt"
    if request.param == "unix":
        settings["path"] = how["unix_path"] = str(tmp_path / "mqtt.sock")

    async def join(broker: Broker, client_id: str) -> Client:
        host, port = address_of(broker)
        return await open_client(Connect(client_id), host=host, port=port, timeout_s=60, **how)

    return Door(Listener(**({"name": "door", "port": 0} | settings)), join)


def config_of(*listeners: Listener) -> Config:
    return quiet_config(*listeners, Listener(name="other", port=0))


async def test_stopped_listener_takes_nobody_and_comes_back_where_it_was(door: Door):
    async with Broker(config_of(door.listener)) as broker:
        before = address_of(broker)
        async with await door.join(broker, "first"):
            assert await broker.stop_listener("door") == 0
            (stopped, _) = broker.listeners
            assert (stopped.is_listening, stopped.addresses[0], stopped.connections) == (False, before, 1)
            assert [name for name, _, _ in broker.addresses] == ["other"]
            assert broker.metrics()["listeners_stopped"] == 1
            with pytest.raises((ClientError, OSError)):
                await door.join(broker, "second")
            assert await broker.publish("t") == 0  # the connection that was there stays
            assert broker.client("first").is_connected
            await broker.start_listener("door")
            assert address_of(broker) == before
            async with await door.join(broker, "third"):
                assert broker.listeners[0].is_listening
                assert broker.listeners[0].connections == 2
        await until(lambda: broker.listeners[0].connections == 0)
        assert broker.metrics()["listeners_stopped"] == 0


async def test_connections_are_closed_when_that_is_asked_for(door: Door):
    async with Broker(config_of(door.listener)) as broker:
        clients = [await door.join(broker, f"c{number}") for number in range(3)]
        _, host, port = broker.addresses[1]
        async with await open_client(Connect("elsewhere"), host=host, port=port):
            assert await broker.stop_listener("door", close_connections=True) == 3
            for client in clients:
                with pytest.raises(ConnectionLost) as lost:
                    await client.receive()
                assert lost.value.reason_code == ReasonCode.ADMINISTRATIVE_ACTION
                await client.close()
            await until(lambda: broker.listeners[0].connections == 0)
            assert broker.client("elsewhere").is_connected


async def test_clients_are_told_and_their_wills_published():
    async with Broker(config_of(Listener(name="door", port=0))) as broker, broker.subscribe("gone") as wills:
        async with await Raw.open(broker) as raw:
            await raw.send(Connect("c1", will=Will("gone", b"c1")))
            assert isinstance(await raw.receive(), ConnAck)
            await broker.stop_listener("door", close_connections=True)
            told = await raw.receive()
            assert isinstance(told, Disconnect)
            assert told.reason_code == ReasonCode.ADMINISTRATIVE_ACTION
            assert await raw.receive() is None
        assert (await anext(wills)).payload == b"c1"


async def test_who_has_not_connected_yet_is_closed_too():
    async with Broker(config_of(Listener(name="door", port=0, **TRUSTED))) as broker:
        async with await Raw.open(broker) as silent, await Raw.open(broker) as named:
            await named.send_bytes(V1)
            await until(lambda: broker.listeners[0].connections == 2)
            assert await broker.stop_listener("door", close_connections=True) == 0
            assert await silent.receive() is None
            assert await named.receive() is None
        await until(lambda: broker.listeners[0].connections == 0)
        await broker.start_listener("door")
        async with await Raw.open(broker) as raw:
            await raw.send_bytes(V1 + Connect("c1").encode(5))
            assert isinstance(await raw.receive(), ConnAck)


async def test_address_that_is_taken_meanwhile_leaves_it_stopped(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    async with Broker(config_of(Listener(name="door", port=0))) as broker:
        host, port = address_of(broker)
        await broker.stop_listener("door")
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind((host, port))
            squatter.listen()
            with pytest.raises(OSError, match=f"cannot listen on {host} port {port}"):
                await broker.start_listener("door")
            assert not broker.listeners[0].is_listening
        await broker.start_listener("door")
        async with await Raw.open(broker) as raw:
            await raw.send(Connect("c1"))
            assert isinstance(await raw.receive(), ConnAck)
    assert [record.message for record in caplog.records if "listener door" in record.message] == [
        "listener door stopped",
        "listener door started",
    ]


@pytest.mark.parametrize("host", ["localhost", "::1"])
async def test_every_address_of_a_name_comes_back(host: str):
    async with Broker(config_of(Listener(name="door", host=host, port=0))) as broker:
        before = broker.listeners[0].addresses
        await broker.stop_listener("door")
        await broker.start_listener("door")
        assert [(host, port) for name, host, port in broker.addresses if name == "door"] == [*before]
        for host, port in before:
            async with await open_client(Connect("c1"), host=host, port=port):
                assert broker.client("c1").is_connected


async def test_stopping_twice_and_starting_twice_do_no_harm():
    async with Broker(config_of(Listener(name="door", port=0))) as broker:
        for _ in range(20):
            await broker.stop_listener("door")
            await broker.stop_listener("door")
            await broker.start_listener("door")
            await broker.start_listener("door")
        async with await Raw.open(broker) as raw:
            await raw.send(Connect("c1"))
            assert isinstance(await raw.receive(), ConnAck)
            for name in ("nobody", ""):
                with pytest.raises(MqttCoreError, match="there is no listener"):
                    await broker.stop_listener(name)
                with pytest.raises(MqttCoreError, match="there is no listener"):
                    await broker.start_listener(name)
    with pytest.raises(MqttCoreError, match="not running"):
        await broker.start_listener("door")


async def test_broker_stops_and_starts_anew_with_all_its_listeners():
    broker = Broker(config_of(Listener(name="door", port=0)))
    async with broker:
        await broker.stop_listener("door")
    async with broker:
        assert [one.is_listening for one in broker.listeners] == [True, True]


async def test_reload_changes_a_listener_that_is_stopped():
    config = config_of(Listener(name="door", port=0))
    async with Broker(config) as broker:
        await broker.stop_listener("door")
        changed = config_of(Listener(name="door", port=0, max_connections=7))
        assert await broker.reload(changed) == []
        assert (broker.listeners[0].connections_maximum, broker.listeners[0].is_listening) == (7, False)


# --- HTTP -------------------------------------------------------------------------------------------------------------

WEB = [Listener(name="web", port=0, protocol="http"), Listener(name="web2", port=0, protocol="http")]


async def test_last_listener_of_http_is_spared_when_that_is_asked_for():
    async with Broker(config_of(*WEB)) as broker:
        results = await asyncio.gather(
            *(broker.stop_listener(one.name, spares_last_http=True) for one in WEB), return_exceptions=True
        )
        assert [type(one) for one in results] == [int, NotPossible]
        await broker.stop_listener("other", spares_last_http=True)
        await broker.stop_listener("web2")
        assert not broker.addresses


async def test_idle_connections_of_http_end_and_requests_are_answered_first():
    async with Broker(config_of(*WEB)) as broker:
        host, port = address_of(broker, "web")
        url = f"http://{host}:{port}"
        idle, idle_writer = await asyncio.open_connection(host, port)
        async with aiohttp.ClientSession() as session:
            async with session.post(
                f"{url}/api/v1/listeners/web/stop", json={"close_connections": True}
            ) as answer:  # it came by the one that it stops
                assert answer.status == 200
                said = await answer.json()
                assert (said["listener"]["is_listening"], said["disconnected"]) == (False, 0)
            assert await idle.read() == b""
            idle_writer.close()
            await until(lambda: broker.listeners[0].connections == 0)
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(f"{url}/healthz")


async def test_connection_from_before_cannot_bring_a_client_in():
    async with Broker(config_of(*WEB)) as broker, await RawWebSocket.connect(*address_of(broker, "web")) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 200
        await client.reader.readexactly(int(answer.headers["content-length"]))
        await broker.stop_listener("web")
        await client.send(upgrade_request())
        assert (await client.answer()).status == 503
