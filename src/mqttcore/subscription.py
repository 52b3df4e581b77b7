"""What `Broker.subscribe` gives: messages for the embedding application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from mqttcore.engine.tap import Tap
from mqttcore.errors import MqttCoreError

if TYPE_CHECKING:
    from types import TracebackType

    from mqttcore.engine.engine import Engine
    from mqttcore.engine.message import Message

__all__ = ["MessageStream"]


class MessageStream:
    """Messages that match one Topic Filter, in the order they were published: an async context manager and iterator.

    It is a subscriber of its own, independent of any client. Its queue is bounded: when the application does not keep
    up, the newest messages are dropped and counted in `dropped`. Iteration ends when the broker stops.
    """

    def __init__(
        self,
        engine: Engine,
        topic_filter: str,
        *,
        messages_maximum: int,
        bytes_maximum: int,
        streams: set[MessageStream],
    ) -> None:
        self._engine = engine
        self._streams = streams  # of the broker, which closes those that are open when it stops
        self._filter = topic_filter.encode()
        self._arrived = asyncio.Event()
        self._is_open = False
        self._tap = Tap(engine, self._arrived.set, messages_maximum=messages_maximum, bytes_maximum=bytes_maximum)
        self._batch: list[Message] = []

    @property
    def dropped(self) -> int:
        """Messages dropped because the queue was full."""
        return self._tap.dropped

    async def __aenter__(self) -> Self:
        """Subscribe; ValueError when the filter is none, MqttCoreError when the broker has stopped."""
        if self._engine.is_closed:
            raise MqttCoreError("the broker is not running")
        self._engine.add_tap(self._filter, self._tap)
        self._is_open = True
        self._streams.add(self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unsubscribe."""
        self.close()

    def close(self) -> None:
        """Unsubscribe; iteration ends once what waits was taken."""
        if self._is_open:
            self._is_open = False
            self._streams.discard(self)
            self._engine.remove_tap(self._filter, self._tap)
            self._arrived.set()

    def __aiter__(self) -> Self:
        """Iterate over messages as they come."""
        return self

    async def __anext__(self) -> Message:
        """Return the next message; waits for one."""
        while not self._batch:
            self._batch = self._tap.take()[::-1]
            if not self._batch:
                if not self._is_open:
                    raise StopAsyncIteration
                self._arrived.clear()
                await self._arrived.wait()
        return self._batch.pop()

    async def batch(self) -> list[Message]:
        """Return all that waits, at least one message; an empty list when the stream is closed."""
        while not self._batch:
            self._batch = self._tap.take()[::-1]
            if not self._batch:
                if not self._is_open:
                    return []
                self._arrived.clear()
                await self._arrived.wait()
        taken, self._batch = self._batch[::-1], []
        return taken
