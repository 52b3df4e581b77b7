"""Our plugins with a whole broker: who comes in, what they may do, where messages go."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from mqttcore_plugins.events_log import EventsLog
from mqttcore_plugins.http_auth import HttpAuth
from mqttcore_plugins.jwt_auth import JwtAuth
from mqttcore_plugins.users import Users
from mqttcore_plugins.users.passwords import hash_password
from mqttcore_plugins.webhook import Webhook

from mqttcore import ConfigError, ReasonCode
from mqttcore.codec import Publish
from mqttcore.config import from_mapping
from mqttcore.plugins.loading import enabled, make
from mqttcore.settings import convert
from mqttcore.testing import MemoryBroker, assert_plugin_is_well_formed

SECRET = "0123456789abcdef" * 4


@pytest.mark.parametrize("plugin", [Users, JwtAuth, HttpAuth, EventsLog, Webhook])
def test_plugin_is_well_formed(plugin: type):
    assert_plugin_is_well_formed(plugin)


@pytest.mark.parametrize(
    ("name", "table", "path"),
    [
        ("users", {}, "plugins.users"),
        ("users", {"file": "/nowhere.toml"}, "plugins.users.file"),
        ("jwt_auth", {"algorithms": ["HS256"], "secret": "x"}, "plugins.jwt_auth.secret"),
        ("webhook", {"url": "http://127.0.0.1/", "secret": "x"}, "plugins.webhook.secret"),
    ],
)
def test_wrong_setting_is_named_once(name: str, table: dict[str, str], path: str):
    (plugin,) = enabled(from_mapping({"plugins": {name: table}}))
    with pytest.raises(ConfigError) as caught:
        make(plugin)
    assert caught.value.path == path


def users_file(path: Path, *names: str) -> Path:
    document = {
        "users": [
            {
                "name": name,
                "password": hash_password(f"{name}'s"),
                "permissions": [{"action": "all", "filter": "room/%u/#"}],
            }
            for name in names
        ]
    }
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


async def test_users_come_in_with_their_passwords_and_rights(tmp_path: Path):
    users = Users(convert({"file": str(users_file(tmp_path / "u.json", "ann", "bob"))}, Users.Config))
    async with MemoryBroker(plugins=[users]) as broker:
        ann = await broker.connect("a", user_name="ann", password=b"ann's")
        assert await ann.subscribe("room/ann/#", "room/bob/#") == [2, ReasonCode.NOT_AUTHORIZED]
        await ann.publish("room/ann/x", b"warm", qos=1)
        assert (await ann.message()).payload == b"warm"
        await broker.connect("b", user_name="bob", password=b"ann's", expect=ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        await broker.connect("c", expect=ReasonCode.NOT_AUTHORIZED)
        assert broker.metrics()["plugin_users_logins_waiting"] == 0


async def test_users_file_is_read_again_without_cutting_anyone_off(tmp_path: Path):
    path = users_file(tmp_path / "u.json", "ann", "bob")
    users = Users(convert({"file": str(path)}, Users.Config))
    async with MemoryBroker(plugins=[users]) as broker:
        ann = await broker.connect("a", user_name="ann", password=b"ann's")
        bob = await broker.connect("b", user_name="bob", password=b"bob's")
        document = json.loads(path.read_text())
        document["users"] = [document["users"][0] | {"permissions": [{"action": "all", "filter": "hall/#"}]}]
        path.write_text(json.dumps(document))
        users.reload(users.config)
        await broker.settle()
        await bob.expect_closed(ReasonCode.NOT_AUTHORIZED)
        assert await ann.subscribe("hall/#", "room/ann/#") == [2, ReasonCode.NOT_AUTHORIZED]


async def test_jwt_expiry_disconnects():
    config = {"algorithms": ["HS256"], "secret": SECRET}
    async with MemoryBroker(plugins=[JwtAuth(convert(config, JwtAuth.Config))]) as broker:
        claims = {"sub": "ann", "exp": int(time.time()) + 100, "acl": {"all": ["x/%c"]}}
        client = await broker.connect("c", password=jwt.encode(claims, SECRET, "HS256").encode())
        assert await client.subscribe("x/c", "x/d") == [2, ReasonCode.NOT_AUTHORIZED]
        await broker.advance(40)  # it took us less than a minute to come here
        await client.expect_nothing()
        await broker.advance(61)
        await client.expect_closed(ReasonCode.NOT_AUTHORIZED)


async def test_slow_http_service_delays_its_own_clients_only():
    goes_on = asyncio.Event()

    async def serve(request: web.Request) -> web.Response:
        if (await request.json())["username"] == "slow":
            await goes_on.wait()
        return web.json_response({"result": "allow"})

    app = web.Application()
    app.router.add_post("/", serve)
    server = TestServer(app)
    await server.start_server()
    try:
        http_auth = HttpAuth(HttpAuth.Config(url=str(server.make_url("/"))))
        async with MemoryBroker(plugins=[http_auth]) as broker:
            slow = asyncio.create_task(broker.connect("s", user_name="slow", password=b"x"))
            fast = await asyncio.wait_for(broker.connect("f", user_name="fast", password=b"x"), 5)
            assert not slow.done()
            goes_on.set()
            await asyncio.wait_for(slow, 5)
            await fast.publish("t", b"", qos=1)
    finally:
        await server.close()


async def test_events_and_messages_are_logged(tmp_path: Path):
    path = tmp_path / "log"
    config = {"path": str(path), "topic_filters": ["room/#"], "events": ["ClientConnected"], "linger_ms": 0}
    async with MemoryBroker(plugins=[EventsLog(convert(config, EventsLog.Config))]) as broker:
        client = await broker.connect("c")
        for number in range(3):
            await client.send(Publish("room/1", b"%d" % number, qos=1, packet_id=number + 1))
        await client.send(Publish("hall/1", b"no"))
        await broker.settle()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    messages = [line for line in lines if line["kind"] == "message"]
    assert [line["payload"] for line in messages] == ["0", "1", "2"]
    assert {line["client_id"] for line in messages} == {"c"}
    assert [line["name"] for line in lines if line["kind"] == "event"] == ["ClientConnected"]
