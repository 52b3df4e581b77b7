"""The base class of sinks: batches, retries, order, back-pressure, spool and metrics; a sink adds `send`."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Meta

from mqttcore.hookspecs import hookimpl
from mqttcore.sinks.records import record_of_event, record_of_message
from mqttcore.sinks.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mqttcore.batches import BatchTap
    from mqttcore.broker import Broker
    from mqttcore.engine.message import Message
    from mqttcore.events import Event
    from mqttcore.sinks.records import SinkRecord

__all__ = ["Sink", "SinkConfig", "SinkRejected"]

_log = logging.getLogger("mqttcore.sinks")

_ALARM_FAILURES = 3
_T = TypeVar("_T")


class SinkRejected(Exception):
    """The receiver will never take these records: they are dropped, counted and logged, not sent again."""


class SinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every sink can be told."""

    topic_filters: Annotated[list[str], Meta(description="Messages that are sent: to topics these match.")] = []
    events: Annotated[
        list[str], Meta(description="Events that are sent, by class name, like `ClientConnected`; `*`: all.")
    ] = []
    ordered_by: Annotated[
        Literal["client", "topic"], Meta(description="Whose messages stay in order: those of a client or of a topic.")
    ] = "client"
    lanes: Annotated[int, Meta(ge=1, le=64, description="Parts of a batch that are sent at a time, split by key.")] = 1
    batch_records_maximum: Annotated[int, Meta(ge=1, le=100_000, description="Records in a batch.")] = 500
    batch_bytes_maximum: Annotated[int, Meta(ge=1024, le=268_435_456, description="Payload bytes in a batch.")] = (
        1_048_576
    )
    linger_ms: Annotated[int, Meta(ge=0, le=60_000, description="How long a batch waits to become fuller.")] = 20
    queue_records_maximum: Annotated[int, Meta(ge=1, le=10_000_000, description="Records that wait in memory.")] = (
        10_000
    )
    queue_bytes_maximum: Annotated[int, Meta(ge=1024, description="Payload bytes that wait in memory.")] = 67_108_864
    when_full: Annotated[
        Literal["pause", "drop"],
        Meta(description="Memory and spool are full: hold publishers of QoS 1 and 2 back, or drop (counted)."),
    ] = "drop"
    send_timeout_s: Annotated[float, Meta(ge=0.1, le=3600, description="Longest time one attempt may take.")] = 30.0
    retry_first_s: Annotated[float, Meta(ge=0.01, le=3600, description="Time until the second attempt.")] = 0.5
    retry_longest_s: Annotated[float, Meta(ge=0.01, le=3600, description="Longest time between two attempts.")] = 30.0
    stop_timeout_s: Annotated[
        float, Meta(ge=0, le=600, description="How long what waits may still be sent when the broker stops.")
    ] = 5.0
    spool: Annotated[
        str, Meta(description="Folder for what does not fit into memory or is left at the end; empty: none.")
    ] = ""
    spool_bytes_maximum: Annotated[int, Meta(ge=65_536, description="Bytes in that folder.")] = 1_073_741_824


