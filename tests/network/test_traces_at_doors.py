"""Traces of an address say why its clients cannot come in, at every door and before anything of MQTT is said."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from certificates import Authority
from mqttcore import Broker, Config, Listener, trace_entries
from mqttcore.bans import Ban
from mqttcore.cli.trace_lines import line_of
from mqttcore.codec import Connect
from mqttcore.config import HttpApi, Tls
from mqttcore.http.keys import Role, make_key, write_keys
from mqttcore.http.websocket import websocket_handler
from mqttcore.net.descriptors import DescriptorWatch
from mqttcore.net.overload import OverloadWatch
from mqttcore.tracing import Trace
from network.clients import Raw, address_of, until
from network.conftest import quiet_config
from network.test_half_open import HELLO_BEGUN, half_open
from network.test_proxy import TRUSTED, V1
from network.test_traces import seen
from websocket_wire import RawWebSocket, frame, upgrade_request

pytestmark = pytest.mark.usefixtures("driver")

DOORS = pytest.mark.parametrize("protocol", ["mqtt", "http"])
HERE = "127.0.0.1"
CLIENT = "192.0.2.7"  # of whom the header of a PROXY tells


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def door(protocol: str, authority: Authority | None = None, **listener: Any) -> Config:
    """Return the configuration of one listener."""
    if authority is not None:
        own = authority.server("localhost")
        listener["tls"] = Tls(certificate_file=str(own.certificate), key_file=str(own.key))
    return quiet_config(Listener(name="door", port=0, protocol=protocol, **listener))


async def failure(trace: Trace) -> trace_entries.ConnectionFailed:
    """Return the first failure of a connection, at the door that there is."""
    found: trace_entries.ConnectionFailed = await seen(trace, trace_entries.ConnectionFailed)
    assert (found.listener, found.address is not None) == ("door", True)
    return found


async def refusal(trace: Trace) -> trace_entries.RequestRefused:
    found: trace_entries.RequestRefused = await seen(trace, trace_entries.RequestRefused)
    return found


@contextlib.asynccontextmanager
async def client_of(broker: Broker):
    """Connect, and cut it however far the broker let it come."""
    reader, writer = await asyncio.open_connection(*address_of(broker))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


# --- connections ------------------------------------------------------------------------------------------------------


@DOORS
@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_connections": 1}, "max_connections"),
        ({"connection_rate": 1}, "connection_rate"),
        ({"connections_per_address": 1}, "more than 1 connections from its address"),
        ({"connection_rate_per_address": 1}, "more than 1 connections a second from its address"),
    ],
)
async def test_one_too_many(protocol: str, limit: dict[str, int], reason: str):
    async with Broker(door(protocol, **limit)) as broker, contextlib.AsyncExitStack() as stack:
        trace = broker.traces.start("address", HERE)
        elsewhere = broker.traces.start("address", "198.51.100.0/24")
        for _ in range(10):  # one of them comes within the second, however slow we are
            await stack.enter_async_context(client_of(broker))
        failed = await failure(trace)
        assert failed.reason == reason
        assert (failed.address or "").startswith(f"{HERE}:")
        assert len(elsewhere) == 0


@DOORS
@pytest.mark.parametrize("said", [b"", HELLO_BEGUN])
async def test_handshake_that_stalls(authority: Authority, protocol: str, said: bytes):
    async with Broker(door(protocol, authority, handshake_timeout_s=0.2)) as broker:
        trace = broker.traces.start("address", HERE)
        async with half_open(broker, 1, said):
            assert "TLS" in (await failure(trace)).reason


@DOORS
async def test_handshake_that_makes_room(authority: Authority, protocol: str):
    async with Broker(door(protocol, authority, handshakes_maximum=1)) as broker:
        trace = broker.traces.start("address", HERE)
        async with half_open(broker, 1), asyncio.timeout(20):
            await until(lambda: broker.metrics()["handshakes_under_way"] == 1)
            while not trace_of(trace, "made room for a newer handshake"):
                async with half_open(broker, 1):
                    await asyncio.sleep(0.05)


def trace_of(trace: Trace, reason: str) -> list[Any]:
    return [entry for entry in trace.entries() if getattr(entry, "reason", None) == reason]


@DOORS
async def test_one_handshake_too_many(authority: Authority, protocol: str, driver: str):
    async with Broker(door(protocol, authority, handshakes_maximum=1)) as broker:
        trace = broker.traces.start("address", HERE)
        async with asyncio.timeout(20):
            while not trace_of(trace, "handshakes_maximum"):  # on a machine that is slow the first makes room
                async with half_open(broker, 2):
                    await asyncio.sleep(0.05)
        (told, *_) = trace_of(trace, "handshakes_maximum")
        assert told.listener == "door"
        # Where it stays in the kernel, nobody knows who it is.
        is_known = (driver, protocol) != ("epoll", "mqtt")
        assert type(told) is (trace_entries.ConnectionFailed if is_known else trace_entries.AcceptingPaused)


@DOORS
async def test_plain_text_where_tls_is_spoken(authority: Authority, protocol: str):
    async with Broker(door(protocol, authority)) as broker, client_of(broker) as (_, writer):
        trace = broker.traces.start("address", HERE)
        writer.write(upgrade_request())
        assert (await failure(trace)).reason.startswith("TLS: ")


@DOORS
async def test_proxy_that_is_not_trusted(protocol: str):
    settings = TRUSTED | {"proxy_trusted": ["192.0.2.0/24"]}
    async with Broker(door(protocol, **settings)) as broker:
        trace = broker.traces.start("address", HERE)
        async with client_of(broker):
            assert (await failure(trace)).reason == "not among proxy_trusted"


@DOORS
async def test_proxy_header_that_is_late(protocol: str):
    async with Broker(door(protocol, handshake_timeout_s=0.2, **TRUSTED)) as broker:
        trace = broker.traces.start("address", HERE)
        async with client_of(broker) as (_, writer):
            writer.write(V1[:10])
            assert (await failure(trace)).reason == "no PROXY header in time"


@DOORS
async def test_proxy_header_that_is_none(protocol: str):
    async with Broker(door(protocol, **TRUSTED)) as broker:
        trace = broker.traces.start("address", HERE)
        async with client_of(broker) as (_, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await failure(trace)).reason.startswith("PROXY header: ")


@DOORS
async def test_limit_of_a_client_behind_a_proxy(protocol: str):
    async with Broker(door(protocol, connections_per_address=1, **TRUSTED)) as broker:
        trace = broker.traces.start("address", CLIENT)
        async with client_of(broker) as (_, one), client_of(broker) as (_, two):
            for writer in (one, two):
                writer.write(V1)
            failed = await failure(trace)
            assert failed.reason == "more than 1 connections from its address"
            assert (failed.address or "").startswith(f"{CLIENT}:")


async def test_connection_that_says_nothing():
    async with Broker(door("mqtt", connect_timeout_s=0.2)) as broker:
        trace = broker.traces.start("address", HERE)
        async with client_of(broker):
            closed = await seen(trace, trace_entries.ConnectionClosed)
        assert closed.reason == "no CONNECT answered in time"


# --- what nobody knows the address of ---------------------------------------------------------------------------------


async def test_overload(authority: Authority, driver: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(OverloadWatch, "is_overloaded", lambda self, now_s: True)
    async with Broker(door("mqtt", authority)) as broker:
        await until(lambda: broker.metrics()["overloaded"] == 1)
        trace = broker.traces.start("address", HERE)
        if driver == "epoll":
            async with half_open(broker, 1, HELLO_BEGUN):
                paused = await seen(trace, trace_entries.AcceptingPaused)
                assert (paused.listener, paused.reason) == ("door", "overloaded")
                await until(lambda: len(trace_of(trace, "overloaded")) > 1)
                one, two, *_ = trace_of(trace, "overloaded")
                assert two.time_ms - one.time_ms > 900  # of the turns between them, nothing is told
    async with Broker(door("mqtt")) as broker, await Raw.open(broker) as raw:
        await until(lambda: broker.metrics()["overloaded"] == 1)
        trace = broker.traces.start("address", HERE)
        await raw.send(Connect("a"))
        refused = await seen(trace, trace_entries.ConnectRefused)
        assert (refused.reason_code, refused.reason) == (0x89, "overloaded")


async def test_no_descriptor_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DescriptorWatch, "look", lambda self: False)
    async with Broker(door("http")) as broker:
        trace = broker.traces.start("address", HERE)
        paused = await seen(trace, trace_entries.AcceptingPaused)
        assert (paused.listener, paused.reason) == (None, "there is no descriptor left")
        assert "nobody is accepted on any listener: there is no descriptor left" in line(paused)


# --- CONNECT ----------------------------------------------------------------------------------------------------------


@DOORS
async def test_ban(protocol: str):
    async with Broker(door(protocol)) as broker, client_of(broker) as (reader, writer):
        trace = broker.traces.start("address", HERE)
        broker.bans.add(Ban(kind="address", value=HERE, reason="noise"))
        if protocol == "http":
            client = RawWebSocket(reader, writer)
            await client.send(upgrade_request())
            await client.answer()

            await client.send(frame(Connect("a").encode(5)))
        else:
            writer.write(Connect("a").encode(5))
        refused = await seen(trace, trace_entries.ConnectRefused)
        assert (refused.reason_code, refused.reason) == (0x8A, "noise")


# --- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status", "detail"),
    [
        (upgrade_request(path="/mqt"), 404, None),
        (upgrade_request().replace(b"GET", b"POST"), 405, None),
        (upgrade_request(protocols="chat"), 400, "the WebSocket sub-protocol is mqtt"),
        (upgrade_request(sec_websocket_version="8"), 426, "the version of WebSocket is 13"),
        (upgrade_request(leave_out="upgrade"), 426, "MQTT in WebSocket is spoken here"),
        (upgrade_request(origin="https://elsewhere.example"), 403, "pages of this origin may not connect"),
    ],
)
async def test_upgrade_that_is_refused(said: bytes, status: int, detail: str | None):
    config = door("http", websocket_origins=["https://here.example"])
    async with Broker(config) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        trace = broker.traces.start("address", HERE)
        await client.send(said)
        assert (await client.answer()).status == status
        refused = await refusal(trace)
        assert (refused.status, refused.detail, refused.listener) == (status, detail, "door")
        assert (refused.method, refused.path) == tuple(said.split(b" ", 2)[n].decode() for n in (0, 1))
        assert (refused.address or "").startswith(f"{HERE}:")
        assert len(trace) == 1  # said once, though the handler and the application both know
        assert f"{refused.method} {refused.path} from {refused.address} on door: HTTP {status}" in line(refused)


async def test_broker_that_is_not_ready(monkeypatch: pytest.MonkeyPatch):
    async with Broker(door("http")) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        trace = broker.traces.start("address", HERE)
        monkeypatch.setattr(broker, "_is_ready", False)
        await client.send(upgrade_request())
        refused = await refusal(trace)
        assert (refused.status, refused.detail) == (503, "the broker takes no clients now")


async def test_api_that_refuses(tmp_path: Path):
    keys_file = tmp_path / "keys"
    key, _ = make_key("ann", Role.VIEWER)
    write_keys(str(keys_file), {"ann": key})
    config = msgspec.structs.replace(door("http"), http_api=HttpApi(keys_file=str(keys_file)))
    async with Broker(config) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        trace = broker.traces.start("address", HERE)
        secret = b"ann.SECRETSECRET"
        await client.send(
            b"GET /api/v1/clients?signature=HIDDEN HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + b"\r\n\r\n"
        )
        refused = await refusal(trace)
        assert (refused.status, refused.path) == (401, "/api/v1/clients")
        assert refused.detail == "a good API key is needed"
        told = msgspec.json.encode(trace.entries())
        assert b"HIDDEN" not in told
        assert b"SECRET" not in told


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\r\n\r\n", "HTTP: not a request of HTTP/1.1"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP: a line, or a header, is longer than"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Key: SECRET" + b"x" * 9000 + b"\r\n\r\n",
            "HTTP: a line, or a header, is longer",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            "HTTP: not a request of HTTP/1.1, or larger than",
        ),
    ],
    ids=["no HTTP", "line", "header", "headers"],
)
async def test_request_that_is_none_or_too_large(said: bytes, reason: str):
    async with Broker(door("http")) as broker, client_of(broker) as (reader, writer):
        trace = broker.traces.start("address", HERE)
        writer.write(said)
        assert (await reader.readline()).split()[1] == b"400"
        failed = await failure(trace)
        assert failed.reason.startswith(reason)
        assert "SECRET" not in failed.reason


@pytest.mark.parametrize("said", [b"", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n"])
async def test_request_that_does_not_come(said: bytes):
    async with Broker(door("http", http_header_timeout_s=0.2)) as broker, client_of(broker) as (reader, writer):
        trace = broker.traces.start("address", HERE)
        writer.write(said)
        assert (await failure(trace)).reason == "HTTP: no whole request came in time"
        assert await reader.read() == b""


async def test_too_many_connections_that_speak_http():
    async with Broker(door("http", http_connections_per_address=1)) as broker:
        trace = broker.traces.start("address", HERE)
        reasons = "too many connections that speak HTTP", "made room for another connection that speaks HTTP"
        for reason in reasons:  # the first goes when it has been there for a second
            async with client_of(broker), asyncio.timeout(20):
                while not trace_of(trace, reason):
                    async with client_of(broker):
                        await asyncio.sleep(0.05)
            assert trace_of(trace, reason)[0].listener == "door"


async def test_clients_address_is_that_of_the_header():
    async with Broker(door("http", **TRUSTED)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        trace, of_proxy = (broker.traces.start("address", address) for address in (CLIENT, HERE))
        await client.send(V1 + upgrade_request(path="/mqt"))
        assert (await refusal(trace)).address == f"{CLIENT}:40000"
        await client.send(b"\0\0\r\n\r\n")
        assert (await failure(trace)).address == f"{CLIENT}:40000"
        assert len(of_proxy) == 0


async def test_application_of_ones_own():
    async with Broker(quiet_config()) as broker:
        trace = broker.traces.start("address", HERE)
        app = web.Application()
        app.router.add_get("/things", websocket_handler(broker), allow_head=False)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HERE, 0).start()
        async with await RawWebSocket.connect(*runner.addresses[0]) as client:
            await client.send(upgrade_request(path="/things", protocols="chat"))
            assert (await client.answer()).status == 400
            refused = await refusal(trace)
        assert (refused.listener, refused.status) == (None, 400)
        assert (refused.address or "").startswith(f"{HERE}:")
        await runner.cleanup()


async def test_what_is_answered_is_not_told():
    async with Broker(door("http")) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        trace = broker.traces.start("address", HERE)
        by_client = broker.traces.start("client_id", "a")
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer()).status == 200
        broker.traces.stop(trace.name)
        await client.send(upgrade_request(path="/mqt"))
        assert (await client.answer()).status == 404
        assert len(trace) == len(by_client) == 0


def line(entry: Any) -> str:
    return line_of(msgspec.to_builtins(entry))
