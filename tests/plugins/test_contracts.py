"""The contracts of `mqttcore.testing` pass a plugin that keeps them, and find those that do not."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import pytest

from mqttcore import Challenge, Connect, Identity, ReasonCode, Refusal, Secret, hookimpl
from mqttcore.testing import AuthenticatorContract, Credentials, assert_plugin_is_well_formed, async_test


class One:
    """Knows one user."""

    @dataclass(frozen=True)
    class Config:
        password: Annotated[Secret, msgspec.Meta(description="Hers.")]
        user_name: Annotated[str, msgspec.Meta(description="Who may come.")] = "anna"

    def __init__(self, config: Config) -> None:
        self.config = config

    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Identity | Refusal | Challenge | None:
        if connect.user_name is None:
            return None
        given, wanted = connect.password or b"", self.config.password.reveal().encode()
        if hmac.compare_digest(given, wanted) and connect.user_name == self.config.user_name:
            return Identity("anna")
        return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)


class Later(One):
    """The same, later."""

    @hookimpl
    async def authenticate(self, client: Any, connect: Connect) -> Identity | Refusal | Challenge | None:
        await asyncio.sleep(0)
        return super().authenticate(client, connect)


@pytest.mark.parametrize("cls", [One, Later])
def test_good_plugins_are_well_formed(cls: type):
    assert_plugin_is_well_formed(cls)


class TestOne(AuthenticatorContract):
    good = Credentials("anna", b"hunter2")

    def plugins(self) -> list[object]:
        return [One(One.Config(Secret("hunter2")))]


class TestLater(AuthenticatorContract):
    good = Credentials("anna", b"hunter2")

    def plugins(self) -> list[object]:
        return [Later(Later.Config(Secret("hunter2")))]


class Raising(One):
    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Any:
        if connect.password.decode() == "hunter2":  # type: ignore[union-attr]
            return Identity("anna")
        return Refusal()


class Careless(One):
    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Any:
        return Identity("anna") if (connect.password or b"").startswith(b"hunter") else Refusal()


class Talkative(One):
    def __repr__(self) -> str:
        return self.config.password.reveal()


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (Raising, "test_wrong_credentials_are_refused_and_no_error"),
        (Careless, "test_wrong_credentials_are_refused_and_no_error"),
    ],
)
def test_contract_finds(cls: Any, test: str):
    class Broken(AuthenticatorContract):
        good = Credentials("anna", b"hunter2")

        def plugins(self) -> list[object]:
            return [cls(cls.Config(Secret("hunter2")))]

    with pytest.raises(AssertionError):
        getattr(Broken(), test)()


def test_contract_finds_what_is_printed(caplog: pytest.LogCaptureFixture):
    class Broken(TestOne):
        def plugins(self) -> list[object]:
            return [Talkative(One.Config(Secret("hunter2")))]

    with pytest.raises(AssertionError):
        Broken().test_secrets_stay_out_of_logs_and_representations(caplog)


def hooked(**fields: Any) -> type:
    return type("Made", (), {"startup": hookimpl(lambda self: None), **fields})


@dataclass(frozen=True)
class Undescribed:
    limit: int = 1


@dataclass(frozen=True)
class Open:
    api_token: Annotated[str, msgspec.Meta(description="For there.")] = field(default="")


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (hooked(), "Made has no docstring"),
        (hooked(__doc__="x", Config=Undescribed), "Made.Config.limit has no description"),
        (hooked(__doc__="x", Config=Open), "Made.Config.api_token is not a mqttcore.Secret"),
    ],
)
def test_plugin_that_is_not_well_formed(cls: type, reason: str):
    with pytest.raises(AssertionError, match=reason):
        assert_plugin_is_well_formed(cls)


@async_test
async def test_async_test_runs_what_it_decorates():
    await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 / 0)
