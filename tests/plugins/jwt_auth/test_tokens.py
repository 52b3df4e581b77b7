"""Tokens of every kind of key; what is wrong with one refuses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from mqttcore_plugins.jwt_auth import JwtAuth

from mqttcore import Action, ConfigError, Identity, Permission, ReasonCode, Refusal
from mqttcore.settings import convert
from plugins.doubles import Client, connect

SECRET = b"0123456789abcdef" * 4
Sign = Callable[..., bytes]


def plugin(**config: Any) -> JwtAuth:
    return JwtAuth(convert(config, JwtAuth.Config))


@pytest.fixture
def with_secret() -> Callable[..., JwtAuth]:
    return lambda **more: plugin(algorithms=["HS256"], secret=SECRET.decode(), **more)


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ann", "exp": time.time() + 60, "acl": {"pub": ["a/%c"], "sub": ["a/#"]}} | more


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **more: Any) -> bytes:
    return jwt.encode(claims(**more), key, algorithm, headers).encode()


async def answer(jwt_auth: JwtAuth, password: bytes | None, **more: Any) -> Any:
    return await jwt_auth.authenticate(Client(), connect(password=password, **more))


async def test_claims_become_an_identity(with_secret):
    expires = int(time.time()) + 100
    identity = await answer(with_secret(), token(exp=expires))
    assert isinstance(identity, Identity)
    assert identity.name == "ann"
    assert identity.expires_at_s == expires
    assert identity.permissions == (Permission(Action.PUBLISH, "a/%c"), Permission(Action.SUBSCRIBE, "a/#"))


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        ("RS256", lambda: rsa.generate_private_key(65537, 2048)),
        ("PS512", lambda: rsa.generate_private_key(65537, 2048)),
        ("ES256", lambda: ec.generate_private_key(ec.SECP256R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate),
    ],
)
async def test_public_keys(tmp_path: Path, algorithm: str, make: Callable[[], Any]):
    key, other = make(), make()
    file = tmp_path / "key.pem"
    file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    jwt_auth = plugin(algorithms=[algorithm], public_key_file=str(file))
    assert isinstance(await answer(jwt_auth, token(key, algorithm)), Identity)
    assert isinstance(await answer(jwt_auth, token(other, algorithm)), Refusal)


def wrong_tokens() -> dict[str, bytes]:
    now = time.time()
    return {
        "signature": token(b"fedcba9876543210" * 4),
        "expired": token(exp=now - 1),
        "no expiry": jwt.encode({"sub": "ann"}, SECRET).encode(),
        "not yet": token(nbf=now + 60),
        "no name": token(sub=""),
        "other algorithm": token(algorithm="HS384"),
        "none": jwt.encode(claims(), None, "none").encode(),
        "rules": token(acl=[{"effect": "allow", "topic": "a#"}]),
        "rules unknown": token(acl=[{"effect": "allow", "topic": "a", "unless": "x"}]),
        "junk": b"a.b.c",
    }


@pytest.mark.parametrize("name", wrong_tokens())
async def test_wrong_token_is_refused(with_secret, name: str, caplog: pytest.LogCaptureFixture):
    wrong = wrong_tokens()[name]
    refusal = await answer(with_secret(), wrong)
    assert isinstance(refusal, Refusal)
    assert refusal.reason_code == ReasonCode.BAD_USER_NAME_OR_PASSWORD
    assert wrong.decode() not in caplog.text


async def test_what_is_no_token_is_left_to_others(with_secret):
    for password in (None, b"", b"secret", b"\xff.\xff.\xff", b"a.b." + b"c" * 20_000):
        assert await answer(with_secret(), password) is None


async def test_names_issuer_and_audience_must_fit(with_secret):
    jwt_auth = with_secret(client_id_claim="cid", user_name_claim="sub", issuer="us", audience="mqtt")
    right = token(cid="c", iss="us", aud="mqtt")
    assert isinstance(await answer(jwt_auth, right, user_name="ann"), Identity)
    assert isinstance(await answer(jwt_auth, right, user_name="bob"), Refusal)
    assert isinstance(await answer(jwt_auth, right), Refusal)
    assert isinstance(await answer(jwt_auth, right, user_name="ann", client_id="d"), Refusal)
    assert isinstance(await answer(jwt_auth, token(cid="c", iss="them", aud="mqtt"), user_name="ann"), Refusal)
    assert isinstance(await answer(jwt_auth, token(cid="c", iss="us"), user_name="ann"), Refusal)


async def test_token_without_rules_may_do_nothing_unless_configured(with_secret):
    bare = jwt.encode({"sub": "ann", "exp": time.time() + 60}, SECRET).encode()
    assert (await answer(with_secret(), bare)).permissions == ()
    assert (await answer(with_secret(without_acl="allow"), bare)).permissions is None


async def test_token_as_user_name(with_secret):
    jwt_auth = with_secret(token_in="user_name")
    identity = await answer(jwt_auth, None, user_name=token().decode())
    assert isinstance(identity, Identity)
    assert identity.user_name == identity.name  # nobody else sees the token


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"algorithms": ["HS256"]}, ""),
        ({"algorithms": ["HS256"], "jwks_url": "https://127.0.0.1/keys"}, "algorithms"),
        ({"algorithms": ["RS256", "HS256"], "public_key_file": "k"}, "algorithms"),
        ({"algorithms": ["RS256"], "public_key_file": "/nowhere/k"}, "public_key_file"),
        ({"algorithms": ["HS384"], "secret": "x" * 47}, "secret"),
    ],
)
def test_wrong_configuration_names_the_key(config: dict[str, Any], path: str):
    with pytest.raises(ConfigError) as caught:
        plugin(**config)
    assert caught.value.path == path


def test_a_file_that_is_no_key_is_refused(tmp_path: Path):
    file = tmp_path / "short"
    file.write_bytes(b"short\n")
    with pytest.raises(ConfigError, match="PEM"):
        plugin(algorithms=["RS256"], public_key_file=str(file))
