"""Plugins that observe: quick, slow, failing and hanging ones do not disturb each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from mqttcore import Event, PluginFailed, SessionEnded, hookimpl
from mqttcore.plugins import observers as module
from mqttcore.plugins.failures import Failures
from mqttcore.plugins.hooks import implementations
from mqttcore.plugins.observers import Observers


class Observing:
    """Gives batches to a function."""

    def __init__(self, act: Any = None) -> None:
        self.act = act
        self.batches: list[Sequence[Event]] = []
        self.came = asyncio.Event()

    @hookimpl
    def observe(self, events: Sequence[Event]) -> Any:
        self.batches.append(events)
        self.came.set()
        return self.act(events) if self.act is not None else None


def events(*names: str) -> list[Event]:
    return [SessionEnded(time_ms=1, client_id=name) for name in names]


def names(batches: list[Sequence[Any]]) -> list[list[str]]:
    return [[event.client_id for event in batch] for batch in batches]


class World:
    def __init__(self) -> None:
        self.failures = Failures()
        self.made: list[Observers] = []

    def of(self, *plugins: Observing, queued_maximum: int = 100, timeout_s: float = 5) -> Observers:
        hooks = [implementations(f"p{i}", plugin)["observe"] for i, plugin in enumerate(plugins)]
        made = Observers(hooks, self.failures, queued_maximum=queued_maximum, timeout_s=timeout_s)
        self.made.append(made)
        return made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for made in world.made:
        made.timeout_s = 0
        await made.stop()


def fail(batch: Any) -> None:
    raise RuntimeError("broken")


async def until(is_so: Any) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_all_see_the_same_batch_at_once(world: World):
    one, two = Observing(), Observing()
    observers = world.of(one, two)
    assert observers
    assert not world.of()
    observers.give(events("a", "b"))
    assert names(one.batches) == names(two.batches) == [["a", "b"]]


async def test_slow_one_gets_one_batch_at_a_time_and_its_queue_is_bounded(world: World):
    gate = asyncio.Event()

    async def slow(batch: Any) -> None:
        await gate.wait()

    quick, late = Observing(), Observing(slow)
    observers = world.of(quick, late, queued_maximum=2)
    for name in "abcd":
        observers.give(events(name))
    assert names(quick.batches) == [["a"], ["b"], ["c"], ["d"]]
    assert names(late.batches) == [["a"]]
    assert observers.metrics() == {
        "plugin_p0_events_queued": 0,
        "plugin_p0_events_dropped": 0,
        "plugin_p1_events_queued": 2,
        "plugin_p1_events_dropped": 1,
    }
    gate.set()
    await until(lambda: len(late.batches) == 2)
    assert names(late.batches)[1] == ["b", "c"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_one_that_keeps_failing_is_paused_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, is_async: bool
):
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)

    async def fail_later(batch: Any) -> None:
        fail(batch)

    bad, good = Observing(fail_later if is_async else fail), Observing()
    observers = world.of(bad, good)
    for number in range(8):
        observers.give(events(str(number)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await until(lambda: world.failures.count("p0") >= 5)
    assert world.failures.count("p0", "observe") == 5
    assert len(good.batches) == 8
    bad.act = None
    bad.came.clear()
    async with asyncio.timeout(5):
        await bad.came.wait()
    assert [name for batch in names(bad.batches) for name in batch] == list("01234567")  # tried once, and in order
    assert world.failures.count("p0") == 5


async def test_hanging_one_is_given_up(world: World):
    async def hang(batch: Any) -> None:
        await asyncio.Event().wait()

    plugin = Observing(hang)
    observers = world.of(plugin, timeout_s=0.01)
    observers.give(events("a"))
    observers.give(events("b"))
    await until(lambda: len(plugin.batches) == 2)
    assert world.failures.count("p0") == 1


async def test_failing_at_its_own_failure_goes_round_once(world: World):
    plugin, other = Observing(fail), Observing()
    observers = world.of(plugin, other)
    world.failures.emit = lambda event: observers.give([event])
    observers.give(events("a"))
    assert len(plugin.batches) == 1
    assert [type(event) for batch in other.batches for event in batch] == [PluginFailed, SessionEnded]


async def test_stop_lets_what_waits_be_seen(world: World):
    gate = asyncio.Event()

    async def slow(batch: Any) -> None:
        await gate.wait()

    plugin = Observing(slow)
    observers = world.of(plugin)
    observers.give(events("a"))
    observers.give(events("b"))
    asyncio.get_running_loop().call_soon(gate.set)
    await observers.stop()
    assert names(plugin.batches) == [["a"], ["b"]]


async def test_stop_waits_no_longer_than_allowed(world: World):
    async def hang(batch: Any) -> None:
        await asyncio.Event().wait()

    observers = world.of(Observing(hang))
    observers.give(events("a"))
    observers.give(events("b"))
    observers.timeout_s = 0
    await observers.stop()
    assert observers.metrics() == {"plugin_p0_events_queued": 0, "plugin_p0_events_dropped": 1}
