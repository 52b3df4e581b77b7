"""Keys behind a URL: fetched, rotated, kept while the URL is down."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import msgspec
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa
from mqttcore_plugins.jwt_auth import JwtAuth

from mqttcore import Identity, Refusal
from plugins.doubles import Alarms, Client, connect

KEYS = {name: rsa.generate_private_key(65537, 2048) for name in ("one", "two")}


def public(name: str) -> dict[str, Any]:
    key = orjson.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEYS[name].public_key()))
    return key | {"kid": name, "use": "sig", "alg": "RS256"}


def token(name: str, kid: str | None = None) -> bytes:
    claims = {"sub": "ann", "exp": time.time() + 60, "acl": []}
    return jwt.encode(claims, KEYS[name], "RS256", {"kid": kid or name}).encode()


class KeyServer:
    """A JWK Set that tests change."""

    def __init__(self) -> None:
        self.names = ["one"]
        self.status = 200
        self.asked = 0
        self.server: TestServer

    async def serve(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = orjson.dumps({"keys": [public(name) for name in self.names]})
        return web.Response(body=body, status=self.status, content_type="application/json")


@pytest.fixture
async def key_server() -> AsyncIterator[KeyServer]:
    keys = KeyServer()
    app = web.Application()
    app.router.add_get("/keys", keys.serve)
    keys.server = TestServer(app)
    await keys.server.start_server()
    yield keys
    await keys.server.close()


@pytest.fixture
async def started(key_server: KeyServer) -> AsyncIterator[tuple[JwtAuth, Alarms]]:
    config = {"algorithms": ["RS256"], "jwks_url": str(key_server.server.make_url("/keys"))}
    jwt_auth, alarms = JwtAuth(msgspec.convert(config, JwtAuth.Config)), Alarms()
    await jwt_auth.startup(alarms)
    yield jwt_auth, alarms
    await jwt_auth.shutdown(alarms)


async def answer(jwt_auth: JwtAuth, password: bytes) -> Any:
    return await jwt_auth.authenticate(Client(), connect(password=password))


async def test_new_key_is_fetched_when_a_token_names_it(key_server: KeyServer, started):
    jwt_auth, _ = started
    assert isinstance(await answer(jwt_auth, token("one")), Identity)
    key_server.names = ["one", "two"]
    jwt_auth._keys.again_s = 0.0
    assert isinstance(await answer(jwt_auth, token("two")), Identity)
    assert key_server.asked == 2
    key_server.names = ["two"]
    assert isinstance(await answer(jwt_auth, token("two", kid="one")), Refusal)


async def test_unknown_keys_do_not_make_us_fetch_without_end(key_server: KeyServer, started):
    jwt_auth, _ = started
    for number in range(20):
        assert isinstance(await answer(jwt_auth, token("two", kid=f"no such key {number}")), Refusal)
    assert key_server.asked == 1  # at start; ten seconds have not passed


async def test_keys_stay_while_the_url_is_down(key_server: KeyServer, started):
    jwt_auth, alarms = started
    key_server.status = 500
    jwt_auth._keys.again_s = 0.0
    assert isinstance(await answer(jwt_auth, token("two")), Refusal)
    assert "jwt_auth_keys" in alarms.raised
    assert isinstance(await answer(jwt_auth, token("one")), Identity)
    key_server.status, key_server.names = 200, ["one", "two"]
    assert isinstance(await answer(jwt_auth, token("two")), Identity)
    assert not alarms.raised
