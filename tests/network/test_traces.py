"""Traces of a running broker: their life and bounds, and what they see at every door."""

import asyncio
import base64
import contextlib
import json
import ssl
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from certificates import Authority
from mqttcore import Broker, Config, Identity, Listener, MqttCoreError, QuotaExceeded, Refusal, hookimpl, trace_entries
from mqttcore.client import ConnectionRefused, open_client
from mqttcore.codec import Connect, Subscription
from mqttcore.config import Tls, Tracing
from mqttcore.http.keys import Role, make_key, write_keys
from mqttcore.tracing import Trace
from websocket_wire import TEXT, RawWebSocket, frame, upgrade_request

from .clients import Raw, address_of, join, until
from .conftest import quiet_config
from .http_api import Api, api_config
from .tls import client_context, streams, tls_config


def tracing(config: Config, **settings: Any) -> Config:
    return msgspec.structs.replace(config, tracing=Tracing(**settings))


def kinds(trace: Trace) -> list[str]:
    """Return what a trace holds, packets by direction and type."""
    return [
        f"{entry.direction} {entry.packet_type}"
        if isinstance(entry, trace_entries.PacketSeen)
        else type(entry).__name__
        for entry in trace.entries()
    ]


async def seen(trace: Trace, kind: type) -> Any:
    """Return the first entry of a kind, when it comes."""
    async with asyncio.timeout(60):
        async for entry in trace:
            if isinstance(entry, kind):
                return entry
    raise AssertionError(f"{trace.name} ended without {kind}")


async def test_entries_come_as_they_happen_until_the_trace_ends(config: Config):
    async with Broker(config) as broker:
        trace = broker.traces.start("client_id", "a", duration_s=60)

        async def follow() -> list[Any]:
            return [entry async for entry in trace]

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            followers = [group.create_task(follow()) for _ in range(2)]
            async with await join(broker, "a"):
                pass
            await seen(trace, trace_entries.SessionEnded)
            assert trace.is_running
            assert broker.traces.stop(trace.name)
        assert [one.result() for one in followers] == [trace.entries()] * 2
        taken = trace.next
        assert (trace.is_running, trace.end_reason) == (False, "stopped")
        async with await join(broker, "a"):
            pass
        assert trace.next == taken
        assert not broker.traces.stop(trace.name)
        assert broker.traces.delete(trace.name)
        assert not broker.traces.delete(trace.name)
        assert broker.traces.get(trace.name) is None


async def test_it_ends_by_itself(config: Config):
    async with Broker(config) as broker:
        trace = broker.traces.start("topic_filter", "t", duration_s=0.05)
        async with asyncio.timeout(60):
            async for entry in trace:
                raise AssertionError(entry)
        assert trace.end_reason == "its time is over"
        await broker.publish("t")
        assert len(trace) == 0
        assert not broker._engine.is_watched


async def test_it_ends_with_the_broker(config: Config):
    broker = Broker(config)
    with pytest.raises(MqttCoreError):
        broker.traces.start("client_id", "a")
    async with broker:
        trace = broker.traces.start("client_id", "a")
        await (await join(broker, "a")).close()
        await seen(trace, trace_entries.SessionEnded)
    assert trace.end_reason == "the broker stopped"
    assert kinds(trace)[0] == "ConnectionOpened"
    with pytest.raises(MqttCoreError):
        broker.traces.start("client_id", "a")


@pytest.mark.parametrize(
    ("subject", "value", "more", "reason"),
    [
        ("client_id", "", {}, "which client id"),
        ("topic_filter", "a/#/b", {}, "no Topic Filter"),
        ("topic_filter", "$share/g/t", {}, r"leave out \$share"),
        ("address", "nowhere", {}, "no address, network or `unix`"),
        ("address", "10.0.0.0/33", {}, "no address, network or `unix`"),
        ("client_id", "a", {"duration_s": 0}, "duration_s 0 is not"),
        ("client_id", "a", {"duration_s": float("nan")}, "duration_s nan is not"),
        ("client_id", "a", {"duration_s": 1e9}, "duration_s 1e.09 is not"),
        ("client_id", "a", {"payload_bytes": 2000}, "payload_bytes 2000 is not"),
        ("client_id", "a", {"payload_bytes": -1}, "payload_bytes -1 is not"),
        ("client_id", "a", {"name": "../x"}, "no name"),
        ("client_id", "a", {"name": "x\n"}, "no name"),
    ],
)
async def test_what_cannot_be_traced(config: Config, subject: Any, value: str, more: dict[str, Any], reason: str):
    async with Broker(config) as broker:
        with pytest.raises(ValueError, match=reason):
            broker.traces.start(subject, value, **more)
        assert len(broker.traces) == 0
        assert broker.metrics()["traces_held"] == 0


