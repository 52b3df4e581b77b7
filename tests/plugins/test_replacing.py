"""Plugins that are made anew while the broker runs: who answers when, and what happens when something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from mqttcore import (
    Auth,
    Broker,
    ClientView,
    Config,
    Connect,
    Consumed,
    Event,
    Identity,
    Message,
    PluginError,
    ReasonCode,
    Refusal,
    TopicHandler,
    hookimpl,
)
from mqttcore.config import from_mapping
from mqttcore.errors import ConfigError, NotPossible
from mqttcore.plugins import loading
from mqttcore.plugins.discovery import InstalledPlugin
from mqttcore.testing.broker import MemoryBroker


@dataclass(frozen=True)
class Settings:
    value: int = 0
    wrong: str = ""
    password: str = "good"


class Door:
    """Lets clients in by a password, tells what it does, and goes wrong where its settings say."""

    Config = Settings
    is_replaceable = True
    made: ClassVar[list[Door]] = []
    log: ClassVar[list[str]] = []

    def __init__(self, config: Settings) -> None:
        if config.wrong == "make":
            raise ConfigError("wrong", "cannot be")
        self.config = config
        self.seen: list[str] = []
        self.may_start = asyncio.Event()
        self.may_stop = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_observe = asyncio.Event()
        for event in (self.may_start, self.may_stop, self.may_answer, self.may_observe):
            event.set()
        Door.made.append(self)

    def tell(self, text: str) -> None:
        Door.log.append(f"{self.config.value} {text}")

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        self.tell("begins to start")
        broker.plugin_section("door").measure("value", lambda: self.config.value)
        if self.config.wrong == "start":
            raise RuntimeError("broken")
        if self.config.wrong == "start for ever":
            await asyncio.Event().wait()
        await self.may_start.wait()
        self.tell("started")

    @hookimpl
    async def shutdown(self) -> None:
        self.tell("begins to stop")
        if self.config.wrong == "stop":
            raise RuntimeError("broken")
        await self.may_stop.wait()
        self.tell("stopped")

    @hookimpl
    def admit(self, client: ClientView, connect: Connect) -> Refusal | None:
        self.seen.append(f"admit {client.client_id}")
        return None

    @hookimpl
    async def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal:
        self.seen.append(f"authenticate {client.client_id}")
        await self.may_answer.wait()
        if connect.password != self.config.password.encode():
            return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        return Identity(f"{client.client_id} by {self.config.value}")

    @hookimpl
    def authorize_publish(self, client: ClientView, topic: str, qos: int, retain: bool) -> bool:
        self.seen.append(f"publish {topic}")
        return topic != f"not/{self.config.value}"

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Iterable[TopicHandler]:
        def answer(client: ClientView, message: Message) -> Consumed:
            self.seen.append(f"handled {message.topic}")
            return Consumed()

        yield TopicHandler("door/#", answer)
        if self.config.wrong == "handlers":
            yield TopicHandler("door/#/wrong", answer)

    @hookimpl
    async def observe(self, events: Sequence[Event]) -> None:
        self.tell(f"observes {len(events)}")
        await self.may_observe.wait()
        self.tell("observed")


class Behind:
    """Comes after the door, and has opinions of its own."""

    @hookimpl
    def authorize_publish(self, client: ClientView, topic: str, qos: int, retain: bool) -> bool | None:
        return None

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Iterable[TopicHandler]:
        return [TopicHandler("door/#", lambda client, message: Consumed(ReasonCode.QUOTA_EXCEEDED))]


class Lasting(Door):
    @hookimpl
    def continue_authentication(self, client: ClientView, auth: Auth) -> None: ...


class Fragile:
    """Takes settings itself, but not those that are negative."""

    Config = Settings

    def __init__(self, config: Settings) -> None:
        self.config = config

    def reload(self, config: Settings) -> None:
        if config.value < 0:
            raise ConfigError("value", "is negative")
        self.config = config

    @hookimpl
    def startup(self) -> None: ...


@pytest.fixture(autouse=True)
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"door": "Door", "behind": "Behind", "lasting": "Lasting", "fragile": "Fragile"}
    found = {name: [InstalledPlugin(name, f"{__name__}:{cls}", "tests 1")] for name, cls in places.items()}
    monkeypatch.setattr(loading, "installed", lambda: found)
    monkeypatch.setattr(Door, "made", [])
    monkeypatch.setattr(Door, "log", [])


def config_of(**tables: Any) -> Config:
    return from_mapping({"plugins": tables, "plugin_timeout_s": 5, "sys_interval_s": 0})


def wanting(config: Config, **settings: Any) -> Config:
    """Return a configuration that differs in the door's settings."""
    return config_of(**{**config.plugins, "door": settings})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 -- what the loop does next is what is waited for
            await asyncio.sleep(0)


