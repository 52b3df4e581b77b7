"""A web service that allows, denies, fails and hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from mqttcore_plugins.http_auth import HttpAuth
from mqttcore_plugins.http_auth.breaker import Breaker

from mqttcore import Action, Identity, Permission, ReasonCode, Refusal
from mqttcore.settings import convert
from plugins.doubles import Alarms, Client, connect


class Service:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer: Any = {"result": "allow"}
        self.status = 200
        self.content_type = "application/json"
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.was_asked = asyncio.Event()
        self.server: TestServer

    async def serve(self, request: web.Request) -> web.Response:
        is_form = request.content_type == "application/x-www-form-urlencoded"
        self.asked.append(dict(await request.post()) if is_form else await request.json())
        self.was_asked.set()
        await self.goes_on.wait()
        body = self.answer if isinstance(self.answer, bytes) else msgspec.json.encode(self.answer)
        return web.Response(body=body, status=self.status, content_type=self.content_type)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    found = Service()
    app = web.Application()
    app.router.add_post("/auth", found.serve)
    found.server = TestServer(app)
    await found.server.start_server()
    yield found
    found.goes_on.set()
    await found.server.close()


@pytest.fixture
async def ask(service: Service) -> AsyncIterator[Callable[..., Any]]:
    """ask(**config) gives an `answer(**connect)` of a started plugin, which has its alarms at `answer.alarms`."""
    running: list[HttpAuth] = []

    async def start(**config: Any) -> Callable[..., Any]:
        url = str(service.server.make_url("/auth"))
        http_auth, alarms = HttpAuth(convert({"url": url} | config, HttpAuth.Config)), Alarms()
        await http_auth.startup(alarms)
        running.append(http_auth)

        async def answer(**more: Any) -> Any:
            return await http_auth.authenticate(Client(), connect(**({"user_name": "ann", "password": b"pw"} | more)))

        answer.alarms = alarms
        answer.plugin = http_auth
        return answer

    yield start
    for http_auth in running:
        await http_auth.shutdown(Alarms())


async def test_allow_with_rules_and_expiry(service: Service, ask):
    answer = await ask()
    expires_ms = int(time.time() * 1000) + 60_000
    service.answer = {
        "result": "allow",
        "expireAt": expires_ms,
        "acl": [
            {"effect": "deny", "action": ["publish"], "topic": "a/secret"},
            {"effect": "allow", "action": ["publish", "subscribe"], "topic": "a/${clientid}/#"},
        ],
    }
    identity = await answer()
    assert identity == Identity(
        "ann",
        (Permission(Action.PUBLISH, "a/secret", False), Permission(Action.ALL, "a/%c/#")),
        expires_at_s=expires_ms / 1000,
    )
    assert service.asked == [{"username": "ann", "password": "pw", "clientId": "c"}]


async def test_emqx_convention(service: Service, ask):
    answer = await ask(body="form", fields={"u": "${username}", "h": "${peerhost}", "k": "fixed"}, on_error="ignore")
    service.answer = {"result": "ignore"}
    assert await answer() is None
    assert service.asked == [{"u": "ann", "h": "127.0.0.1", "k": "fixed"}]
    service.answer = {"result": "allow", "is_superuser": True, "acl": []}
    assert (await answer()).permissions is None
    service.answer = {"result": "deny"}
    assert isinstance(await answer(), Refusal)
    service.status = 500
    assert await answer() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"answer": {}},
        {"answer": {"result": True}},
        {"answer": {"result": "Allow"}},
        {"answer": ["allow"]},
        {"answer": b"allow"},
        {"answer": {"result": "allow", "acl": [{"effect": "maybe", "topic": "a"}]}},
        {"answer": {"result": "allow", "acl": [{"effect": "allow", "topic": "a"}] * 11}},
        {"answer": {"result": "allow", "expireAt": "soon"}},
        {"answer": {"result": "allow", "padding": "x" * 5000}},
        {"status": 201},
        {"status": 302},
        {"status": 500},
        {"content_type": "text/html"},
    ],
    ids=repr,
)
async def test_anything_but_a_proper_answer_refuses(service: Service, ask, wrong: dict[str, Any]):
    answer = await ask()
    for name, value in wrong.items():
        setattr(service, name, value)
    refusal = await answer()
    assert isinstance(refusal, Refusal)
    assert refusal.reason_code == ReasonCode.SERVER_UNAVAILABLE


async def test_service_that_hangs_is_given_up_and_then_left_alone(service: Service, ask):
    answer = await ask(timeout_s=1, breaker_failures=2, breaker_s=60)
    service.goes_on.clear()
    for _ in range(2):
        assert (await answer()).reason_code == ReasonCode.SERVER_UNAVAILABLE
    assert "http_auth" in answer.alarms.raised
    assert (await answer()).reason_code == ReasonCode.SERVER_UNAVAILABLE
    assert len(service.asked) == 2


async def test_allow_is_remembered_for_the_same_credentials_only(service: Service, ask):
    answer = await ask(cache_s=60, cache_maximum=2)
    assert isinstance(await answer(), Identity)
    service.answer = {"result": "deny"}
    assert isinstance(await answer(), Identity)
    assert isinstance(await answer(password=b"other"), Refusal)
    assert isinstance(await answer(user_name="an", password=b"npw"), Refusal)
    assert isinstance(await answer(client_id="d"), Refusal)
    assert len(service.asked) == 4
    service.answer = {"result": "allow"}
    for number in range(5):
        await answer(client_id=str(number), password=b"longer than chance")  # digests hold any two letters at times
    assert len(answer.plugin._cache) == 2
    assert not any(b"longer than chance" in key for key in answer.plugin._cache)


async def test_more_clients_than_may_wait_are_told_so(service: Service, ask):
    answer = await ask(waiting_maximum=1)
    service.goes_on.clear()
    first = asyncio.create_task(answer())
    await service.was_asked.wait()
    assert (await answer()).reason_code == ReasonCode.SERVER_BUSY
    service.goes_on.set()
    assert isinstance(await first, Identity)


async def test_client_that_goes_away_is_no_failure_of_the_service(service: Service, ask):
    answer = await ask(breaker_failures=1)
    service.goes_on.clear()
    first = asyncio.create_task(answer())
    await service.was_asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    service.goes_on.set()
    assert isinstance(await answer(), Identity)


def test_breaker_lets_one_request_try():
    breaker = Breaker(failures_maximum=2, open_s=10)
    breaker.failed(0)
    assert breaker.allows(0)
    breaker.failed(0)
    assert not breaker.allows(9)
    assert breaker.allows(10)
    assert not breaker.allows(10)  # one is trying
    breaker.failed(11)
    assert not breaker.allows(20)
    assert breaker.allows(21)
    breaker.succeeded()
    assert breaker.allows(21)
    assert breaker.allows(21)
