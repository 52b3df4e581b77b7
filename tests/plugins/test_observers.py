"""Plugins that observe: quick, slow, failing and hanging ones do not disturb each other, nor the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from mqttcore import ClientConnected, Config, Event, PluginFailed, SessionEnded, hookimpl
from mqttcore.plugins import observing
from mqttcore.testing import MemoryBroker


class Observing:
    """Gives batches to a function."""

    def __init__(self, name: str = "one", act: Any = None) -> None:
        self.name = name
        self.act = act
        self.batches: list[Sequence[Event]] = []
        self.came = asyncio.Event()

    @hookimpl
    def observe(self, events: Sequence[Event]) -> Any:
        self.batches.append(events)
        self.came.set()
        return self.act(events) if self.act is not None else None

    @property
    def names(self) -> list[list[str]]:
        """Names of the events that the test emitted."""
        found = [[event.client_id for event in batch if isinstance(event, SessionEnded)] for batch in self.batches]
        return [batch for batch in found if batch]


def fail(batch: Any) -> None:
    raise RuntimeError("broken")


async def fail_later(batch: Any) -> None:
    fail(batch)


async def hang(batch: Any) -> None:
    await asyncio.Event().wait()


async def emit(broker: MemoryBroker, *names: str) -> None:
    for name in names:
        broker.emit(SessionEnded(time_ms=1, client_id=name))
    await broker.settle()


async def test_all_see_the_same_batch():
    one, two = Observing(), Observing("two")
    async with MemoryBroker(plugins=[one, two]) as broker:
        await emit(broker, "a", "b")
        assert one.names == two.names == [["a", "b"]]
        await broker.connect("c")
        await broker.settle()
        assert isinstance(one.batches[-1][0], ClientConnected)


async def test_slow_one_gets_one_batch_at_a_time_and_its_queue_is_bounded():
    gate = asyncio.Event()

    async def slow(batch: Any) -> None:
        await gate.wait()

    quick, late = Observing("quick"), Observing("late", slow)
    async with MemoryBroker(Config(events_queued_maximum=2, sys_interval_s=0), plugins=[quick, late]) as broker:
        for name in "abcd":
            await emit(broker, name)
        assert quick.names == [["a"], ["b"], ["c"], ["d"]]
        assert late.names == [["a"]]
        metrics = broker.metrics()
        assert (metrics["plugin_late_events_queued"], metrics["plugin_late_events_dropped"]) == (2, 1)
        assert (metrics["plugin_quick_events_queued"], metrics["plugin_quick_events_dropped"]) == (0, 0)
        gate.set()
        await broker.settle()
        assert late.names == [["a"], ["b", "c"]]


@pytest.mark.parametrize("act", [fail, fail_later])
async def test_one_that_keeps_failing_is_paused_and_tried_again(act: Any):
    bad, good = Observing("bad", act), Observing("good")
    async with MemoryBroker(plugins=[bad, good]) as broker:
        for name in "0123456":
            await emit(broker, name)
        assert len(bad.names) == broker.metrics()["plugin_bad_errors"] == 5
        assert [name for batch in good.names for name in batch] == list("0123456")
        assert broker.metrics()["plugin_bad_events_queued"] >= 2
        states = {state.name: state for state in broker.plugin_states}
        assert 0 < (states["bad"].observing_paused_for_s or 0) <= observing._PAUSE_S
        assert (states["bad"].failures, states["good"].failures) == ({"observe": 5}, {})
        assert states["bad"].last_failure_s is not None
        assert states["good"].observing_paused_for_s is None
        await broker.advance(observing._PAUSE_S)
        assert broker.metrics()["plugin_bad_errors"] == 6  # tried again
        await emit(broker, "7")
        await broker.advance(observing._PAUSE_S)
        assert broker.metrics()["plugin_bad_errors"] == 6  # the second pause is longer
        bad.act = None
        await broker.advance(observing._PAUSE_S)
        assert bad.names[-1] == ["7"]
        assert [state.observing_paused_for_s for state in broker.plugin_states] == [None, None]
        await emit(broker, "8")
        assert bad.names[-1] == ["8"]
        told = [event for batch in good.batches for event in batch if isinstance(event, PluginFailed)]
        assert [(event.plugin, event.hook, event.error) for event in told] == [
            ("bad", "observe", "RuntimeError: broken")
        ] * 6


async def test_hanging_one_is_given_up():
    plugin = Observing(act=hang)
    async with MemoryBroker(Config(plugin_timeout_s=1.0, sys_interval_s=0), plugins=[plugin]) as broker:
        await emit(broker, "a")
        await emit(broker, "b")
        assert plugin.names == [["a"]]
        await broker.advance(1)
        assert plugin.names == [["a"], ["b"]]
        assert broker.metrics()["plugin_one_errors"] == 1


async def test_one_that_fails_at_everything_is_not_told_of_its_failures():
    plugin = Observing(act=fail)
    async with MemoryBroker(plugins=[plugin]) as broker:
        await emit(broker, "a")
        await emit(broker)
        assert len(plugin.batches) == 1


async def test_stop_lets_what_waits_be_seen():
    gate = asyncio.Event()

    async def slow(batch: Any) -> None:
        await gate.wait()

    plugin = Observing(act=slow)
    async with MemoryBroker(plugins=[plugin]) as broker:
        await emit(broker, "a")
        await emit(broker, "b")
        asyncio.get_running_loop().call_soon(gate.set)
    assert plugin.names == [["a"], ["b"]]


async def test_stop_does_not_wait_for_pauses_nor_for_ever():
    bad, deaf = Observing("bad", fail), Observing("deaf", hang)
    config = Config(plugin_timeout_s=0.02, sys_interval_s=0)
    async with asyncio.timeout(4):
        async with MemoryBroker(config, plugins=[bad, deaf]) as broker:
            for name in "012345":
                await emit(broker, name)
            assert len(bad.names) == 5
        assert bad.names[5:] == [["5"]]
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_plugin_that_keeps_failing_raises_an_alarm():
    plugin = Observing(act=fail)
    async with MemoryBroker(plugins=[plugin]) as broker:
        assert broker._plugins is not None
        for _ in range(10):
            broker._plugins.failures.record("one", "observe", "broken")
        assert broker.alarms == {"plugin_one_failing": "plugin one keeps failing, at last in observe"}
        await broker.advance(61)
        assert broker.alarms == {}