async def test_ended_traces_make_room_and_running_ones_do_not(config: Config):
    async with Broker(tracing(config, traces_maximum=2)) as broker:
        first = broker.traces.start("client_id", "a", name="first")
        broker.traces.start("client_id", "a", name="second")
        with pytest.raises(QuotaExceeded, match="there is a trace second already"):
            broker.traces.start("client_id", "b", name="second")
        with pytest.raises(QuotaExceeded, match="2 traces are running"):
            broker.traces.start("client_id", "b")
        broker.traces.stop("first")
        with pytest.raises(ValueError, match="no Topic Filter"):
            broker.traces.start("topic_filter", "#/")
        assert [trace.name for trace in broker.traces] == ["first", "second"]
        third = broker.traces.start("client_id", "b")
        assert [trace.name for trace in broker.traces] == ["second", third.name]
        assert not first.is_running
        metrics = broker.metrics()
        assert (metrics["traces_running"], metrics["traces_held"], metrics["traces_forgotten"]) == (2, 2, 1)


@pytest.mark.parametrize("bounds", [{"entries_maximum": 3}, {"bytes_maximum": 1500}])
async def test_oldest_entries_make_room(config: Config, bounds: dict[str, int]):
    async with Broker(tracing(config, **bounds)) as broker:
        trace = broker.traces.start("topic_filter", "t/#")
        for number in range(20):
            await broker.publish(f"t/{number}")
        assert [entry.topic for entry in trace.entries()] == ["t/17", "t/18", "t/19"]
        assert (trace.first, trace.next, trace.dropped) == (17, 20, 17)
        assert [entry.topic for entry in trace.entries(18, 1)] == ["t/18"]
        assert trace.entries(20) == []
        assert 0 < trace.bytes_held <= 1500
        metrics = broker.metrics()
        assert (metrics["trace_entries"], metrics["trace_entries_dropped"]) == (20, 17)
        assert metrics["trace_bytes"] == trace.bytes_held
        broker.traces.delete(trace.name)
        metrics = broker.metrics()
        assert (metrics["trace_entries"], metrics["trace_entries_dropped"], metrics["trace_bytes"]) == (20, 17, 0)


async def test_entries_over_the_rate_are_counted(config: Config):
    async with Broker(tracing(config, entries_per_s_maximum=10)) as broker:
        trace = broker.traces.start("topic_filter", "#")
        began_s = time.monotonic()
        for _ in range(20):
            await broker.publish("t")
        taken = len(trace)
        assert 9 <= taken <= 10 + (time.monotonic() - began_s) * 10
        assert trace.skipped == broker.metrics()["trace_entries_skipped"] == 20 - taken


async def test_failing_trace_is_over_and_the_connection_is_not(
    config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    async with Broker(config) as broker:
        trace = broker.traces.start("client_id", "a")
        monkeypatch.setattr("mqttcore.tracing._size", None)
        async with await join(broker, "a") as client:
            await client.publish("t", qos=1)
            await until(lambda: not trace.is_running)
            assert "it failed" in (trace.end_reason or "")
        assert broker.metrics()["traces_failed"] == 1
        assert "trace trace-1 failed and ends" in caplog.text


# --- doors ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.usefixtures("driver")
async def test_connections_that_are_no_mqtt(config: Config):
    async with Broker(config) as broker:
        trace = broker.traces.start("address", "127.0.0.0/8")
        elsewhere = broker.traces.start("address", "192.0.2.1")
        async with await Raw.open(broker) as raw:
            await raw.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
            assert await raw.receive() is None
        closed = await seen(trace, trace_entries.ConnectionClosed)
        opened, broken, *_ = trace.entries()
        assert kinds(trace) == ["ConnectionOpened", "ProtocolBroken", "ConnectionClosed"]
        assert opened.address.startswith("127.0.0.1:")
        assert (opened.listener, opened.client_id) == ("default", None)
        assert broken.clause == "MQTT-3.1.0-1"
        assert closed.connection == opened.connection
        assert len(elsewhere) == 0


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_connections": 1}, "max_connections"),
        ({"connection_rate": 1}, "connection_rate"),
        ({"connections_per_address": 1}, "connections_per_address"),
    ],
)
async def test_connection_that_is_one_too_many(limit: dict[str, int], reason: str):
    async with Broker(quiet_config(Listener(port=0, **limit))) as broker, contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(await Raw.open(broker))
        await first.send(Connect("a", keep_alive_s=0))
        await first.receive()
        trace = broker.traces.start("address", "127.0.0.1")
        for _ in range(10):  # one of them comes within the second, however slow we are
            await stack.enter_async_context(await Raw.open(broker))
        failed = await seen(trace, trace_entries.ConnectionFailed)
        assert reason.partition("_per_")[0].replace("_", " ") in failed.reason.replace("_", " ")
        assert failed.address.startswith("127.0.0.1:")
        assert failed.listener == "default"


