"""Plugins that observe, kept from harm: a batch has a deadline, and who keeps failing is paused, longer each time."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from mqttcore.events import PluginFailed
from mqttcore.plugins.deadline import Late, within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from mqttcore.events import Event
    from mqttcore.plugins.failures import Failures
    from mqttcore.plugins.hooks import Implementation

__all__ = ["GuardedObserver"]

_BREAKING_FAILURES = 5  # in a row
_PAUSE_S = 5.0  # doubled by every further failure
_PAUSE_MAXIMUM_S = 300.0


class GuardedObserver:
    """What `Observers` calls instead of a plugin's `observe`.

    A pause is a batch that takes its time: what happens meanwhile waits in the queue of the plugin, which is bounded.
    """

    def __init__(self, implementation: Implementation, failures: Failures, timeout_s: float) -> None:
        self.implementation = implementation
        self.timeout_s = timeout_s
        self._failures = failures
        self._failed_in_a_row = 0
        self._paused_until_s: float | None = None  # by the loop's clock
        self._batch: asyncio.Event | None = None  # set when the batch under way is done with; None: there is none
        self._go_on = asyncio.Event()

    def __call__(self, events: Sequence[Event]) -> Awaitable[None] | None:
        """Give a batch to the plugin."""
        mine = self.implementation
        # Who fails at events would fail at being told so, for ever.
        batch = [
            event
            for event in events
            if not (isinstance(event, PluginFailed) and (event.plugin, event.hook) == (mine.plugin, mine.hook))
        ]
        if not batch:
            return None
        try:
            result = mine.call(events=batch)
        except Exception as error:
            return self._failed(error)
        if inspect.isawaitable(result):
            self._batch = asyncio.Event()
            return self._wait(result, self._batch)
        self._failed_in_a_row = 0
        return None

    @property
    def paused_for_s(self) -> float | None:
        """How long the plugin is not told of events yet; None: it is told."""
        if self._paused_until_s is None:
            return None
        return max(0.0, self._paused_until_s - asyncio.get_running_loop().time())

    async def settled(self) -> None:
        """Return when the plugin is done with the batch that it has now, or is late with it."""
        if self._batch is not None:
            await self._batch.wait()

    def stop_pausing(self) -> None:
        """Go on at once, and pause no more: the broker stops."""
        self._go_on.set()

    async def _wait(self, result: Awaitable[Any], batch: asyncio.Event) -> None:
        try:
            await within(result, self.timeout_s)
        except Late:
            pause = self._failed(f"a batch took more than {self.timeout_s:g} s")
        except Exception as error:
            pause = self._failed(error)
        else:
            self._failed_in_a_row = 0
            return
        finally:
            self._batch = None
            batch.set()
        if pause is not None:
            await pause

    def _failed(self, error: BaseException | str) -> Awaitable[None] | None:
        self._failures.record(self.implementation.plugin, self.implementation.hook, error)
        self._failed_in_a_row += 1
        further = self._failed_in_a_row - _BREAKING_FAILURES
        return self._pause(min(_PAUSE_S * 2.0 ** min(further, 16), _PAUSE_MAXIMUM_S)) if further >= 0 else None

    async def _pause(self, seconds: float) -> None:
        self._paused_until_s = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._go_on.wait()
        except TimeoutError:
            return
        finally:
            self._paused_until_s = None
