"""From `[plugins.NAME]` to a plugin that runs, and everything that is refused on the way."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mqttcore import Broker, ConfigError, Identity, Listener, PluginError, Secret, hookimpl
from mqttcore.config import Config, from_mapping
from mqttcore.plugins import loading
from mqttcore.plugins.discovery import InstalledPlugin, installed
from mqttcore.plugins.hooks import HOOKS, implementations

MODULE = __name__


@dataclass(frozen=True)
class Server:
    url: str
    retries: int = 3


class Strict:
    """A plugin with settings of every kind."""

    @dataclass(frozen=True)
    class Config:
        key: Secret
        limit: int = 5
        mode: str = "plain"
        file: Path = Path("/etc/hostname")
        servers: tuple[Server, ...] = ()
        keys: dict[str, Secret] = field(default_factory=dict)

    def __init__(self, config: Config) -> None:
        self.config = config

    @hookimpl
    def authenticate(self, client: Any, connect: Any) -> Identity | None:
        return Identity(connect.client_id)


class Loose(Strict):
    class Config(msgspec.Struct, frozen=True):
        limit: int = 1


class Bare:
    @hookimpl
    def startup(self) -> None:
        pass


class Failing(Bare):
    def __init__(self) -> None:
        raise RuntimeError("no such place")


class Complaining:
    Config = Loose.Config

    def __init__(self, config: Any) -> None:
        raise ConfigError("limit", "is odd")

    @hookimpl
    def shutdown(self, broker: Broker) -> None:
        pass


NOT_A_CLASS = 5


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed_here(group: str = "mqttcore") -> dict[str, list[InstalledPlugin]]:
        places = {
            "strict": f"{MODULE}:Strict",
            "loose": f"{MODULE}:Loose",
            "bare": f"{MODULE}:Bare",
            "failing": f"{MODULE}:Failing",
            "complaining": f"{MODULE}:Complaining",
            "number": f"{MODULE}:NOT_A_CLASS",
            "gone": f"{MODULE}:Gone",
            "half": "mqttcore_is_not_here.at_all:Plugin",
        }
        found = {name: [InstalledPlugin(name, place, "tests 1.0", ("aliens",))] for name, place in places.items()}
        found["twice"] = [InstalledPlugin("twice", f"{MODULE}:Bare", one) for one in ("a 1", "b 1")]
        return found

    monkeypatch.setattr(loading, "installed", installed_here)


def config_of(**tables: Any) -> Config:
    return msgspec.structs.replace(from_mapping({"plugins": tables}), listeners=[Listener(port=0)])


async def test_tables_enable_in_their_order_and_are_converted():
    tables = {
        "bare": {},
        "strict": {"key": "k", "file": "/tmp/x", "servers": [{"url": "u"}], "keys": {"a": "b"}},
        "loose": {"limit": 2},
    }
    async with Broker(config_of(**tables)) as broker:
        assert [*broker.plugins] == ["bare", "strict", "loose"]
        strict = broker.plugins["strict"]
        assert isinstance(strict, Strict)
        assert strict.config.servers == (Server("u"),)
        assert strict.config.file == Path("/tmp/x")
        assert strict.config.key.reveal() == "k"
    assert not broker.plugins


@pytest.mark.parametrize(
    ("name", "table", "path", "reason"),
    [
        ("strickt", {}, "plugins.strickt", "there is no such plugin; did you mean strict?"),
        ("xyz", {}, "plugins.xyz", "there is no such plugin; `mqttcore plugins` lists"),
        ("twice", {}, "plugins.twice", "several packages offer it: a 1"),
        ("strict", {}, "plugins.strict.key", "missing"),
        ("strict", {"key": "k", "limt": 1}, "plugins.strict.limt", "unknown key"),
        ("strict", {"key": "k", "limit": "1"}, "plugins.strict.limit", "Expected `int`, got `str`"),
        ("strict", {"key": 7}, "plugins.strict.key", "Expected a text"),
        ("strict", {"key": {"env": "MQTTCORE_NO_SUCH"}}, "plugins.strict.key", "the environment has no"),
        ("strict", {"key": {"file": "/no/such"}}, "plugins.strict.key", "/no/such cannot be read: No such file"),
        ("strict", {"key": {"file": 1, "x": 2}}, "plugins.strict.key", "Expected a text"),
        ("strict", {"key": "k", "file": ""}, "plugins.strict.file", "Expected a path"),
        ("strict", {"key": "k", "servers": [{"url": "u", "port": 1}]}, "plugins.strict.servers[0].port", "unknown key"),
        ("strict", {"key": "k", "servers": [{"url": 1}]}, "plugins.strict.servers[0].url", "Expected `str`"),
        ("loose", {"limits": 1}, "plugins.loose.limits", "unknown key"),
        ("bare", {"limit": 1}, "plugins.bare.limit", "unknown key"),
        ("complaining", {}, "plugins.complaining.limit", "is odd"),
    ],
)
async def test_wrong_table_is_a_config_error_with_its_path(name: str, table: Any, path: str, reason: str):
    with pytest.raises(ConfigError) as caught:
        await Broker(config_of(**{name: table})).start()
    assert caught.value.path == path
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("half", "No module named 'mqttcore_is_not_here'; it needs an extra: pip install 'tests[aliens]'"),
        ("gone", "does not exist"),
        ("number", "is no class"),
        ("failing", "cannot be made: RuntimeError: no such place"),
    ],
)
async def test_broken_plugin_keeps_the_broker_from_starting(name: str, reason: str):
    broker = Broker(config_of(**{name: {}}))
    with pytest.raises(PluginError, match=f"^plugin {name}: ") as caught:
        await broker.start()
    assert reason in str(caught.value)
    assert not broker.is_running


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "key").write_text("hunter2\n")
    monkeypatch.setenv("MQTTCORE_TEST_KEY", "hunter2")
    for given in ("hunter2", {"env": "MQTTCORE_TEST_KEY"}, {"file": str(tmp_path / "key")}):
        config = config_of(strict={"key": given, "keys": {"a": "hunter2"}})
        (plugin,) = loading.enabled(config)
        assert plugin.settings.key.reveal() == "hunter2"
        assert plugin.settings.key == Secret("hunter2") != Secret("hunter3")
        for shown in (repr(plugin), repr(config), str(plugin.settings), f"{plugin.settings.key}"):
            assert "hunter2" not in shown
        assert os.environ["MQTTCORE_TEST_KEY"] == "hunter2"
    with pytest.raises(ConfigError) as caught:
        loading.enabled(config_of(strict={"key": ["hunter2"]}))
    assert "hunter2" not in str(caught.value)


def plugin_of(**methods: Any) -> type:
    return type("Made", (), {name: hookimpl(method) for name, method in methods.items()})


async def coroutine(self, client, topic, qos, retain): ...


def generator(self, client, message):
    yield


def wrong(self, client, topic): ...


def renamed(self, client, msg): ...


def default(self, client, message=None): ...


def starred(self, *arguments): ...


@pytest.mark.parametrize(
    ("methods", "hook", "reason"),
    [
        ({"authenticat": renamed}, "authenticat", "there is no such hook; did you mean authenticate?"),
        ({"zzz": renamed}, "zzz", "there is no such hook"),
        ({"authorize_publish": coroutine}, "authorize_publish", "on the packet path and must be a plain function"),
        ({"transform_publish": generator}, "transform_publish", "not a generator"),
        ({"authorize_publish": wrong}, "authorize_publish", "takes (client, topic), must take (client, topic, qos, r"),
        ({"authorize_deliver": renamed}, "authorize_deliver", "must take (client, message)"),
        ({"authorize_deliver": default}, "authorize_deliver", "must take (client, message)"),
        ({"authorize_deliver": starred}, "authorize_deliver", "must take (client, message)"),
        ({"open_store": coroutine}, "open_store", "must be a plain function"),
    ],
)
def test_hook_that_cannot_be_called_is_refused_by_name(methods: Any, hook: str, reason: str):
    with pytest.raises(PluginError, match=r"^plugin made, hook ") as caught:
        implementations("made", plugin_of(**methods))
    assert caught.value.hook == hook
    assert reason in caught.value.reason


@pytest.mark.parametrize("option", ["wrapper", "hookwrapper", "tryfirst", "trylast"])
def test_wrappers_and_own_order_are_refused(option: str):
    class Wrapping:
        @hookimpl(**{option: True})
        def authorize_deliver(self, client, message):
            yield

    with pytest.raises(PluginError, match=r"is a wrapper|the order is that of the configuration"):
        implementations("wrapping", Wrapping)


def test_hook_without_its_mark_is_refused():
    class Forgetful:
        def authenticate(self, client, connect): ...

    with pytest.raises(PluginError, match="hook authenticate: has the name of a hook, but no @hookimpl"):
        implementations("forgetful", Forgetful)


def test_hook_under_another_name():
    class Named:
        @hookimpl(specname="startup")
        def begin(self, broker): ...

    assert [*implementations("named", Named())] == ["startup"]

    class Twice(Named):
        @hookimpl
        def startup(self, broker): ...

    with pytest.raises(PluginError, match="hook startup: is implemented twice"):
        implementations("twice", Twice)


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Strict, "is a class"),
        (object(), "implements no hook"),
        (type("A", (Bare,), {"Config": int})(), "its Config is"),
    ],
)
async def test_object_that_is_no_plugin(plugin: Any, reason: str):
    with pytest.raises(PluginError, match=reason):
        await Broker(Config(listeners=[Listener(port=0)]), plugins=[plugin]).start()


async def test_two_of_one_name():
    with pytest.raises(PluginError, match="plugin bare: there are two of this name"):
        await Broker(Config(listeners=[Listener(port=0)]), plugins=[Bare(), Bare()]).start()


def test_there_are_fourteen_hooks():
    assert len(HOOKS) == 14
    assert HOOKS["authorize_publish"] == ("client", "topic", "qos", "retain")


def test_source_tree_is_seen_without_installation():
    assert "mqttcore_plugins" in sys.modules
    assert all(one.place.startswith("mqttcore_plugins") for many in installed().values() for one in many)
