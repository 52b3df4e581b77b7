"""The base class of sinks: nothing lost, nothing out of order, nothing without bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mqttcore import EventRecord, Sink, SinkConfig, SinkRecord, SinkRejected
from plugins.doubles import Alarms


class Recorder(Sink):
    """Takes what it is given, unless told otherwise."""

    name = "recorder"

    def __init__(self, config: SinkConfig) -> None:
        super().__init__(config)
        self.taken: list[EventRecord] = []
        self.attempts = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.fails: Callable[[Sequence[SinkRecord]], Exception | None] = lambda records: None
        self.progress = asyncio.Condition()

    async def send(self, records: Sequence[SinkRecord]) -> None:
        async with self.progress:
            self.attempts += 1
            self.progress.notify_all()
        await self.goes_on.wait()
        error = self.fails(records)
        async with self.progress:
            if error is None:
                self.taken += records
            self.progress.notify_all()
        if error is not None:
            raise error

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60), self.progress:
            await self.progress.wait_for(condition)


def record(number: int, key: str = "k") -> EventRecord:
    return EventRecord(key=key, time_ms=number, name="E", fields={})


async def started(**config: Any) -> tuple[Recorder, Alarms]:
    defaults = {"linger_ms": 0, "retry_first_s": 0.01, "retry_longest_s": 0.02}
    sink, alarms = Recorder(msgspec.convert(defaults | config, SinkConfig)), Alarms()
    await sink.startup(alarms)
    return sink, alarms


def numbers(records: Sequence[EventRecord]) -> list[int]:
    return [one.time_ms for one in records]


async def test_everything_arrives_in_order_in_bounded_batches():
    sink, alarms = await started(batch_records_maximum=7)
    sizes: list[int] = []
    sink.fails = lambda records: sizes.append(len(records))
    for start in range(0, 100, 20):
        await sink.accept([record(n) for n in range(start, start + 20)])
    await sink.until(lambda: len(sink.taken) == 100)
    await sink.shutdown(alarms)
    assert numbers(sink.taken) == list(range(100))
    assert max(sizes) <= 7
    assert sink.metrics()["sent"] == sink.metrics()["received"] == 100


async def test_failures_are_tried_again_with_an_alarm_that_ends():
    sink, alarms = await started()
    sink.fails = lambda records: OSError("down") if sink.attempts < 5 else None
    await sink.accept([record(1), record(2)])
    await sink.until(lambda: sink.attempts == 4)
    assert "OSError: down" in alarms.raised["sink_recorder"]
    await sink.until(lambda: len(sink.taken) == 2)
    await sink.shutdown(alarms)
    assert numbers(sink.taken) == [1, 2]
    assert not alarms.raised
    assert sink.metrics()["failures"] == 4


async def test_a_send_that_hangs_is_given_up_and_repeated():
    sink, alarms = await started(send_timeout_s=0.1)
    sink.goes_on.clear()
    await sink.accept([record(1)])
    await sink.until(lambda: sink.attempts == 2)
    sink.goes_on.set()
    await sink.until(lambda: numbers(sink.taken) == [1])
    await sink.shutdown(alarms)


async def test_rejected_records_are_counted_and_do_not_stop_the_rest():
    sink, alarms = await started(batch_records_maximum=1)
    sink.fails = lambda records: SinkRejected("never") if records[0].time_ms == 1 else None
    await sink.accept([record(n) for n in range(3)])
    await sink.until(lambda: len(sink.taken) == 2)
    await sink.shutdown(alarms)
    assert numbers(sink.taken) == [0, 2]
    assert sink.metrics()["rejected"] == 1


async def test_lanes_keep_the_order_of_each_key():
    sink, alarms = await started(lanes=4, batch_records_maximum=10)
    keys = "abcdefg"
    failed: set[int] = set()

    def fail_once(records: Sequence[SinkRecord]) -> Exception | None:
        first = records[0].time_ms
        if first % 3 == 0 and first not in failed:
            failed.add(first)
            return OSError("once")
        return None

    sink.fails = fail_once
    await sink.accept([record(n, keys[n % len(keys)]) for n in range(200)])
    await sink.until(lambda: len(sink.taken) == 200)
    await sink.shutdown(alarms)
    assert failed
    for key in keys:
        of_key = [one.time_ms for one in sink.taken if one.key == key]
        assert of_key == sorted(of_key)
    assert sorted(numbers(sink.taken)) == list(range(200))


async def test_full_memory_drops_and_counts():
    sink, alarms = await started(queue_records_maximum=10, batch_records_maximum=5, stop_timeout_s=5)
    sink.goes_on.clear()
    await sink.accept([record(n) for n in range(50)])
    sink.goes_on.set()
    await sink.shutdown(alarms)
    metrics = sink.metrics()
    assert metrics["dropped"] >= 30
    assert metrics["sent"] + metrics["dropped"] == 50
    assert numbers(sink.taken) == sorted(numbers(sink.taken))


async def test_full_memory_holds_the_giver_back():
    sink, alarms = await started(queue_records_maximum=10, batch_records_maximum=5, when_full="pause")
    sink.goes_on.clear()
    giving = asyncio.create_task(sink.accept([record(n) for n in range(50)]))
    done, _ = await asyncio.wait([giving], timeout=0.1)
    assert not done
    sink.goes_on.set()
    await giving
    await sink.until(lambda: len(sink.taken) == 50)
    await sink.shutdown(alarms)
    assert numbers(sink.taken) == list(range(50))
    assert sink.metrics()["dropped"] == 0


async def test_spool_takes_what_memory_does_not_and_order_is_kept(tmp_path: Path):
    config = {"queue_records_maximum": 10, "batch_records_maximum": 5, "spool": str(tmp_path / "spool")}
    sink, alarms = await started(**config)
    sink.goes_on.clear()
    for start in range(0, 200, 20):
        await sink.accept([record(n) for n in range(start, start + 20)])
    assert sink.metrics()["spool_bytes"] > 0
    sink.goes_on.set()
    await sink.until(lambda: len(sink.taken) == 200)
    await sink.shutdown(alarms)
    assert numbers(sink.taken) == list(range(200))
    assert sink.metrics()["spool_bytes"] == 0


async def test_what_is_left_at_the_end_is_sent_after_the_next_start(tmp_path: Path):
    config = {
        "queue_records_maximum": 20,
        "batch_records_maximum": 5,
        "spool": str(tmp_path / "spool"),
        "stop_timeout_s": 0.05,
    }
    sink, alarms = await started(**config)
    sink.fails = lambda records: OSError("down") if len(sink.taken) >= 10 else None
    await sink.accept([record(n) for n in range(60)])
    await sink.until(lambda: sink.attempts > 3)
    await sink.shutdown(alarms)
    again, alarms = await started(**config)
    await again.until(lambda: len(again.taken) == 50)
    await again.shutdown(alarms)
    assert numbers(sink.taken) + numbers(again.taken) == list(range(60))


async def test_without_a_spool_what_is_left_is_counted():
    sink, alarms = await started(stop_timeout_s=0.05)
    sink.goes_on.clear()
    await sink.accept([record(n) for n in range(5)])
    await sink.shutdown(alarms)
    assert sink.metrics()["dropped"] == 5


async def test_spool_that_cannot_be_written_is_an_alarm_not_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sink, alarms = await started(queue_records_maximum=5, batch_records_maximum=5, spool=str(tmp_path / "spool"))
    sink.goes_on.clear()

    def fail(records: Sequence[SinkRecord]) -> bool:
        raise OSError(28, "No space left on device")

    assert sink._spool is not None
    monkeypatch.setattr(sink._spool, "append", fail)
    await sink.accept([record(n) for n in range(20)])
    assert "No space left" in alarms.raised["sink_recorder"]
    assert sink.metrics()["dropped"] >= 5
    sink.goes_on.set()
    await sink.shutdown(alarms)
    assert sink.metrics()["sent"] + sink.metrics()["dropped"] == 20
