"""Who guesses passwords: many at once, from many addresses of one network, or names by how long an answer takes."""

import json
from asyncio import gather
from base64 import b64encode
from hashlib import sha512
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mqttcore_plugins.users import Users
from mqttcore_plugins.users import plugin as module
from mqttcore_plugins.users.book import Book, User
from mqttcore_plugins.users.decoys import Decoys
from mqttcore_plugins.users.failures import Failures

from mqttcore import Connect, Identity, ReasonCode, Refusal

PASSWORD = b"right"
HASH = f"$6${b64encode(b'salt').decode()}${b64encode(sha512(PASSWORD + b'salt').digest()).decode()}"


def users(path: Path, **settings: Any) -> Users:
    file = path / "users.json"
    file.write_text(json.dumps({"users": [{"name": "ann", "password": HASH}]}))
    file.chmod(0o600)
    return Users(Users.Config(file=str(file), **settings))


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords were compared with."""
    seen: list[str] = []
    verify = module.verify_password

    def noted(stored: str, password: bytes) -> bool:
        seen.append(stored)
        return verify(stored, password)

    monkeypatch.setattr(module, "verify_password", noted)
    return seen


async def login(users: Users, host: str, password: bytes, user_name: str = "ann") -> Identity | Refusal | None:
    client: Any = SimpleNamespace(address=(host, 40_000))
    return await users.authenticate(client, Connect("c", user_name=user_name, password=password))


async def test_guesses_that_wait_together_are_as_few_as_one_by_one(tmp_path: Path, verified: list[str]):
    guessed = users(tmp_path, failures_maximum=5, threads=2)
    answers = await gather(*[login(guessed, "192.0.2.1", b"%d" % number) for number in range(50)])
    assert len(verified) <= 5 + 1  # one more was under way beside the fifth
    codes = [answer.reason_code for answer in answers if isinstance(answer, Refusal)]
    assert len(codes) == 50
    assert codes.count(ReasonCode.BANNED) == 50 - len(verified)


async def test_crowd_with_the_right_password_comes_in_at_once(tmp_path: Path):
    """A fleet behind one address, after the broker was away."""
    fleet = users(tmp_path, failures_maximum=5, threads=2)
    answers = await gather(*[login(fleet, "192.0.2.1", PASSWORD) for _ in range(50)])
    assert all(isinstance(answer, Identity) for answer in answers)


async def test_network_of_ipv6_is_one_address(tmp_path: Path, verified: list[str]):
    guessed = users(tmp_path, failures_maximum=3)
    for number in range(9):
        await login(guessed, f"2001:db8::{number}", b"wrong", f"user{number}")
    assert len(verified) == 3
    assert isinstance(await login(guessed, "2001:db8:0:1::1", PASSWORD), Identity)


async def test_names_that_nobody_has_take_as_long_as_those_of_users(tmp_path: Path, verified: list[str]):
    await login(users(tmp_path), "192.0.2.1", b"wrong", "nobody")
    assert verified == [HASH]  # the only kind and cost there is


async def test_password_of_another_is_of_no_use_to_who_has_no_name(tmp_path: Path):
    answer = await login(users(tmp_path), "192.0.2.1", PASSWORD, "nobody")
    assert isinstance(answer, Refusal)


def test_decoys_are_of_all_the_kinds_there_are_and_stay_the_same():
    hashes = [f"$7$1000$c2FsdA==${number}" for number in range(4)]
    decoys = Decoys(Book({f"user{number}": User(f"user{number}", one) for number, one in enumerate(hashes)}))
    names = [f"nobody{number}" for number in range(200)]
    found = [decoys.hash_for(name) for name in names]
    assert set(found) == set(hashes)
    assert found == [decoys.hash_for(name) for name in names]
    assert Decoys(Book({})).hash_for("x").startswith("$7$")


def test_long_names_take_no_more_room_than_short_ones():
    failures = Failures(maximum=2, window_s=60)
    failures.failed("192.0.2.1", "x" * 65_535, 1)
    failures.succeeded("192.0.2.2", "y" * 65_535)
    assert {len(key) for key in (*failures._failed, *failures._known)} == {16}
