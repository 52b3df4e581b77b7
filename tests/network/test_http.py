"""The HTTP service: health, errors, and clients that stall or say too much."""

import asyncio
import json
import logging

import aiohttp
import pytest
from aiohttp import web

from mqttcore import Broker, Listener, MqttCoreError
from mqttcore.http import make_app
from websocket_wire import RawWebSocket

from .clients import address_of, until
from .conftest import quiet_config

GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


def http(**settings) -> Listener:
    return Listener(port=0, protocol="http", **settings)


async def body_of(client: RawWebSocket, headers: dict[str, str]) -> dict:
    return json.loads(await client.reader.readexactly(int(headers["content-length"])))


async def test_health_and_readiness():
    async with Broker(quiet_config(http())) as broker, aiohttp.ClientSession() as session:
        host, port = address_of(broker)
        broker.raise_alarm("test", "something")
        ready = {"status": "ready", "alarms": ["test"], "stopped_listeners": []}
        for path, said in (("healthz", {"status": "ok"}), ("readyz", ready)):
            async with session.get(f"http://{host}:{port}/{path}") as answer:
                assert answer.status == 200
                assert await answer.json() == said
                assert answer.headers["server"] == "mqttcore"


async def test_broker_that_is_stopping_is_not_ready():
    """A connection that is there already is answered until the end: load balancers are to see it coming."""
    broker = Broker(quiet_config(http(name="web"), Listener(name="tcp", port=0)))
    asked = asyncio.Event()

    async def wait_for_stop(request: web.Request) -> web.Response:
        asked.set()
        while broker.is_ready:  # noqa: ASYNC110  there is nothing to be notified by
            await asyncio.sleep(0.005)
        return web.Response(text=str(broker.is_ready))

    app = make_app(broker, http(), routes=[web.get("/wait", wait_for_stop)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    await broker.start()
    async with aiohttp.ClientSession() as session:
        waiting = asyncio.create_task(session.get(f"http://{host}:{port}/wait"))
        await asked.wait()
        await broker.stop()
        async with await waiting as answer:
            assert await answer.text() == "False"
        async with session.get(f"http://{host}:{port}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json(content_type="application/problem+json"))["status"] == 503
    await runner.cleanup()


@pytest.mark.parametrize(
    ("sent", "status", "title"),
    [
        (b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n", 404, "Not Found"),
        (b"DELETE /healthz HTTP/1.1\r\nhost: a\r\n\r\n", 405, "Method Not Allowed"),
        (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\r\n\r\n", 400, "Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 9000 + b"\r\n\r\n", 400, "Bad Request"),
        (b"GET /" + b"y" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 400, "Bad Request"),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 80 + b"\r\n", 400, "Bad Request"),
    ],
)
async def test_errors_are_problems_and_name_no_version(sent, status, title):
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(sent)
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["server"] == "mqttcore"
        problem = await body_of(client, answer.headers)
        assert problem["status"] == status
        assert problem["title"] == title
        if status == 405:
            assert answer.headers["allow"] == "GET,HEAD"


POST = b"POST /api/v1/publish HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
AMBIGUOUS = {
    "two framings": POST + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
    "a signed length": POST + b"content-length: +2\r\n\r\n{}",
    "a negative length": POST + b"content-length: -1\r\n\r\n{}",
    "a length over 64 bits": POST + b"content-length: 99999999999999999999\r\n\r\n{}",
    "an unknown coding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked is not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a chunk over 64 bits": POST + b"transfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{}",
    "a chunk size with a prefix": POST + b"transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunks without CR": POST + b"transfer-encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "endless trailers": POST + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
    "an endless extension": POST + b"transfer-encoding: chunked\r\n\r\n2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
    "lines without CR": b"GET /healthz HTTP/1.1\nhost: a\n\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
    "CR in a header": b"GET /healthz HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
    "a body that is not gzip": POST + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nabcde",
    "nested beyond measure": POST + b"content-length: 200000\r\n\r\n" + b"[" * 200_000,
    "a number without end": POST + b"content-length: 500008\r\n\r\n" + b'{"qos":' + b"9" * 500_000 + b"}",
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_what_others_might_read_otherwise_is_refused(sent: bytes, caplog: pytest.LogCaptureFixture):
    """A proxy in front and we must not disagree where a request ends (RFC 9112 §11.2); nor is it an error of ours."""
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(sent)
        answer = await client.answer()
        assert answer.status == 400
        assert answer.headers["content-type"] == "application/problem+json"
    assert not [one for one in caplog.records if one.levelno > logging.INFO]


@pytest.mark.parametrize("path", ["/healthz", "/mqtt", "/twice"])
async def test_route_that_is_there_already_is_an_error(path: str):
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    routes = [web.get("/twice", handler), web.get("/other", handler), web.get(path, handler)]
    with pytest.raises(MqttCoreError, match="route cannot be added"):
        make_app(Broker(quiet_config()), http(), routes=routes)


async def test_failing_handler_is_an_error_of_ours_and_the_next_request_is_answered(caplog):
    async def fail(request: web.Request) -> web.Response:
        raise RuntimeError("secret of the house")

    async def too_big(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def slow(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    routes = [web.get("/fail", fail), web.post("/big", too_big), web.get("/slow", slow)]
    settings = http(http_body_bytes_maximum=1000, http_request_timeout_s=2)
    async with Broker(quiet_config()) as broker:
        runner = web.AppRunner(make_app(broker, settings, routes=routes), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}:{port}/fail") as answer:
                assert answer.status == 500
                assert "secret" not in await answer.text()
            assert "secret of the house" in caplog.text
            async with session.post(f"http://{host}:{port}/big", data=b"x" * 2000) as answer:
                assert answer.status == 413
            async with session.post(f"http://{host}:{port}/big", data=b"x" * 1000) as answer:
                assert await answer.read() == b"x" * 1000
            async with session.get(f"http://{host}:{port}/slow") as answer:
                assert answer.status == 408
        await runner.cleanup()


@pytest.mark.parametrize("sent", [b"", b"GET", GET[:-2]], ids=["nothing", "half a line", "no end of headers"])
async def test_request_that_does_not_come_is_cut_off(sent):
    async with Broker(quiet_config(http(http_header_timeout_s=0.2))) as broker:
        client = await RawWebSocket.connect(*address_of(broker))
        await client.send(sent)
        assert await client.reader.read() == b""
        await client.close()
        await until(lambda: broker.listeners[0].connections == 0)


async def test_drip_of_headers_is_cut_off_after_a_request_too():
    listener = http(http_header_timeout_s=1)
    async with Broker(quiet_config(listener)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(GET)
        answer = await client.answer()
        await body_of(client, answer.headers)

        async def drip() -> None:  # each byte comes in time, the whole does not
            while True:
                await client.send(b"G")
                await asyncio.sleep(0.05)

        async with asyncio.timeout(60):
            with pytest.raises(ConnectionError):
                await drip()


async def test_kept_connection_waits_longer_than_headers_may_take():
    listener = http(http_header_timeout_s=1, http_keep_alive_s=60)
    async with Broker(quiet_config(listener)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        for _ in range(2):
            await client.send(GET)
            answer = await client.answer()
            assert answer.status == 200
            await body_of(client, answer.headers)
            await asyncio.sleep(1.3)


async def test_idle_connection_is_closed_after_its_keep_alive():
    listener = http(http_keep_alive_s=0.2)
    async with Broker(quiet_config(listener)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(GET)
        answer = await client.answer()
        await body_of(client, answer.headers)
        assert await client.reader.read() == b""


async def test_many_stalling_clients_do_not_keep_others_out():
    """As many half requests as the listener has places: each frees its own in time."""
    async with Broker(quiet_config(http(max_connections=50, http_header_timeout_s=3))) as broker:
        stalling = [await RawWebSocket.connect(*address_of(broker)) for _ in range(50)]
        for client in stalling:
            await client.send(GET[:20])
        await until(lambda: broker.listeners[0].connections == 50)
        turned_away = await RawWebSocket.connect(*address_of(broker))
        assert await turned_away.frame() is None
        assert broker.listeners[0].refused == 1
        await until(lambda: broker.listeners[0].connections == 0)
        client = await RawWebSocket.connect(*address_of(broker))
        await client.send(GET)
        assert (await client.answer()).status == 200
        for one in (*stalling, turned_away, client):
            await one.close()


async def test_stop_waits_for_no_idle_connection():
    broker = Broker(quiet_config(http(http_keep_alive_s=200), shutdown_timeout_s=100))
    await broker.start()
    async with await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(GET)
        await client.answer()
        async with asyncio.timeout(30):
            await broker.stop()


async def test_address_in_use_leaves_nothing_behind():
    async with Broker(quiet_config(http())) as broker:
        host, port = address_of(broker)
        second = Broker(quiet_config(http(name="free"), Listener(name="taken", host=host, port=port)))
        with pytest.raises(OSError, match=str(port)):
            await second.start()
        assert not second.is_running