@pytest.mark.usefixtures("driver")
async def test_tls_that_fails(authority: Authority):
    async with Broker(tls_config(authority.server("localhost"))) as broker:
        trace = broker.traces.start("address", "127.0.0.1")
        async with await Raw.open(broker) as raw:
            await raw.send_bytes(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
            await seen(trace, trace_entries.ConnectionClosed)
        opened, failed, _ = trace.entries()
        assert isinstance(opened, trace_entries.ConnectionOpened)
        assert isinstance(failed, trace_entries.ConnectionFailed)
        assert failed.reason.startswith("TLS: ")
        assert failed.connection == opened.connection


@pytest.mark.usefixtures("driver")
async def test_client_behind_tls(authority: Authority):
    async with Broker(tls_config(authority.server("localhost"))) as broker:
        trace = broker.traces.start("client_id", "a")
        _, writer = await streams(broker, client_context(authority))
        writer.write(Connect("a", keep_alive_s=0).encode(5))
        opened = await seen(trace, trace_entries.ConnectionOpened)
        assert opened.has_tls
        await until(lambda: "out connack" in kinds(trace))
        writer.close()


@pytest.mark.usefixtures("driver")
async def test_tls_that_fails_at_an_http_listener(authority: Authority):
    server = authority.server("localhost")
    settings = Tls(certificate_file=str(server.certificate), key_file=str(server.key))
    async with Broker(quiet_config(Listener(port=0, protocol="http", tls=settings))) as broker:
        trace = broker.traces.start("address", "127.0.0.1")
        host, port = address_of(broker)
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection(host, port, ssl=ssl.create_default_context(), server_hostname="localhost")
        failed = await seen(trace, trace_entries.ConnectionFailed)
        assert failed.listener == "default"
        assert failed.reason.startswith("TLS: ")


@pytest.mark.usefixtures("driver")
async def test_client_in_websocket():
    async with Broker(quiet_config(Listener(port=0, protocol="http"))) as broker:
        by_address = broker.traces.start("address", "127.0.0.1")
        by_client = broker.traces.start("client_id", "a")
        client = RawWebSocket(*await asyncio.open_connection(*address_of(broker)))
        async with client:
            await client.send(upgrade_request())
            await client.answer()
            await client.send(frame(Connect("a", keep_alive_s=0).encode(5)))
            await client.frame()
        await seen(by_client, trace_entries.SessionEnded)
        assert kinds(by_client)[:4] == ["ConnectionOpened", "in connect", "SessionOpened", "out connack"]
        assert kinds(by_address)[:4] == kinds(by_client)[:4]


@pytest.mark.usefixtures("driver")
async def test_websocket_frame_that_is_none():
    async with Broker(quiet_config(Listener(port=0, protocol="http"))) as broker:
        trace = broker.traces.start("address", "127.0.0.1")
        async with RawWebSocket(*await asyncio.open_connection(*address_of(broker))) as client:
            await client.send(upgrade_request())
            await client.answer()
            await client.send(frame(b"text", TEXT))
            await seen(trace, trace_entries.ConnectionClosed)
        _, failed, _ = trace.entries()
        assert failed.reason == "WebSocket: MQTT takes binary frames only"


@pytest.mark.usefixtures("driver")
async def test_client_of_a_unix_socket(tmp_path: Path):
    path = str(tmp_path / "s")
    async with Broker(quiet_config(Listener(path=path))) as broker:
        trace = broker.traces.start("address", "unix")
        async with await open_client(Connect("a"), unix_path=path):
            pass
        await seen(trace, trace_entries.ConnectionClosed)
        assert trace.entries()[0].address is None
        assert "in connect" in kinds(trace)


@pytest.mark.usefixtures("driver")
async def test_client_behind_a_proxy():
    proxy = {"proxy_protocol": "v1", "proxy_trusted": ["127.0.0.0/8"]}
    listener = Listener(port=0, allow_anonymous=True, connections_per_address=1, **proxy)
    async with Broker(quiet_config(listener)) as broker:
        trace = broker.traces.start("address", "192.0.2.7")
        of_proxy = broker.traces.start("address", "127.0.0.1")
        header = b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 1883\r\n"
        async with await Raw.open(broker) as raw, await Raw.open(broker) as too_many:
            await raw.send_bytes(header + Connect("a", keep_alive_s=0).encode(5))
            await raw.receive()
            await too_many.send_bytes(header)
            failed = await seen(trace, trace_entries.ConnectionFailed)
        assert trace.entries()[0].address == "192.0.2.7:1234"
        assert kinds(trace)[1:3] == ["in connect", "SessionOpened"]
        assert "192.0.2.7" in (failed.address or "")
        assert not [entry for entry in of_proxy.entries() if isinstance(entry, trace_entries.PacketSeen)]


class Judge:
    """Takes some, refuses others; slowly, if told so."""

    def __init__(self, *, is_slow: bool) -> None:
        self.is_slow = is_slow

    @hookimpl
    def authenticate(self, client: Any, connect: Any) -> Any:
        answer = Refusal(0x87, "not you") if client.client_id == "bad" else Identity("ann")
        if client.client_id == "nobody":
            answer = None

        async def later() -> Any:
            return answer

        return later() if self.is_slow else answer

    @hookimpl
    def authorize_subscribe(self, client: Any, topic_filter: str, qos: int) -> bool:
        return topic_filter == "yes"


@pytest.mark.parametrize("is_slow", [True, False])
async def test_who_decided_what(is_slow: bool):
    config = quiet_config(Listener(port=0, allow_anonymous=True))
    async with Broker(config, plugins=[Judge(is_slow=is_slow)]) as broker:
        trace = broker.traces.start("address", "127.0.0.1")
        with pytest.raises(ConnectionRefused):
            await join(broker, "bad")
        await (await join(broker, "nobody")).close()
        async with await join(broker, "good") as client:
            await client.subscribe([Subscription("yes"), Subscription("no")])
        decided = [
            (entry.client_id, entry.hook, entry.plugin, entry.answer)
            for entry in trace.entries()
            if isinstance(entry, trace_entries.Decided)
        ]
        name = decided[0][2]
        assert decided == [
            ("bad", "authenticate", name, "refused, 0x87: not you"),
            ("nobody", "authenticate", None, "no opinion"),
            ("good", "authenticate", name, "is 'ann'"),
            ("good", "authorize_subscribe", name, "'yes': allowed"),
            ("good", "authorize_subscribe", name, "'no': refused"),
        ]
        refused = next(one for one in trace.entries() if isinstance(one, trace_entries.ConnectRefused))
        assert (refused.reason_code, refused.reason) == (0x87, "not you")


# --- over HTTP --------------------------------------------------------------------------------------------------------


async def test_a_trace_over_http():
    async with Broker(api_config()) as broker, Api(broker) as api:
        begun = await api.ask(
            "POST", "/traces", json={"subject": "topic_filter", "value": "t/#", "name": "mine", "payload_bytes": 2}
        )
        assert (begun["name"], begun["is_running"], begun["entries"]) == ("mine", True, 0)
        await api.ask("POST", "/traces", json={"subject": "client_id", "value": "a", "name": "mine"}, expect=409)
        await api.ask("POST", "/traces", json={"subject": "address", "value": "x"}, expect=409)
        await api.ask("POST", "/traces", json={"subject": "user", "value": "x"}, expect=400)
        page = await api.ask("GET", "/traces/mine/entries")
        assert page == {"entries": [], "first_number": 0, "next_number": 0, "is_running": True}

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            waiting = group.create_task(api.ask("GET", "/traces/mine/entries", params={"wait_s": "10"}))
            await asyncio.sleep(0)
            for number in range(3):
                await broker.publish(f"t/{number}", b"hello")
        page = waiting.result()
        assert page["entries"][0]["kind"] == "published"
        assert base64.b64decode(page["entries"][0]["payload_base64"]) == b"he"
        page = await api.ask("GET", "/traces/mine/entries", params={"start": "1", "limit": "1"})
        assert [one["topic"] for one in page["entries"]] == ["t/1"]
        assert (page["first_number"], page["next_number"]) == (1, 2)

        async with api._session.get(f"{api.url}/api/v1/traces/mine/download") as answer:
            assert answer.content_type == "application/x-ndjson"
            assert "mine.ndjson" in answer.headers["Content-Disposition"]
            assert answer.headers["Cache-Control"] == "no-store"
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert [line["topic"] for line in lines] == ["t/0", "t/1", "t/2"]

        assert (await api.ask("POST", "/traces/mine/stop"))["end_reason"] == "stopped"
        began = time.monotonic()
        page = await api.ask("GET", "/traces/mine/entries", params={"start": "3", "wait_s": "10"})
        assert (page["entries"], page["next_number"], page["is_running"]) == ([], 3, False)
        assert time.monotonic() - began < 9
        assert [one["name"] for one in (await api.ask("GET", "/traces"))["traces"]] == ["mine"]
        assert (await api.ask("GET", "/traces/mine"))["entries"] == 3
        await api.ask("DELETE", "/traces/mine", expect=204)
        for method, path in (
            ("GET", ""),
            ("GET", "/entries"),
            ("GET", "/download"),
            ("POST", "/stop"),
            ("DELETE", ""),
        ):
            await api.ask(method, f"/traces/mine{path}", expect=404)


async def test_page_says_what_made_room():
    async with Broker(tracing(api_config(), entries_maximum=2)) as broker, Api(broker) as api:
        trace = broker.traces.start("topic_filter", "#")
        for _ in range(5):
            await broker.publish("t")
        page = await api.ask("GET", f"/traces/{trace.name}/entries", params={"start": "1"})
        assert (page["first_number"], page["next_number"], len(page["entries"])) == (3, 5, 2)
        page = await api.ask("GET", f"/traces/{trace.name}/entries", params={"start": "9"})
        assert (page["first_number"], page["next_number"], page["entries"]) == (9, 9, [])


async def test_viewers_see_no_entries(tmp_path: Path):
    path = str(tmp_path / "keys")
    made = {role: make_key(role.name.lower(), role) for role in (Role.VIEWER, Role.OPERATOR)}
    write_keys(path, {key.name: key for key, _ in made.values()})
    async with Broker(api_config(keys_file=path)) as broker:
        trace = broker.traces.start("client_id", "a")
        async with Api(broker, made[Role.VIEWER][1]) as api:
            await api.ask("GET", "/traces")
            await api.ask("GET", f"/traces/{trace.name}")
            for method, rest in (("GET", "/entries"), ("GET", "/download"), ("POST", "/stop"), ("DELETE", "")):
                await api.ask(method, f"/traces/{trace.name}{rest}", expect=403)
            await api.ask("POST", "/traces", json={"subject": "client_id", "value": "b"}, expect=403)
        async with Api(broker, made[Role.OPERATOR][1]) as api:
            await api.ask("GET", f"/traces/{trace.name}/entries")


async def test_wait_is_over_before_the_request_would_be_too_late():
    config = api_config()
    config.listeners[0] = msgspec.structs.replace(config.listeners[0], http_request_timeout_s=3.0)
    async with Broker(config) as broker, Api(broker) as api:
        trace = broker.traces.start("client_id", "a")
        page = await api.ask("GET", f"/traces/{trace.name}/entries", params={"wait_s": "10"})
        assert page["is_running"] is True


async def test_who_waits_for_more_does_not_keep_the_broker_from_stopping():
    broker = Broker(msgspec.structs.replace(api_config(), shutdown_timeout_s=100))
    await broker.start()
    trace = broker.traces.start("client_id", "a")
    async with Api(broker) as api, asyncio.TaskGroup() as group:
        waiting = group.create_task(api.ask("GET", f"/traces/{trace.name}/entries", params={"wait_s": "10"}))
        await until(lambda: trace._arrived._waiters)
        began = time.monotonic()
        await broker.stop()
        assert time.monotonic() - began < 8
    assert waiting.result()["is_running"] is False


async def test_many_connections_are_looked_at_little_by_little(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mqttcore.tracing._SLICE", 2)
    async with Broker(config) as broker:
        clients = [await join(broker, f"c{number}") for number in range(5)]
        trace = broker.traces.start("address", "127.0.0.1")
        assert len(trace) == 2
        await until(lambda: len(trace) == 5)
        assert {entry.client_id for entry in trace.entries()} == {f"c{number}" for number in range(5)}
        engine = broker._engine
        assert len(engine.watched_connections()) == 5
        broker.traces.delete(trace.name)
        assert len(engine.watched_connections()) == 3
        await until(lambda: engine.watched_connections() == [])
        for client in clients:
            await client.publish("t", qos=1)
            await client.close()
