"""Who observes events: one bounded queue each, handed over in batches, once per turn of the loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from mqttcore.events import Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from types import TracebackType

    from mqttcore.engine.engine import Engine

__all__ = ["EventStream", "Observer", "Observers"]

log = logging.getLogger("mqttcore.broker")


class Observer:
    """A function that sees events; made by `Observers.add`."""

    def __init__(
        self,
        observers: Observers,
        function: Callable[[Sequence[Event]], Awaitable[None] | None],
        kinds: tuple[type[Event], ...],
        name: str,
        on_failure: Callable[[BaseException], object] | None,
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.dropped = 0
        self.failures = 0
        self._observers = observers
        self._function = function
        self._on_failure = on_failure
        self._waiting: deque[Event] = deque()
        self._task: asyncio.Future[None] | None = None

    @property
    def queued(self) -> int:
        """Events that wait because the function has not finished with those before."""
        return len(self._waiting)

    def offer(self, events: Iterable[Event], maximum: int) -> None:
        """Take the events that are of its kinds; the newest that do not fit are dropped and counted."""
        for event in events:
            if isinstance(event, self.kinds):
                if len(self._waiting) >= maximum:
                    self.dropped += 1
                else:
                    self._waiting.append(event)
        if self._task is None:
            self._hand_over()

    def close(self) -> None:
        """See no more events."""
        self._observers.discard(self)
        self._waiting.clear()

    async def finish(self) -> None:
        """Return when all that waits was handed over and dealt with."""
        while self._task is not None:
            await asyncio.wait({self._task})
            await asyncio.sleep(0)  # its callback hands the next batch over

    def cancel(self) -> None:
        """Give up a call that does not end."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def _hand_over(self) -> None:
        while self._waiting:
            batch = list(self._waiting)
            self._waiting.clear()
            try:
                answer = self._function(batch)
            except Exception as error:
                self._failed(error)
                continue
            if inspect.isawaitable(answer):
                self._task = asyncio.ensure_future(answer)
                self._task.add_done_callback(self._done)
                return

    def _done(self, task: asyncio.Future[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
        self._hand_over()

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self._on_failure is not None:
            self._on_failure(error)
        elif self.failures & (self.failures - 1) == 0:
            log.error("observer %s failed %d times: %r", self.name, self.failures, error, exc_info=error)


class Observers:
    """All observers of one broker; they may be added before it starts, and stay when it stops.

    queued_maximum: events that wait for one observer, and in one turn for all.
    """

    def __init__(self, queued_maximum: int) -> None:
        self.queued_maximum = queued_maximum
        self._observers: list[Observer] = []
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.Handle | None = None
        self._dropped_before = 0  # by observers that are gone

    def attach(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        """Observe this engine from now on."""
        self._engine, self._loop = engine, loop
        self._observe()

    def add(
        self,
        function: Callable[[Sequence[Event]], Awaitable[None] | None],
        *kinds: type[Event],
        name: str = "observer",
        on_failure: Callable[[BaseException], object] | None = None,
    ) -> Observer:
        """Call *function* with a batch of events whenever some happened, in order, one batch at a time.

        kinds: classes of events; none given: all. What the function raises is given to on_failure, or logged.
        """
        observer = Observer(self, function, kinds or (Event,), name, on_failure)
        self._observers.append(observer)
        self._observe()
        return observer

    def discard(self, observer: Observer) -> None:
        """Take an observer off; without effect when it is none."""
        if observer in self._observers:
            self._observers.remove(observer)
            self._dropped_before += observer.dropped
            self._observe()

    def put(self, event: Event) -> None:
        """Let everybody see an event who wants its kind, behind those that happened before."""
        if self._engine is not None:
            self._engine.events.put(event)

    async def finish(self, timeout_s: float) -> None:
        """Hand over all that waits and let the observers deal with it, at most for this time; then stop observing."""
        self._hand_out()
        self._engine = None
        busy = [asyncio.ensure_future(observer.finish()) for observer in self._observers]
        if busy:
            _, late = await asyncio.wait(busy, timeout=timeout_s)
            if late:
                for observer in self._observers:
                    if observer.queued:
                        log.warning("observer %s: %d events were not taken in time", observer.name, observer.queued)
                    observer.cancel()
                await asyncio.wait(late)

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges."""
        return {
            "observers": len(self._observers),
            "events_queued": sum(observer.queued for observer in self._observers),
            "events_dropped_by_observers": self._dropped_before + sum(observer.dropped for observer in self._observers),
        }

    def _observe(self) -> None:
        if self._engine is not None:
            kinds = {kind for observer in self._observers for kind in observer.kinds}
            self._engine.events.observe(kinds, self._wake if kinds else None, self.queued_maximum)

    def _wake(self) -> None:
        if self._handle is None and self._loop is not None:
            self._handle = self._loop.call_soon(self._hand_out)

    def _hand_out(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._engine is not None and (events := self._engine.events.take(self._engine.wall_clock_ms)):
            for observer in tuple(self._observers):
                observer.offer(events, self.queued_maximum)


class EventStream:
    """Events as they happen: an async context manager and iterator, which `Broker.events` gives.

    Its queue is bounded: when the application does not keep up, the newest events are dropped and counted in `dropped`.
    Iteration ends when the broker stops.
    """

    def __init__(self, observers: Observers, kinds: tuple[type[Event], ...], streams: set[EventStream]) -> None:
        self.dropped = 0
        self._observers = observers
        self._kinds = kinds
        self._streams = streams
        self._waiting: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._observer: Observer | None = None

    async def __aenter__(self) -> Self:
        """Begin to observe."""
        self._observer = self._observers.add(self._take, *self._kinds, name="event stream")
        self._streams.add(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End observing."""
        self.close()

    def close(self) -> None:
        """End observing; iteration ends once what waits was taken."""
        if self._observer is not None:
            self._observer.close()
            self._observer = None
            self._streams.discard(self)
            self._arrived.set()

    def __aiter__(self) -> Self:
        """Iterate over events as they come."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event; waits for one."""
        while not self._waiting:
            if self._observer is None:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    def _take(self, events: Sequence[Event]) -> Any:
        room = self._observers.queued_maximum - len(self._waiting)
        self._waiting.extend(events[:room])
        self.dropped += max(len(events) - room, 0)
        self._arrived.set()
