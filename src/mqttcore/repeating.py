"""What `Broker.call_every` gives: a function called again and again, alone in its failures."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["RepeatingCall"]

log = logging.getLogger("mqttcore.broker")


class RepeatingCall:
    """A function that is called every *interval_s* seconds until it is cancelled.

    The first call comes after one interval. A coroutine is awaited, and the interval counts from its end, so that calls
    never overlap. What it raises goes to on_failure, or into the log; the next call comes all the same.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interval_s: float,
        function: Callable[[], Awaitable[object] | object],
        *,
        on_failure: Callable[[BaseException], object] | None,
        calls: set[RepeatingCall],
    ) -> None:
        if not interval_s > 0:
            raise ValueError(f"an interval of {interval_s} s is not above 0")
        self.failures = 0
        self._loop = loop
        self._interval_s = interval_s
        self._function = function
        self._on_failure = on_failure
        self._calls = calls  # of the broker, which cancels those that are left when it stops
        self._task: asyncio.Future[object] | None = None
        self._handle: asyncio.TimerHandle | None = loop.call_later(interval_s, self._call)
        calls.add(self)

    def cancel(self) -> None:
        """Call it no more; a coroutine that runs is cancelled."""
        self._calls.discard(self)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._task is not None:
            self._task.cancel()

    def _call(self) -> None:
        try:
            answer = self._function()
        except Exception as error:
            self._failed(error)
        else:
            if inspect.isawaitable(answer):
                self._handle = None
                self._task = asyncio.ensure_future(answer)
                self._task.add_done_callback(self._done)
                return
        self._again()

    def _done(self, task: asyncio.Future[object]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
        self._again()

    def _again(self) -> None:
        if self in self._calls:
            self._handle = self._loop.call_later(self._interval_s, self._call)

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self._on_failure is not None:
            self._on_failure(error)
        elif self.failures & (self.failures - 1) == 0:
            log.error(
                "%r, called every %g s, failed %d times: %r",
                self._function,
                self._interval_s,
                self.failures,
                error,
                exc_info=error,
            )
