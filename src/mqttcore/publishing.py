"""The messages that the broker itself publishes, receives and reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqttcore.client_services import ClientServices
from mqttcore.subscription import MessageStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mqttcore.engine.message import Message
    from mqttcore.persistence import Persistence

__all__ = ["Publishing"]

_RETAINED_NODES = 2_000  # looked at in one slice


class Publishing(ClientServices):
    """Base of Broker."""

    def __init__(self, *, events_queued_maximum: int) -> None:
        super().__init__(events_queued_maximum=events_queued_maximum)
        self._persistence: Persistence | None = None
        self._message_streams: set[MessageStream] = set()

    async def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[int, Any] | None = None,
    ) -> int:
        """Publish a message as the broker; the number of subscribers it reached.

        properties: `PropertyId` -> value. Raises ValueError for what is no Topic Name, QoS or property, QuotaExceeded
        when it cannot be retained or a full queue refuses it, StoreError when it has to be kept and cannot be. Returns
        when the message is as safe as a PUBACK would make it.
        """
        assert self._persistence is not None or self._running()  # or it raises
        before = self._persistence.writes if self._persistence is not None else 0
        reached = self.publish_nowait(topic, payload, qos=qos, retain=retain, properties=properties)
        if self._persistence is not None and qos:
            await self._persistence.until_safe(before)
        return reached

    def publish_nowait(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[int, Any] | None = None,
    ) -> int:
        """Publish as `publish` does, without waiting until the message is safe."""
        block = dict(properties) if properties else None
        return self._running().publish_bytes(topic.encode(), payload, qos, retain, block)

    def subscribe(
        self, topic_filter: str, *, messages_maximum: int = 10_000, bytes_maximum: int = 64 * 1024 * 1024
    ) -> MessageStream:
        """Return a stream of the messages that match *topic_filter*; use it with `async with`.

        It takes every QoS as published, and no retained messages (see `retained`).
        """
        return MessageStream(
            self._running(),
            topic_filter,
            messages_maximum=messages_maximum,
            bytes_maximum=bytes_maximum,
            streams=self._message_streams,
        )

    def retained(self, topic_filter: str = "#") -> list[Message]:
        """Return the retained messages that match; a leading wildcard does not match `$` topics."""
        return self._running().retained_messages(topic_filter.encode())

    def retained_slices(self, topic_filter: str = "#") -> Iterator[list[Message]]:
        """Yield the same in slices that take a few milliseconds each, so that others can be served between them.

        A message that is there all the time comes once. Stop asking when the broker stops.
        """
        engine = self._running()
        cursor = engine.retained_cursor(topic_filter.encode())
        is_at_end = False
        while not is_at_end:
            found, is_at_end = engine.take_retained(cursor, _RETAINED_NODES)
            yield found
