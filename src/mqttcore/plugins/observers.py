"""Events to plugins that observe: a bounded queue each, one batch at a time, and a pause for who keeps failing."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from mqttcore.events import PluginFailed
from mqttcore.plugins.hooks import give_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mqttcore.events import Event
    from mqttcore.plugins.failures import Failures
    from mqttcore.plugins.hooks import Implementation

__all__ = ["Observers"]

_BREAKING_FAILURES = 5  # in a row
_PAUSE_S = 5.0  # doubled by every further failure
_PAUSE_MAXIMUM_S = 300.0
_BATCH_MAXIMUM = 1000


class _Observer:
    """One plugin with its queue."""

    def __init__(self, implementation: Implementation, failures: Failures, owner: Observers) -> None:
        self.implementation = implementation
        self.failures = failures
        self.owner = owner
        self.queue: deque[Event] = deque()
        self.dropped = 0
        self.failed_in_a_row = 0
        self.task: asyncio.Task[None] | None = None
        self.resume: asyncio.TimerHandle | None = None  # while it is paused

    def give(self, events: Iterable[Event]) -> None:
        mine = self.implementation
        for event in events:
            if isinstance(event, PluginFailed) and (event.plugin, event.hook) == (mine.plugin, mine.hook):
                continue  # who fails at events would fail at being told so, for ever
            if len(self.queue) >= self.owner.queued_maximum:
                self.dropped += 1
            else:
                self.queue.append(event)
        self.go_on()

    def go_on(self) -> None:
        while self.queue and self.task is None and self.resume is None:
            batch = tuple(islice(self.queue, _BATCH_MAXIMUM))
            for _ in batch:
                self.queue.popleft()
            try:
                result = self.implementation.call(events=batch)
            except Exception as error:
                self._failed(error)
                continue
            if inspect.isawaitable(result):
                self.task = asyncio.get_running_loop().create_task(self._await(result))
                self.task.add_done_callback(functools.partial(self._done, result))
            else:
                self.failed_in_a_row = 0

    async def _await(self, result: Any) -> None:
        async with asyncio.timeout(self.owner.timeout_s):
            await result

    def _done(self, result: Any, task: asyncio.Task[None]) -> None:
        self.task = None
        if task.cancelled():
            give_up(result)  # it may not have begun
            return
        error = task.exception()
        if isinstance(error, TimeoutError):
            self._failed(f"a batch took more than {self.owner.timeout_s:g} s, or timed out by itself")
        elif error is not None:
            self._failed(error)
        else:
            self.failed_in_a_row = 0
        self.go_on()

    def _failed(self, error: BaseException | str) -> None:
        self.failures.record(self.implementation.plugin, self.implementation.hook, error)
        self.failed_in_a_row += 1
        further = self.failed_in_a_row - _BREAKING_FAILURES
        if further >= 0:
            pause_s = min(_PAUSE_S * 2.0 ** min(further, 16), _PAUSE_MAXIMUM_S)
            self.resume = asyncio.get_running_loop().call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self.resume = None
        self.go_on()

    def stop_pausing(self) -> None:
        if self.resume is not None:
            self.resume.cancel()
            self.resume = None


class Observers:
    """All plugins of one broker that observe.

    queued_maximum: events that wait for one; what does not fit is dropped and counted. timeout_s: for one batch.
    """

    def __init__(
        self, hooks: Sequence[Implementation], failures: Failures, *, queued_maximum: int, timeout_s: float
    ) -> None:
        self._observers = [_Observer(implementation, failures, self) for implementation in hooks]
        self.queued_maximum = queued_maximum
        self.timeout_s = timeout_s

    def __bool__(self) -> bool:
        """Whether anybody observes."""
        return bool(self._observers)

    def give(self, events: Sequence[Event]) -> None:
        """Hand over what happened, in order."""
        for observer in self._observers:
            observer.give(events)

    async def stop(self) -> None:
        """Let observers finish what waits, for at most `timeout_s`; then it is dropped."""
        for observer in self._observers:
            observer.stop_pausing()
            observer.go_on()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self.timeout_s
        while tasks := {observer.task for observer in self._observers if observer.task is not None}:
            left_s = end_s - loop.time()
            if left_s <= 0:
                break
            await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # their callbacks begin the next batch
        for observer in self._observers:
            observer.dropped += len(observer.queue)
            observer.queue.clear()
            observer.stop_pausing()
            if observer.task is not None:
                observer.task.cancel()

    def metrics(self) -> dict[str, int]:
        """Return gauges and counters of each."""
        values: dict[str, int] = {}
        for observer in self._observers:
            prefix = f"plugin_{observer.implementation.plugin}_events"
            values[f"{prefix}_queued"] = len(observer.queue)
            values[f"{prefix}_dropped"] = observer.dropped
        return values