class Sink:
    """Base class of plugins that send messages and events elsewhere, at least once.

        class Printer(Sink):
            name = "printer"

            async def send(self, records):
                print(len(records))

    `send` is given a batch and returns when it is taken; whatever it raises, but SinkRejected, means: again later.
    Records
    of one key come in order, a batch of a key only after the one before it was taken. What was handed to a sink
    survives
    a stop, and a crash as far as it had come to the spool. `open` and `close` frame all sends.
    """

    Config: ClassVar[type[SinkConfig]] = SinkConfig
    name: ClassVar[str] = "sink"

    def __init__(self, config: Any) -> None:
        self.config = config
        self.counts = dict.fromkeys(("received", "sent", "rejected", "dropped", "failures", "spooled"), 0)
        self._queue: deque[SinkRecord] = deque()
        self._queue_bytes = 0
        self._spool: Spool | None = None
        self._disk = ThreadPoolExecutor(1, thread_name_prefix=f"mqttcore-{self.name}")
        self._in_hand: list[SinkRecord] = []  # taken from memory, not yet sent
        self._has_records = asyncio.Event()
        self._has_room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._accepting = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None
        self._broker: Broker | None = None
        self._failures_in_row = 0
        self._taps: list[BatchTap] = []

    # --- what a sink gives ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Get ready to send; failing here keeps the broker from starting."""

    async def send(self, records: Sequence[SinkRecord]) -> None:
        """Send a batch; return when it is taken."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of what `open` took."""

    # --- the plugin's hooks -----------------------------------------------------------------------------------------

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        """Open, and take what comes from now on."""
        self._broker = broker
        if self.config.spool:
            maximum = self.config.spool_bytes_maximum
            self._spool = await self._on_disk(lambda: Spool(self.config.spool, bytes_maximum=maximum))
            if not self._spool.is_empty:
                self._has_records.set()
        await self.open()
        section = broker.plugin_section(self.name)
        for key in self.metrics():
            section.measure(key, functools.partial(self._metric, key))
        self._worker = asyncio.get_running_loop().create_task(self._work())
        for topic_filter in self.config.topic_filters:
            self._taps.append(broker.tap(topic_filter, self._take_messages, when_full=self.config.when_full))

    @hookimpl
    async def shutdown(self, broker: Broker) -> None:
        """Send what waits, for a while; spool the rest, or count it as dropped."""
        for tap in self._taps:
            tap.close()
        self._taps.clear()
        self._stopping.set()
        self._has_records.set()
        self._has_room.set()  # whoever waits for room looks again, and gives up
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=self.config.stop_timeout_s)
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        await self._keep_rest()
        await self.close()

    @hookimpl
    async def observe(self, events: Sequence[Event]) -> None:
        """Take the events that are configured."""
        wanted = self.config.events
        if wanted:
            await self.accept(
                [record_of_event(event) for event in events if "*" in wanted or type(event).__name__ in wanted]
            )

    # --- taking -----------------------------------------------------------------------------------------------------

    async def _take_messages(self, messages: Sequence[Message]) -> None:
        by_topic = self.config.ordered_by == "topic"
        await self.accept(
            [
                record_of_message(
                    message, message.topic if by_topic else message.ordering_key or message.client_id or ""
                )
                for message in messages
            ]
        )

    async def accept(self, records: Sequence[SinkRecord]) -> None:
        """Take records in; returns when they are in memory or in the spool, or were dropped for want of room."""
        async with self._accepting:  # in the order in which they came
            self.counts["received"] += len(records)
            for start in range(0, len(records), self.config.batch_records_maximum):
                await self._accept_some(records[start : start + self.config.batch_records_maximum])

    async def _accept_some(self, records: Sequence[SinkRecord]) -> None:
        while True:
            if (self._spool is None or self._spool.is_empty) and self._fits(records):
                self._queue.extend(records)
                self._queue_bytes += sum(map(_size, records))
                self._has_records.set()
                return
            if self._spool is not None and await self._append(self._spool, records):
                return
            if self.config.when_full == "drop" or self._stopping.is_set():
                self.counts["dropped"] += len(records)
                return
            self._has_room.clear()
            await self._has_room.wait()

    def _fits(self, records: Sequence[SinkRecord]) -> bool:
        if not self._queue:
            return True  # or a record above the limit would wait for ever
        return bool(
            len(self._queue) + len(records) <= self.config.queue_records_maximum
            and self._queue_bytes + sum(map(_size, records)) <= self.config.queue_bytes_maximum
        )

    async def _append(self, spool: Spool, records: Sequence[SinkRecord]) -> bool:
        # The spool comes after memory: while it holds something, everything new goes to it.
        try:
            is_kept = await self._on_disk(spool.append, records)
        except OSError as error:
            _log.error("sink %s: spool %s: %s", self.name, self.config.spool, error)
            self._alarm(f"the spool cannot be written: {error}")
            return False
        if is_kept:
            self.counts["spooled"] += len(records)
            self._has_records.set()
        return is_kept

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            if not self._queue and (self._spool is None or self._spool.is_empty):
                if self._stopping.is_set():
                    return
                self._has_records.clear()
                await self._has_records.wait()
                continue
            if self._queue:
                if len(self._queue) < self.config.batch_records_maximum and not self._stopping.is_set():
                    await asyncio.sleep(self.config.linger_ms / 1000)
                self._in_hand = self._from_queue()
                await self._deliver(self._in_hand)
                self._in_hand = []
            elif self._spool is not None:
                await self._send_spooled(self._spool)
            self._has_room.set()

    async def _send_spooled(self, spool: Spool) -> None:
        try:
            batch = await self._on_disk(spool.take, self.config.batch_records_maximum, self.config.batch_bytes_maximum)
            await self._deliver(batch)
            await self._on_disk(spool.taken)
        except OSError as error:
            self.counts["failures"] += 1
            self._alarm(f"the spool cannot be read: {error}")
            await asyncio.sleep(self.config.retry_longest_s)

    async def _on_disk(self, function: Callable[..., _T], *arguments: Any) -> _T:
        # One thread: the spool's methods never run side by side.
        return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)

    def _from_queue(self) -> list[SinkRecord]:
        batch: list[SinkRecord] = []
        room = self.config.batch_bytes_maximum
        while self._queue and len(batch) < self.config.batch_records_maximum and (room > 0 or not batch):
            record = self._queue.popleft()
            room -= _size(record)
            self._queue_bytes -= _size(record)
            batch.append(record)
        return batch

    async def _deliver(self, batch: Sequence[SinkRecord]) -> None:
        if self.config.lanes == 1:
            return await self._send_until_taken(batch)
        lanes: dict[int, list[SinkRecord]] = {}
        for record in batch:
            lanes.setdefault(zlib.crc32(record.key.encode()) % self.config.lanes, []).append(record)
        async with asyncio.TaskGroup() as group:
            for records in lanes.values():
                group.create_task(self._send_until_taken(records))
        return None

    async def _send_until_taken(self, records: Sequence[SinkRecord]) -> None:
        pause_s = self.config.retry_first_s
        while records:
            try:
                async with asyncio.timeout(self.config.send_timeout_s):
                    await self.send(records)
            except SinkRejected as error:
                self.counts["rejected"] += len(records)
                _log.error("sink %s: %d records rejected: %s", self.name, len(records), error)
                return
            except Exception as error:
                self.counts["failures"] += 1
                self._failures_in_row += 1
                if self._failures_in_row == _ALARM_FAILURES:
                    _log.error("sink %s: %s: %s; trying again", self.name, type(error).__name__, error)
                    self._alarm(f"does not take records: {type(error).__name__}: {error}")
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 -- jitter
                pause_s = min(pause_s * 2, self.config.retry_longest_s)
            else:
                self.counts["sent"] += len(records)
                self._failures_in_row = 0
                if self._broker is not None:
                    self._broker.clear_alarm(f"sink_{self.name}")
                return

    def _alarm(self, text: str) -> None:
        if self._broker is not None:
            self._broker.raise_alarm(f"sink_{self.name}", f"sink {self.name} {text}")

    async def _keep_rest(self) -> None:
        rest = [*self._in_hand, *self._queue]
        self._in_hand = []
        self._queue.clear()
        self._queue_bytes = 0
        if rest and self._spool is not None:
            try:
                await self._on_disk(self._spool.prepend, rest)
            except OSError:
                _log.exception("sink %s: %d records are lost", self.name, len(rest))
            else:
                self.counts["spooled"] += len(rest)
                rest = []
        self.counts["dropped"] += len(rest)
        if self._spool is not None:
            self._spool.close()
        self._disk.shutdown(wait=False)

    def _metric(self, key: str) -> int:
        return self.metrics()[key]

    def metrics(self) -> dict[str, int]:
        """Return counters since start, and what waits now."""
        return {
            **self.counts,
            "queued": len(self._queue) + len(self._in_hand),
            "queued_bytes": self._queue_bytes,
            "spool_bytes": 0 if self._spool is None else self._spool.bytes_held,
            "spool_damaged": 0 if self._spool is None else self._spool.damaged,
        }


def _size(record: SinkRecord) -> int:
    return len(getattr(record, "payload", b"")) + 100
