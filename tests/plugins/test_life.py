"""Start, stop and reload of plugins, when they work and when they do not; and what keeps failing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import pytest

from mqttcore import Broker, ConfigError, Listener, MqttCoreError, NotPossible, PluginError, PluginFailed, hookimpl
from mqttcore.config import Config, from_mapping
from mqttcore.plugins import loading
from mqttcore.plugins.discovery import InstalledPlugin
from mqttcore.plugins.failures import Failures

SAID: list[str] = []


class Life:
    """Says what happens to it; hangs, raises or waits where it is told to."""

    def __init__(self, name: str, *, startup: Any = None, shutdown: Any = None) -> None:
        self.name = name
        self._acts = {"startup": startup, "shutdown": shutdown}

    def _act(self, what: str) -> Any:
        SAID.append(f"{self.name} {what}")
        act = self._acts[what]
        return act() if act is not None else None

    @hookimpl
    def startup(self, broker: Broker) -> Any:
        return self._act("startup")

    @hookimpl
    def shutdown(self) -> Any:
        return self._act("shutdown")


async def hang() -> None:
    await asyncio.Event().wait()


async def hang_on() -> None:
    while not may_end.is_set():
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            continue


async def a_while() -> None:
    await asyncio.sleep(0)


def fail() -> None:
    raise RuntimeError("broken")


def refuse() -> None:
    raise MqttCoreError("is not ready")


may_end: asyncio.Event


@pytest.fixture(autouse=True)
async def fresh() -> None:
    global may_end
    SAID.clear()
    may_end = asyncio.Event()


def broker_with(*plugins: object, **settings: Any) -> Broker:
    return Broker(Config(listeners=[Listener(port=0)], overload_lag_ms=0, **settings), plugins=plugins)


async def test_started_in_order_and_stopped_in_reverse():
    async with broker_with(Life("a", startup=a_while), Life("b", shutdown=a_while)):
        assert SAID == ["a startup", "b startup"]
    assert SAID[2:] == ["b shutdown", "a shutdown"]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (fail, "plugin b, hook startup: RuntimeError: broken"),
        (refuse, "plugin b, hook startup: is not ready"),
        (hang, "plugin b, hook startup: did not start within 0.02 s"),
    ],
)
async def test_plugin_that_does_not_start_takes_back_those_before(act: Any, reason: str):
    broker = broker_with(Life("a"), Life("b", startup=act), Life("c"), plugin_timeout_s=0.02)
    with pytest.raises(PluginError) as caught:
        await broker.start()
    assert str(caught.value) == reason
    assert SAID == ["a startup", "b startup", "a shutdown"]
    assert not broker.is_running
    assert not broker.addresses


@pytest.mark.parametrize("act", [fail, hang, hang_on])
async def test_plugin_that_does_not_stop_keeps_nobody(act: Any, caplog: pytest.LogCaptureFixture):
    async with broker_with(Life("a"), Life("b", shutdown=act), plugin_timeout_s=0.02):
        pass
    assert SAID[2:] == ["b shutdown", "a shutdown"]
    assert "plugin b, hook shutdown" in caplog.text
    may_end.set()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_address_that_cannot_be_had_shuts_plugins_down():
    async with broker_with() as first:
        port = first.addresses[0][2]
        broker = Broker(Config(listeners=[Listener(port=port)]), plugins=[Life("a")])
        with pytest.raises(OSError, match="cannot listen"):
            await broker.start()
    assert SAID == ["a startup", "a shutdown"]


async def test_services_are_there_while_starting_and_found_by_those_after():
    class Gives:
        @hookimpl
        def startup(self, broker: Broker) -> None:
            broker.provide("gives.answer", 42)
            broker.publish_nowait("up", b"1", retain=True)

    class Takes:
        @hookimpl
        def startup(self, broker: Broker) -> None:
            self.answer = broker.service("gives.answer")
            with pytest.raises(MqttCoreError, match=r"no plugin provides x; provided: gives\.answer"):
                broker.service("x")
            with pytest.raises(MqttCoreError, match="provided already"):
                broker.provide("gives.answer", 43)

    takes = Takes()
    broker = broker_with(Gives(), takes)
    for _ in range(2):  # a broker may be started again
        async with broker:
            assert takes.answer == 42
            assert [message.topic for message in broker.retained("up")] == ["up"]
        with pytest.raises(MqttCoreError, match="provided: none"):
            broker.service("gives.answer")


# --- reload -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    value: int = 0


class Reloadable:
    Config = Settings
    refused: ClassVar[set[int]] = set()

    def __init__(self, config: Settings) -> None:
        self.value = config.value

    async def reload(self, config: Settings) -> None:
        await asyncio.sleep(0)
        if config.value == -1:
            raise ConfigError("value", "is negative")
        if config.value == -2:
            raise RuntimeError("broken")
        if config.value == -3:
            await hang()
        self.value = config.value

    @hookimpl
    def startup(self) -> None: ...


class Fixed(Reloadable):
    reload = None  # type: ignore[assignment]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"first": "Reloadable", "second": "Reloadable", "fixed": "Fixed"}
    found = {name: [InstalledPlugin(name, f"{__name__}:{cls}", "tests 1")] for name, cls in places.items()}
    monkeypatch.setattr(loading, "installed", lambda: found)


def config_of(**tables: Any) -> Config:
    config = from_mapping({"plugins": tables, "plugin_timeout_s": 0.02, "limits": {"receive_maximum": 7}})
    return msgspec.structs.replace(config, listeners=[Listener(port=0)])


def values(broker: Broker) -> list[int]:
    return [plugin.value for plugin in broker.plugins.values()]  # type: ignore[attr-defined]


async def test_reload_gives_changed_tables_to_those_that_take_them(offered: None):
    async with Broker(config_of(first={"value": 1}, second={}, fixed={})) as broker:
        assert await broker.reload(config_of(first={"value": 2}, second={}, fixed={})) == []
        assert values(broker) == [2, 0, 0]
        assert await broker.reload(config_of(first={"value": 3}, second={}, fixed={"value": 1})) == ["plugins.fixed"]
        assert values(broker) == [3, 0, 0]
        assert await broker.reload(config_of(first={"value": 3}, second={}, fixed={"value": 1})) == ["plugins.fixed"]
        assert await broker.reload(config_of(first={}, second={})) == ["plugins.fixed"]
        assert await broker.reload(config_of(second={}, first={}, fixed={})) == ["plugins"]


@pytest.mark.parametrize(
    ("second", "error"),
    [
        ({"value": -1}, r"plugins\.second\.value: is negative"),
        ({"value": -2}, "plugin second: cannot be reloaded: RuntimeError: broken"),
        ({"value": -3}, r"plugin second: did not reload within 0\.02 s"),
        ({"value": "x"}, r"plugins\.second\.value: Expected `int`"),
        ({"valu": 1}, r"plugins\.second\.valu: unknown key"),
    ],
)
async def test_reload_is_all_or_nothing(offered: None, second: Any, error: str):
    former = config_of(first={"value": 1}, second={"value": 1})
    async with Broker(former) as broker:
        wanted = msgspec.structs.replace(
            config_of(first={"value": 2}, second=second),
            limits=msgspec.structs.replace(former.limits, receive_maximum=9),
        )
        with pytest.raises((ConfigError, PluginError), match=error):
            await broker.reload(wanted)
        assert values(broker) == [1, 1]
        assert broker.config is former


async def test_reload_gives_tables_that_did_not_change_too(offered: None):
    config = config_of(first={"value": 5}, fixed={"value": 5})
    async with Broker(config) as broker:
        for plugin in broker.plugins.values():
            plugin.value = 0  # type: ignore[attr-defined]
        assert await broker.reload(config_of(first={"value": 5}, fixed={"value": 5})) == []
        assert values(broker) == [5, 0]


async def test_one_plugin_is_given_its_settings_again(offered: None):
    given = Fixed(Settings())
    given.name = "given"  # type: ignore[attr-defined]
    config = config_of(first={"value": 5}, second={}, fixed={})
    async with Broker(config, plugins=[given]) as broker:
        broker.plugins["first"].value = 0  # type: ignore[attr-defined]
        before_s = time.time()
        await broker.reload_plugin("first")
        assert values(broker)[0] == 5
        states = {state.name: state for state in broker.plugin_states}
        assert len(states) == 4
        first = states["first"]
        assert first.last_reload is not None
        assert (first.last_reload.error, first.last_reload.ended_s >= before_s) == (None, True)
        assert states["second"].last_reload is None
        assert (first.distribution, first.has_table, first.can_reload) == ("tests 1", True, True)
        assert first.place == f"{__name__}:Reloadable"
        assert first.hooks == ("startup",)
        with pytest.raises(NotPossible, match="takes no settings while it runs"):
            await broker.reload_plugin("fixed")
        with pytest.raises(NotPossible, match="came as an object"):
            await broker.reload_plugin("given")
        with pytest.raises(MqttCoreError, match="no plugin nobody"):
            await broker.reload_plugin("nobody")
    assert broker.plugin_states == []


async def test_reload_that_fails_leaves_the_plugin_as_it_was_and_is_remembered(
    offered: None, caplog: pytest.LogCaptureFixture
):
    async with Broker(config_of(first={"value": 5})) as broker:
        plugin: Any = broker.plugins["first"]

        def fail(config: Settings) -> None:
            raise RuntimeError("broken")

        plugin.reload, working = fail, plugin.reload
        with pytest.raises(PluginError, match="cannot be reloaded: RuntimeError: broken"):
            await broker.reload_plugin("first")
        (state,) = broker.plugin_states
        assert state.last_reload is not None
        assert "broken" in (state.last_reload.error or "")
        assert "plugin first goes on as before: plugin first: cannot be reloaded" in caplog.text
        plugin.reload = working
        await broker.reload_plugin("first")
        (state,) = broker.plugin_states
        assert state.last_reload is not None
        assert state.last_reload.error is None


# --- what keeps failing -----------------------------------------------------------------------------------------------


class Told:
    """Takes the news as a broker does."""

    def __init__(self) -> None:
        self.news: list[Any] = []

    def emit(self, event: Any) -> None:
        self.news.append(event)

    def raise_alarm(self, name: str, text: str) -> None:
        self.news.append((name, text))

    def clear_alarm(self, name: str, text: str = "") -> None:
        self.news.append((name, None))


def test_failures_are_counted_told_and_not_logged_for_ever(caplog: pytest.LogCaptureFixture):
    now = [100.0]
    failures = Failures(now_s=lambda: now[0])
    failures.record("p", "observe", ValueError("bad"))  # before the broker runs
    failures.tell = told = Told()
    for _ in range(8):
        failures.record("p", "observe", ValueError("bad"))
    assert [type(one) for one in told.news] == [PluginFailed] * 8
    assert told.news[0].error == "ValueError: bad"
    failures.record("p", "observe", "answered nonsense")
    failures.record("p", "startup", "late")
    assert failures.count("p") == 11
    assert failures.count("p", "observe") == 10
    assert failures.count("q") == 0
    assert caplog.text.count("plugin p, hook observe") == 1
    alarms = [one for one in told.news if isinstance(one, tuple)]
    assert alarms == [("plugin_p_failing", "plugin p keeps failing, at last in observe")]
    now[0] += 10
    failures.record("p", "observe", "again")
    assert "hook observe: again (9 more since the last line)" in caplog.text
    failures.look()
    now[0] += 61
    failures.look()
    failures.look()
    assert [one for one in told.news if isinstance(one, tuple)] == [*alarms, ("plugin_p_failing", None)]
