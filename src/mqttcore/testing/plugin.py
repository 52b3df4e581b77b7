"""Contracts of plugins as tests: of every plugin, and of those that authenticate."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec

from msgspec import inspect

from mqttcore.constants import ReasonCode
from mqttcore.plugins.loading import check_class
from mqttcore.settings import Secret
from mqttcore.testing.broker import MemoryBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

__all__ = ["AuthenticatorContract", "Credentials", "assert_plugin_is_well_formed", "async_test"]

P = ParamSpec("P")

_SOUNDS_SECRET = re.compile(r"(?:^|_)(?:password|passphrase|secret|private_key|access_key|token|api_key)(?:s|$)?$")


def async_test(function: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function, without a plugin of pytest: it runs in a loop of its own."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(function(*args, **kwargs))

    return run


def assert_plugin_is_well_formed(cls: type) -> None:
    """Check what every plugin must be: hooks that can be called, a docstring, settings that say what they are for.

    Every field of `Config` has a description, `Annotated[int, msgspec.Meta(description="…")]`, and what is named like a
    secret is a `mqttcore.Secret`.
    """
    check_class(cls.__name__, cls)
    assert (cls.__doc__ or "").strip(), f"{cls.__name__} has no docstring"
    if not hasattr(cls, "Config"):
        return
    described = inspect.type_info(cls.Config)
    assert isinstance(described, inspect.StructType | inspect.DataclassType)
    for field in described.fields:
        where = f"{cls.__name__}.Config.{field.name}"
        kind = field.type
        said: dict[str, Any] = {}
        if isinstance(kind, inspect.Metadata):
            said, kind = kind.extra_json_schema or {}, kind.type
        assert said.get("description"), f"{where} has no description"
        if _SOUNDS_SECRET.search(field.name):
            kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
            is_secret = any(isinstance(one, inspect.CustomType) and one.cls is Secret for one in kinds)
            is_text = any(isinstance(one, inspect.StrType | inspect.BytesType) for one in kinds)
            assert is_secret or not is_text, f"{where} is not a mqttcore.Secret"


@dataclass(frozen=True)
class Credentials:
    """What a client says of itself in CONNECT."""

    user_name: str | None = None
    password: bytes | None = None
    client_id: str = "client"


class AuthenticatorContract(ABC):
    """What every plugin that authenticates has to do; inherit it in a test class.

        class TestMyPlugin(AuthenticatorContract):
            good = Credentials("anna", b"secret")

            def plugins(self) -> list[object]:
                return [MyPlugin(MyPlugin.Config(...))]

    good: lets a client in. The tests change name and password and expect to be refused, without an error of the plugin.
    """

    good: Credentials

    @abstractmethod
    def plugins(self) -> Iterable[object]:
        """Return fresh plugins, the one to be tested among them."""

    async def _connect(self, broker: MemoryBroker, credentials: Credentials, version: int = 5) -> int:
        client = broker.open(version=version)
        connack = await client.connect(
            credentials.client_id, user_name=credentials.user_name, password=credentials.password, expect=None
        )
        code = int(connack.reason_code)
        await client.lose()
        return code

    @async_test
    async def test_good_credentials_are_accepted_in_every_version(self) -> None:
        """The right name and password let in."""
        async with MemoryBroker(plugins=self.plugins()) as broker:
            for version in (3, 4, 5):
                assert await self._connect(broker, self.good, version) == 0

    @async_test
    async def test_wrong_credentials_are_refused_and_no_error(self) -> None:
        """What is wrong, missing, empty, long or no text is refused on purpose, not by an exception."""
        good = self.good
        password = good.password or b""
        wrong = [
            replace(good, password=password + b"x"),
            replace(good, password=password[:-1]),
            replace(good, password=password.swapcase() if password.swapcase() != password else b"\x01"),
            replace(good, password=b""),
            replace(good, password=None),
            replace(good, password=b"\xff\xfe\x00"),
            replace(good, password=b"x" * 65_535),
            replace(good, user_name=(good.user_name or "") + "x"),
            replace(good, user_name=""),
            replace(good, user_name="é" * 1000),
            replace(good, user_name=None, password=None),
        ]
        async with MemoryBroker(plugins=self.plugins()) as broker:
            for credentials in wrong:
                if credentials == good:
                    continue
                code = await self._connect(broker, credentials)
                assert code in (ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.NOT_AUTHORIZED, ReasonCode.BANNED), (
                    f"answered 0x{code:02X} to {credentials}"
                )
                assert not broker.client(credentials.client_id)
            errors = {name: count for name, count in broker.metrics().items() if name.endswith("_errors") and count}
            errors.pop("protocol_errors", None)
            assert not errors, "a plugin raised or answered nonsense"

    @async_test
    async def test_many_clients_at_once(self) -> None:
        """Clients that come together are each told the truth."""
        async with MemoryBroker(plugins=self.plugins()) as broker:
            bad = replace(self.good, password=b"wrong")
            asked = [self.good if number % 2 else bad for number in range(20)]
            codes = await asyncio.gather(*(self._connect(broker, credentials) for credentials in asked))
            assert [code == 0 for code in codes] == [credentials is self.good for credentials in asked]

    def test_secrets_stay_out_of_logs_and_representations(self, caplog: Any) -> None:
        """The password stands neither in a log record nor in what a plugin or its settings print."""
        password = (self.good.password or b"").decode(errors="replace")
        plugins = list(self.plugins())
        with caplog.at_level(logging.DEBUG):
            asyncio.run(self._both(plugins))
        if password:
            for shown in (caplog.text, *(repr(plugin) for plugin in plugins)):
                assert password not in shown
            for plugin in plugins:
                assert password not in repr(getattr(plugin, "config", None))

    async def _both(self, plugins: Iterable[object]) -> None:
        async with MemoryBroker(plugins=plugins) as broker:
            await self._connect(broker, self.good)
            await self._connect(broker, replace(self.good, user_name="nobody"))
