"""What `Broker.tap` gives: batches of messages for a function, with back-pressure."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Literal

from mqttcore.engine.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mqttcore.engine.engine import Engine
    from mqttcore.engine.message import Message

__all__ = ["BatchTap", "WhenFull"]

log = logging.getLogger("mqttcore.broker")

WhenFull = Literal["drop", "pause"]


class BatchTap:
    """A function that gets the messages of one Topic Filter in batches, one batch at a time.

    While a coroutine function works on a batch, the next one gathers in a bounded queue.
    """

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        topic_filter: str,
        on_batch: Callable[[list[Message]], Awaitable[None] | None],
        *,
        messages_maximum: int,
        bytes_maximum: int,
        batch_maximum: int,
        when_full: WhenFull,
        on_failure: Callable[[BaseException], object] | None,
        taps: set[BatchTap],
    ) -> None:
        self.topic_filter = topic_filter
        self.failures = 0
        self._engine = engine
        self._loop = loop
        self._on_batch = on_batch
        self._batch_maximum = batch_maximum
        self._on_failure = on_failure
        self._taps = taps  # of the broker, which closes those that are open when it stops
        self._handle: asyncio.Handle | None = None
        self._task: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._tap = Tap(
            engine,
            self._arrived,
            messages_maximum=messages_maximum,
            bytes_maximum=bytes_maximum,
            pauses=when_full == "pause",
        )
        engine.add_tap(topic_filter.encode(), self._tap)
        taps.add(self)

    @property
    def queued(self) -> int:
        """Messages that wait; those the function works on are not among them."""
        return self._tap.queued

    @property
    def taken(self) -> int:
        """Messages that came into the queue."""
        return self._tap.taken

    @property
    def dropped(self) -> int:
        """Messages dropped because the queue was full."""
        return self._tap.dropped

    async def drain(self) -> None:
        """Return when all that waits was handed over and the function is done with it."""
        await self._idle.wait()

    def close(self) -> None:
        """Unsubscribe. What waits is forgotten: `drain` first; a coroutine that works on a batch is cancelled."""
        if self in self._taps:
            self._taps.discard(self)
            self._engine.remove_tap(self.topic_filter.encode(), self._tap)
            self._tap.close()
            self._engine.release_held()
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None
            if self._task is not None:
                self._task.cancel()
            else:
                self._idle.set()

    def _arrived(self) -> None:
        self._idle.clear()
        if self._handle is None and self._task is None:
            self._handle = self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._handle = None
        if self._task is not None:
            return  # a function that publishes what it gets may have come to this
        batch = self._tap.take(self._batch_maximum)
        if batch:
            try:
                answer = self._on_batch(batch)
            except Exception as error:
                self._failed(error)
            else:
                if inspect.isawaitable(answer):
                    self._task = asyncio.ensure_future(answer)
                    self._task.add_done_callback(self._done)
        self._engine.release_held()  # at last: what waited fills the queue again
        if self._task is None:
            self._go_on()

    def _done(self, task: asyncio.Future[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
        self._go_on()

    def _go_on(self) -> None:
        if self._tap.queued:
            self._arrived()
        else:
            self._idle.set()

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self._on_failure is not None:
            self._on_failure(error)
        elif self.failures & (self.failures - 1) == 0:
            log.error("tap on %s failed %d times: %r", self.topic_filter, self.failures, error, exc_info=error)