async def until_logged(text: str) -> None:
    await until(lambda: text in Door.log)


async def until_seated(broker: Broker, value: int) -> None:
    """Return when the instance with this setting is asked."""
    await until(lambda: broker.plugins["door"].config.value == value)  # type: ignore[attr-defined]


async def name_of(broker: MemoryBroker, client_id: str, password: bytes = b"good", expect: int = 0) -> str | None:
    await broker.connect(client_id, user_name="u", password=password, expect=expect)
    identity = broker.identity(client_id)
    return None if identity is None else identity.name


async def test_another_instance_takes_the_seat():
    async with MemoryBroker(config_of(door={}, behind={})) as broker:
        first = broker.plugins["door"]
        client = await broker.connect("a", user_name="u", password=b"good")
        assert (await client.publish("door/x", qos=1)) == ReasonCode.SUCCESS
        assert {state.name: state.can_reload for state in broker.plugin_states} == {"door": True, "behind": False}
        Door.log.clear()
        await broker.reload_plugin("door")
        second = broker.plugins["door"]
        assert [first, second] == Door.made
        assert [line for line in Door.log if "observe" not in line] == [
            "0 begins to start",
            "0 started",
            "0 begins to stop",
            "0 stopped",
        ]
        assert list(broker.plugins) == ["door", "behind"]
        (state, _) = broker.plugin_states
        assert state.last_reload is not None
        assert state.last_reload.error is None
        before = list(first.seen)  # type: ignore[attr-defined]
        assert await name_of(broker, "b") == "b by 0"
        assert (await client.publish("x", qos=1)) in (ReasonCode.SUCCESS, ReasonCode.NO_MATCHING_SUBSCRIBERS)
        # Still before the other plugin's, which would refuse it; and asked once.
        assert (await client.publish("door/y", qos=1)) == ReasonCode.SUCCESS
        assert first.seen == before  # type: ignore[attr-defined]
        assert second.seen == [  # type: ignore[attr-defined]
            "admit b",
            "authenticate b",
            "publish x",
            "publish door/y",
            "handled door/y",
        ]
    assert Door.log[-2:] == ["0 begins to stop", "0 stopped"]
    assert Door.log.count("0 stopped") == 2


async def test_changed_settings_replace_it_and_others_do_not():
    config = config_of(door={"value": 1})
    async with MemoryBroker(config) as broker:
        assert await broker.reload(config) == []
        assert len(Door.made) == 1
        assert await broker.reload(wanting(config, value=2)) == []
        assert [one.config.value for one in Door.made] == [1, 2]
        assert await name_of(broker, "a") == "a by 2"
        assert broker.metrics()["plugin_door_value"] == 2
        await broker.reload_plugin("door")
        assert [one.config.value for one in Door.made] == [1, 2, 2]


async def test_former_answers_what_it_was_asked_and_goes_then():
    config = config_of(door={"value": 1})
    async with MemoryBroker(config) as broker:
        (first,) = Door.made
        first.may_answer.clear()
        waiting = asyncio.create_task(name_of(broker, "asked"))
        await until(lambda: "authenticate asked" in first.seen)
        replaced = asyncio.create_task(broker.reload(wanting(config, value=2)))
        await until_seated(broker, 2)
        assert await name_of(broker, "later") == "later by 2"
        assert "1 begins to stop" not in Door.log
        assert not replaced.done()
        first.may_answer.set()
        assert await waiting == "asked by 1"
        assert await replaced == []
        assert "1 stopped" in Door.log


