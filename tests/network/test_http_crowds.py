"""More HTTP connections than a listener takes: silent ones make room; MQTT and good keys are left alone."""

import asyncio
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from mqttcore import Broker, Connect, Listener
from mqttcore.config import HttpApi
from mqttcore.http import access, lobby
from mqttcore.http.connection import HttpConnection
from mqttcore.http.keys import Role, make_key, write_keys
from mqttcore.net.listeners import BoundListener
from websocket_wire import RawWebSocket, frame

from .clients import address_of, until
from .conftest import quiet_config
from .http_api import Api, api_config

GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Clock:
    """Stands still."""

    now_s = 1000.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now_s

    @classmethod
    def monotonic_ns(cls) -> int:
        return int(cls.now_s * 1_000_000_000)


PROXIED = {"proxy_protocol": "any", "proxy_trusted": ["127.0.0.0/8"], "allow_anonymous": True}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever waits make room at once, however fast or slow the machine is."""
    monkeypatch.setattr(lobby, "_PATIENCE_S", 0.0)


def web(**settings) -> Listener:
    return Listener(name="web", port=0, protocol="http", **settings)


@pytest.mark.parametrize("said", [b"", GET[:20], GET], ids=["nothing", "half a request", "a request, then nothing"])
async def test_silent_crowd_does_not_keep_others_out(said: bytes):
    async with Broker(quiet_config(web(http_connections_maximum=3, http_connections_per_address=3))) as broker:
        crowd = [await RawWebSocket.connect(*address_of(broker)) for _ in range(3)]
        for number, client in enumerate(crowd):
            await client.send(said)
            if said == GET:
                assert (await client.answer()).status == 200
            await until(lambda number=number: broker.metrics()["http_connections"] > number)
        latecomer = await RawWebSocket.connect(*address_of(broker))
        await latecomer.send(GET)
        assert (await latecomer.answer()).status == 200
        metrics = broker.metrics()
        assert (metrics["http_connections"], metrics["http_connections_evicted"]) == (3, 1)
        assert broker.listeners[0].connections == 3
        await until(lambda: "http_full" in broker.alarms)
        for one in (*crowd, latecomer):
            await one.close()


async def test_websocket_clients_are_not_of_the_crowd():
    async with Broker(quiet_config(web(http_connections_maximum=1, http_connections_per_address=1))) as broker:
        clients = []
        for number in range(3):
            clients.append(await RawWebSocket.open(*address_of(broker)))
            await clients[-1].send(frame(Connect(f"ws{number}").encode(5)))
            assert await clients[-1].frame() is not None
        metrics = broker.metrics()
        assert (metrics["connections"], metrics["http_connections"]) == (3, 0)
        assert (metrics["http_connections_evicted"], metrics["connections_refused_http"]) == (0, 0)
        for client in clients:
            await client.close()


async def test_crowd_of_one_address_is_cut_at_its_part_also_behind_a_proxy():
    async with Broker(
        quiet_config(web(http_connections_maximum=9, http_connections_per_address=2, **PROXIED))
    ) as broker:
        crowd = []
        for number, host in enumerate((b"192.0.2.1", b"192.0.2.2", b"192.0.2.1", b"192.0.2.1")):
            crowd.append(await RawWebSocket.connect(*address_of(broker)))
            await crowd[-1].send(b"PROXY TCP4 " + host + b" 127.0.0.1 40000 80\r\n" + GET)
            assert (await crowd[-1].answer()).status == 200, number
        assert broker.metrics()["http_connections_evicted"] == 1
        assert broker.metrics()["http_connections"] == 3
        await crowd[1].send(GET)  # the other address has all it had
        for one in crowd:
            await one.close()


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, str]:
    """A file with one key, and its text."""
    path = str(tmp_path / "keys")
    made, text = make_key("ann", Role.ADMIN)
    write_keys(path, {"ann": made})
    return path, text


async def test_request_with_a_good_key_is_not_cut_short(key: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    """It waits for the first entry of a trace, and is the one that has waited longest."""
    path, text = key
    config = quiet_config(web(http_connections_maximum=1, http_connections_per_address=1), Listener(name="tcp", port=0))
    config = msgspec.structs.replace(config, http_api=HttpApi(keys_file=path))
    is_known, vouch = asyncio.Event(), lobby.Lobby.vouch

    def noted(self: lobby.Lobby, guest: HttpConnection) -> None:
        vouch(self, guest)
        is_known.set()

    monkeypatch.setattr(lobby.Lobby, "vouch", noted)
    async with Broker(config) as broker, Api(broker, text) as api:
        await api.ask("POST", "/traces", json={"name": "t", "subject": "topic_filter", "value": "a"})
        is_known.clear()
        waiting = asyncio.create_task(api.ask("GET", "/traces/t/entries", params={"wait_s": "10"}))
        await is_known.wait()
        async with await RawWebSocket.connect(*address_of(broker)) as turned_away:
            assert await turned_away.frame() is None
        assert broker.metrics()["connections_refused_http"] == 1
        await broker.publish("a", b"x")
        assert (await waiting)["entries"]


async def test_key_that_asks_too_often_hears_when_to_come_again(key: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    path, text = key
    monkeypatch.setattr(access, "time", Clock)
    async with Broker(api_config(keys_file=path, requests_per_s_per_key=2)) as broker, Api(broker, text) as api:
        assert [await api.status("GET", "/clients") for _ in range(4)] == [200, 200, 429, 429]
        headers = {"authorization": f"Bearer {text}"}
        async with aiohttp.ClientSession() as session, session.get(f"{api.url}/metrics", headers=headers) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert broker.metrics()["http_requests_throttled"] == 3
        await until(lambda: "http_rate" in broker.alarms)
        monkeypatch.setattr(Clock, "now_s", Clock.now_s + 1)
        assert [await api.status("GET", "/clients") for _ in range(3)] == [200, 200, 429]


def test_rates_of_keys_that_are_gone_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(access, "time", Clock)
    path, listener = str(tmp_path / "keys"), BoundListener("web", False, 0, 1, 1)
    checked = access.Access(HttpApi(keys_file=path, requests_per_s_per_key=1), listener, is_local=False)
    for number in range(5):
        made, text = make_key(f"key{number}", Role.VIEWER)
        write_keys(path, {made.name: made})
        request = make_mocked_request("GET", "/", headers={"authorization": f"Bearer {text}"})
        assert checked.check(request, Role.VIEWER) == made
        with pytest.raises(access.Denied):
            checked.check(request, Role.VIEWER)
    assert list(checked._buckets) == ["key4"]
