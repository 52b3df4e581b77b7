"""A broker's gauges, read as any client can: from $SYS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType

from load import wire

# Those that must return to where they were when all clients have gone; a broker publishes those it knows.
NAMES = {
    "$SYS/broker/clients/connected",
    "$SYS/broker/clients/disconnected",
    "$SYS/broker/subscriptions/count",
    "$SYS/broker/metrics/sessions",
    "$SYS/broker/metrics/sessions_connected",
    "$SYS/broker/metrics/connections",
    "$SYS/broker/metrics/subscriptions",
    "$SYS/broker/metrics/in_flight",
    "$SYS/broker/metrics/queued",
    "$SYS/broker/metrics/queued_bytes",
}


class Gauges:
    """An MQTT client that keeps the newest value of each gauge."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.values: dict[str, int] = {}
        self.rounds = 0  # of $SYS messages; the first is what was retained
        self.changed = asyncio.Condition()

    async def __aenter__(self) -> Gauges:
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        self.writer.write(wire.connect("gauges", clean_session=True))
        self.writer.write(wire.subscribe(1, "$SYS/broker/#", 0))
        self.task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.write(wire.disconnect())
        self.writer.close()
        await self.task
        await self.writer.wait_closed()

    async def _read(self) -> None:
        splitter = wire.Splitter()
        while data := await self.reader.read(65536):
            for first, body in splitter.feed(data):
                if first >> 4 == wire.PUBLISH:
                    topic, _, payload = wire.parse_publish(first, body)
                    if topic in NAMES:
                        self.values[topic] = int(payload)
                    elif topic == "$SYS/broker/uptime":
                        self.rounds += 1
            async with self.changed:
                self.changed.notify_all()

    async def wait_rounds(self, count: int, deadline_s: float) -> dict[str, int]:
        """Return the values after `count` more rounds."""
        until = self.rounds + count
        return await self.wait_for(lambda values: self.rounds >= until, deadline_s)

    async def wait_for(self, predicate: Callable[[Mapping[str, int]], bool], deadline_s: float) -> dict[str, int]:
        """Return the values once predicate(values) holds; TimeoutError names them."""
        try:
            async with asyncio.timeout(deadline_s), self.changed:
                await self.changed.wait_for(lambda: bool(self.values) and predicate(self.values))
        except TimeoutError:
            raise TimeoutError(f"the gauges stay at {self.values}") from None
        return dict(self.values)