async def test_nobody_slips_in_meanwhile():
    config = config_of(door={"value": 1})
    async with MemoryBroker(config) as broker:
        first = Door.made[0]
        first.may_stop.clear()
        replaced = asyncio.create_task(broker.reload(wanting(config, value=2, password="other")))
        asked: list[int] = []  # which of the two answered, as the passwords tell
        for turn in range(40):
            for password in ("good", "other", "bad"):
                client = await broker.connect(
                    f"{password}{turn}", user_name="u", password=password.encode(), expect=None
                )
                assert client.connack is not None
                is_in = client.connack.reason_code == 0
                assert is_in or client.connack.reason_code == ReasonCode.BAD_USER_NAME_OR_PASSWORD
                if password != "bad":
                    asked.append(1 if is_in == (password == "good") else 2)
                else:
                    assert not is_in
            if turn == 30:
                first.may_stop.set()
        assert await replaced == []
        assert asked == sorted(asked)
        assert asked[-1] == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("make", r"plugins\.door\.wrong: cannot be"),
        ("start", "plugin door, hook startup: RuntimeError: broken"),
        ("start for ever", r"plugin door, hook startup: did not start within 0\.05 s"),
        ("handlers", r"plugin door, hook topic_handlers: 'door/#/wrong'"),
    ],
)
async def test_one_that_does_not_start_leaves_the_former(wrong: str, error: str):
    config = from_mapping({"plugins": {"door": {"value": 1}}, "plugin_timeout_s": 0.05, "sys_interval_s": 0})
    async with MemoryBroker(config) as broker:
        wanted = from_mapping(
            {"plugins": {"door": {"value": 2, "wrong": wrong}}, "plugin_timeout_s": 0.05, "sys_interval_s": 0}
        )
        with pytest.raises((ConfigError, PluginError), match=error):
            await broker.reload(wanted)
        assert broker.plugins["door"] is Door.made[0]
        assert broker.config is config
        (state,) = broker.plugin_states
        assert state.last_reload is not None
        assert state.last_reload.error
        assert await name_of(broker, "a") == "a by 1"
        client = await broker.connect("b", user_name="u", password=b"good")
        assert (await client.publish("door/x", qos=1)) == ReasonCode.SUCCESS
        assert Door.made[0].seen[-1] == "handled door/x"
        assert "1 begins to stop" not in Door.log
        assert ("2 stopped" in Door.log) == (wrong == "handlers")  # what had started is shut down
        assert await broker.reload(config_of(door={"value": 3})) == []  # it can be tried again


async def test_former_that_fails_to_stop_is_told_of_and_gone():
    config = config_of(door={"value": 1, "wrong": "stop"})
    async with MemoryBroker(config) as broker:
        assert await broker.reload(wanting(config, value=2)) == []
        assert await name_of(broker, "a") == "a by 2"
        (state,) = broker.plugin_states
        assert state.failures == {"shutdown": 1}


async def test_batch_of_events_is_taken_by_one_of_them():
    config = config_of(door={"value": 1})
    async with MemoryBroker(config) as broker:
        (first,) = Door.made
        await broker.settle()
        first.may_observe.clear()
        Door.log.clear()
        await broker.connect("a", user_name="u", password=b"good")
        await until(lambda: any(line.startswith("1 observes") for line in Door.log))
        replaced = asyncio.create_task(broker.reload(wanting(config, value=2)))
        await until_seated(broker, 2)
        await broker.connect("b", user_name="u", password=b"good")
        await broker.settle()
        assert "1 begins to stop" not in Door.log
        first.may_observe.set()
        assert await replaced == []
        await broker.settle()
        log = Door.log
        assert log.index("1 observed") < log.index("1 begins to stop")
        assert any(line.startswith("2 observes") for line in log)
        assert not any(line.startswith("1 observes") for line in log[log.index("1 begins to stop") :])


async def test_all_or_nothing_with_others():
    config = config_of(door={"value": 1}, fragile={"value": 1})
    async with MemoryBroker(config) as broker:
        with pytest.raises(ConfigError, match=r"plugins\.fragile\.value: is negative"):
            await broker.reload(config_of(door={"value": 2}, fragile={"value": -1}))
        assert [one.config.value for one in Door.made] == [1, 2, 1]
        assert broker.plugins["door"] is Door.made[2]
        assert await name_of(broker, "a") == "a by 1"
        assert "2 stopped" in Door.log


async def test_who_asked_may_go_and_the_former_is_shut_down_all_the_same():
    config = config_of(door={"value": 1})
    async with MemoryBroker(config) as broker:
        (first,) = Door.made
        first.may_stop.clear()
        replaced = asyncio.create_task(broker.reload_plugin("door"))
        await until_logged("1 begins to stop")
        replaced.cancel()
        with pytest.raises(asyncio.CancelledError):
            await replaced
        assert broker.plugins["door"] is Door.made[1]
        stopping = asyncio.create_task(broker.stop())
        await broker.settle()
        assert not stopping.done()  # the broker does not leave it behind
        first.may_stop.set()
        await stopping
        assert Door.log.count("1 stopped") == 2


def test_what_a_plugin_that_can_be_replaced_cannot_have():
    with pytest.raises(PluginError, match=r"hook continue_authentication: .* another one does not know"):
        loading.enabled(config_of(lasting={}))


async def test_one_that_came_as_an_object_stays():
    door = Door(Settings())
    async with MemoryBroker(config_of(behind={}), plugins=[door]) as broker:
        with pytest.raises(NotPossible, match="came as an object"):
            await broker.reload_plugin("door")
        with pytest.raises(NotPossible, match="cannot be replaced"):
            await broker.reload_plugin("behind")
