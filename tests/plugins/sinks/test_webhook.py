"""Batches to a real HTTP server: statuses, signature, order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from mqttcore_plugins.webhook import Webhook

from mqttcore import ConfigError, EventRecord
from mqttcore.settings import convert
from plugins.doubles import Alarms


class Receiver:
    """Takes POSTs; answers the statuses it was given, then 204."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.taken: list[int] = []
        self.bodies: list[tuple[bytes, Any]] = []
        self.changed = asyncio.Condition()
        self.server: TestServer

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.statuses.pop(0) if self.statuses else 204
        async with self.changed:
            self.bodies.append((body, request.headers))
            if status < 300:
                self.taken += [one["time_ms"] for one in json.loads(body)]
            self.changed.notify_all()
        return web.Response(status=status)

    async def until_taken(self, count: int) -> None:
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: len(self.taken) >= count)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.serve)
    found.server = TestServer(app)
    await found.server.start_server()
    yield found
    await found.server.close()


async def started(receiver: Receiver, **config: Any) -> Webhook:
    given = {"url": str(receiver.server.make_url("/hook")), "linger_ms": 0, "retry_first_s": 0.01}
    webhook = Webhook(convert(given | config, Webhook.Config))
    await webhook.startup(Alarms())
    return webhook


def event(number: int) -> EventRecord:
    return EventRecord(key="c", time_ms=number, name="ClientConnected", fields={"client_id": "c"})


async def test_refused_batches_come_again_in_order(receiver: Receiver):
    receiver.statuses = [500, 503, 429, 302]
    webhook = await started(receiver, batch_records_maximum=4)
    await webhook.accept([event(n) for n in range(10)])
    await receiver.until_taken(10)
    await webhook.shutdown(Alarms())
    assert receiver.taken == list(range(10))
    assert webhook.metrics()["failures"] == 4


async def test_what_will_never_be_taken_is_not_sent_again(receiver: Receiver):
    receiver.statuses = [400, 204]
    webhook = await started(receiver, batch_records_maximum=1)
    await webhook.accept([event(1), event(2)])
    await receiver.until_taken(1)
    await webhook.shutdown(Alarms())
    assert receiver.taken == [2]
    assert webhook.metrics()["rejected"] == 1


async def test_body_is_signed(receiver: Receiver, tmp_path: Path):
    (tmp_path / "key").write_text("0123456789abcdef\n")
    webhook = await started(receiver, secret={"file": str(tmp_path / "key")}, headers={"X-Tenant": "t"})
    await webhook.accept([event(1)])
    await receiver.until_taken(1)
    await webhook.shutdown(Alarms())
    body, headers = receiver.bodies[0]
    expected = hmac.new(
        b"0123456789abcdef", headers["X-Mqttcore-Timestamp"].encode() + b"." + body, hashlib.sha256
    ).hexdigest()
    assert headers["X-Mqttcore-Signature"] == expected
    assert headers["X-Tenant"] == "t"
    assert json.loads(body) == [{"kind": "event", "name": "ClientConnected", "time_ms": 1, "client_id": "c"}]


def test_a_short_key_is_refused_unseen():
    with pytest.raises(ConfigError) as caught:
        Webhook(convert({"url": "http://127.0.0.1/", "secret": "swordfish"}, Webhook.Config))
    assert caught.value.path == "secret"
    assert "swordfish" not in str(caught.value)
