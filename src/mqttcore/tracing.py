"""Traces: what happens to one client, to the clients of an address or to the messages of a topic, for a bounded time.

A trace sees what passes in the engine from the moment it begins, and keeps the newest entries in memory. It ends by
itself; what it holds stays readable until it is deleted, or until a new trace needs its place. What goes wrong in a
trace ends it and is logged; connections do not notice.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from mqttcore.constants import ReasonCode
from mqttcore.engine.watch import Watch
from mqttcore.errors import MqttCoreError, QuotaExceeded
from mqttcore.net.proxy import ProxyTrust

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from mqttcore.config import Tracing
    from mqttcore.engine.engine import Engine
    from mqttcore.trace_entries import TraceEntry

__all__ = ["NAME_PATTERN", "Trace", "TraceSubject", "Traces"]

log = logging.getLogger("mqttcore.broker")

TraceSubject = Literal["client_id", "address", "topic_filter"]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_SLICE = 500  # connections looked at in one turn of the loop
_BATCH = 100  # entries that an iteration takes at once
_PATH_MAXIMUM = 500  # characters of what a request asked for
_ENTRY_BYTES = 400  # an entry without its texts, and its place


class Trace:
    """One trace. Iterate over it with `async for`: all entries it holds, then those that come, until it has ended.

    Entries are numbered from 0. first: number of the oldest that it still holds; next: that of the next one to come.
    dropped: entries that made room for newer ones; skipped: entries over `entries_per_s_maximum`, never made.
    """

    def __init__(
        self,
        name: str,
        subject: TraceSubject,
        value: str,
        *,
        duration_s: float,
        payload_bytes: int,
        settings: Tracing,
        covers: Callable[[Any], bool] | None,
        on_failure: Callable[[Trace, Exception], object],
    ) -> None:
        self.name = name
        self.subject: TraceSubject = subject
        self.value = value
        self.duration_s = duration_s
        self.started_s = time.time()
        self.ended_s: float | None = None
        self.end_reason: str | None = None
        self.dropped = 0
        self._entries: deque[tuple[TraceEntry, int]] = deque()
        self._bytes = 0
        self._entries_maximum = settings.entries_maximum
        self._bytes_maximum = settings.bytes_maximum
        self._arrived = asyncio.Event()
        self._watch = Watch(
            subject,
            value,
            self._take,
            lambda error: on_failure(self, error),
            covers=covers,
            payload_bytes=payload_bytes,
            entries_per_s=settings.entries_per_s_maximum,
        )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.ended_s is None

    @property
    def payload_bytes(self) -> int:
        """Bytes of each payload that entries show."""
        return self._watch.payload_bytes

    @property
    def first(self) -> int:
        """Number of the oldest entry held; `next` when there is none."""
        return self.dropped

    @property
    def next(self) -> int:
        """Number that the next entry will have."""
        return self.dropped + len(self._entries)

    @property
    def skipped(self) -> int:
        """Entries that were over the rate."""
        return self._watch.skipped

    @property
    def bytes_held(self) -> int:
        """Bytes that the entries take in memory, about."""
        return self._bytes

    def __len__(self) -> int:
        """Count the entries held."""
        return len(self._entries)

    def entries(self, start: int = 0, limit: int | None = None) -> list[TraceEntry]:
        """Return entries from number *start* on, or from the oldest that is held if that came later."""
        begin = max(0, start - self.first)
        end = None if limit is None else begin + limit
        return [entry for entry, _ in itertools.islice(self._entries, begin, end)]

    async def wait(self, number: int) -> None:
        """Return when there is an entry of this number, or the trace has ended."""
        while self.next <= number and self.is_running:
            self._arrived.clear()
            await self._arrived.wait()

    def __aiter__(self) -> AsyncIterator[TraceEntry]:
        """Iterate over entries as they come; what made room before it was taken is left out."""
        return _Follower(self)

    def _take(self, entry: TraceEntry) -> None:
        size = _ENTRY_BYTES + sum(_size(value) for value in msgspec.structs.astuple(entry))
        self._entries.append((entry, size))
        self._bytes += size
        while len(self._entries) > self._entries_maximum or self._bytes > self._bytes_maximum:
            _, size = self._entries.popleft()
            self._bytes -= size
            self.dropped += 1
        self._arrived.set()

    def _end(self, reason: str) -> None:
        self.ended_s = time.time()
        self.end_reason = reason
        self._arrived.set()


class _Follower:
    """One iteration over a trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._number = 0
        self._batch: list[TraceEntry] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TraceEntry:
        while not self._batch:
            await self._trace.wait(self._number)
            found = self._trace.entries(self._number, _BATCH)
            if not found:
                raise StopAsyncIteration
            self._number = max(self._number, self._trace.first) + len(found)
            self._batch = found[::-1]
        return self._batch.pop()


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_size, value)) + 16 * len(value)
    return 0


class Traces:
    """The traces of one broker: `Broker.traces`. Iterating yields all, the oldest first."""

    def __init__(self, settings: Tracing) -> None:
        self.settings = settings
        self._traces: dict[str, Trace] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._engine: Engine | None = None
        self._numbered = itertools.count(1)
        self.failed = 0
        self.forgotten = 0
        self._gone = {"made": 0, "dropped": 0, "skipped": 0}  # of traces that are deleted

    def __iter__(self) -> Iterator[Trace]:
        """Yield all traces, running and ended."""
        yield from list(self._traces.values())

    def __len__(self) -> int:
        """Count them."""
        return len(self._traces)

    def attach(self, engine: Engine | None) -> None:
        """Begin with an engine, or end every trace with it: None."""
        if engine is None:
            for trace in self:
                self._stop(trace, "the broker stopped")
        self._engine = engine

    def start(
        self,
        subject: TraceSubject,
        value: str,
        *,
        name: str | None = None,
        duration_s: float = 600.0,
        payload_bytes: int = 0,
    ) -> Trace:
        """Begin a trace.

        subject, value: a client id, a Topic Filter (without `$share`), or an address, a network, or `unix` for all Unix
        sockets. name: 1 to 64 letters, digits, dots, dashes and underscores; None: one is made up. duration_s: after
        which it ends. payload_bytes: how much of each payload is recorded.

        Raises ValueError for what cannot be traced or is over the bounds of the configuration, QuotaExceeded when there
        are too many running traces or one has this name, MqttCoreError when the broker does not run.
        """
        if self._engine is None:
            raise MqttCoreError("the broker is not running")
        settings = self.settings
        if not 0 < duration_s <= settings.duration_maximum_s:
            raise ValueError(f"duration_s {duration_s:g} is not above 0 and at most {settings.duration_maximum_s}")
        if not 0 <= payload_bytes <= settings.payload_bytes_maximum:
            raise ValueError(f"payload_bytes {payload_bytes} is not 0 to {settings.payload_bytes_maximum}")
        covers = None
        if subject == "address":
            covers = _addresses(value)
        elif subject == "topic_filter" and value.startswith("$share/"):
            raise ValueError(f"{value!r}: a trace shares with nobody; leave out $share and its name")
        elif subject == "client_id" and not value:
            raise ValueError("which client id? an empty one is replaced by the broker")
        if name is None:
            name = self._make_name()
        elif re.fullmatch(NAME_PATTERN, name) is None:
            raise ValueError(f"{name!r} is no name: 1 to 64 letters, digits, dots, dashes and underscores")
        elif name in self._traces:
            raise QuotaExceeded(ReasonCode.QUOTA_EXCEEDED, "", f"there is a trace {name} already")
        if sum(trace.is_running for trace in self) >= settings.traces_maximum:
            raise QuotaExceeded(ReasonCode.QUOTA_EXCEEDED, "", f"{settings.traces_maximum} traces are running already")
        trace = Trace(
            name,
            subject,
            value,
            duration_s=duration_s,
            payload_bytes=payload_bytes,
            settings=settings,
            covers=covers,
            on_failure=self._failed,
        )
        self._engine.add_watch(trace._watch)
        self._make_room()
        if subject == "address":
            self._in_slices(self._engine.watch_sessions, self._engine.sessions(), trace)
        self._traces[name] = trace
        self._timers[name] = asyncio.get_running_loop().call_later(duration_s, self._stop, trace, "its time is over")
        log.info("trace %s of %s %r begins, for %g s", name, subject, value, duration_s)
        return trace

    def get(self, name: str) -> Trace | None:
        """Return a trace, or None."""
        return self._traces.get(name)

    def stop(self, name: str) -> bool:
        """End a trace, and keep what it holds; False when there is none of this name, or it has ended."""
        trace = self._traces.get(name)
        if trace is None or not trace.is_running:
            return False
        self._stop(trace, "stopped")
        return True

    def delete(self, name: str) -> bool:
        """End a trace and forget it; False when there is none of this name."""
        trace = self._traces.get(name)
        if trace is None:
            return False
        self._stop(trace, "deleted")
        del self._traces[name]
        self._gone["made"] += trace.next
        self._gone["dropped"] += trace.dropped
        self._gone["skipped"] += trace.skipped
        return True

    def connection_failed(self, peer: object, listener: str, reason: str) -> None:
        """Tell of a connection that is given up before it reached the engine."""
        if self._engine is not None:
            self._engine.trace_failure(peer, listener, reason)

    @property
    def watches_addresses(self) -> bool:
        """Whether a trace of addresses is running."""
        return self._engine is not None and self._engine.watches_addresses

    def request_refused(
        self, peer: object, listener: str | None, method: str, path: str, status: int, detail: str | None
    ) -> None:
        """Tell of an HTTP request that was answered with an error."""
        if self._engine is not None:
            self._engine.trace_request(peer, listener, method, path[:_PATH_MAXIMUM], status, detail)

    def accepting_paused(self, listener: str | None, reason: str) -> None:
        """Tell that a listener, or with None all of them, accept nobody for a while."""
        if self._engine is not None:
            self._engine.trace_pause(listener, reason)

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges."""
        return {
            "traces_running": sum(trace.is_running for trace in self),
            "traces_held": len(self._traces),
            "trace_bytes": sum(trace.bytes_held for trace in self),
            "trace_entries": self._gone["made"] + sum(trace.next for trace in self),
            "trace_entries_dropped": self._gone["dropped"] + sum(trace.dropped for trace in self),
            "trace_entries_skipped": self._gone["skipped"] + sum(trace.skipped for trace in self),
            "traces_failed": self.failed,
            "traces_forgotten": self.forgotten,
        }

    def _make_name(self) -> str:
        while (name := f"trace-{next(self._numbered)}") in self._traces:
            pass
        return name

    def _make_room(self) -> None:
        ended = sorted((trace for trace in self if not trace.is_running), key=lambda trace: trace.ended_s or 0.0)
        for trace in ended[: max(0, len(self._traces) + 1 - self.settings.traces_maximum)]:
            self.delete(trace.name)
            self.forgotten += 1

    def _stop(self, trace: Trace, reason: str) -> None:
        if not trace.is_running:
            return
        self._timers.pop(trace.name).cancel()
        trace._end(reason)
        if self._engine is not None and not self._engine.is_closed:
            self._engine.remove_watch(trace._watch)
            self._in_slices(self._engine.free_connections, self._engine.watched_connections())
        log.info("trace %s ends: %s", trace.name, reason)

    def _in_slices(
        self, function: Callable[[list[Any]], None], items: list[Any], trace: Trace | None = None, at: int = 0
    ) -> None:
        # There may be a million of them, and others wait meanwhile. trace: for as long as it runs.
        function(items[at : at + _SLICE])
        if at + _SLICE < len(items) and self._engine is not None and (trace is None or trace.is_running):
            asyncio.get_running_loop().call_soon(self._in_slices, function, items, trace, at + _SLICE)

    def _failed(self, trace: Trace, error: Exception) -> None:
        # From within the engine, which goes on with what it was doing: the watch comes off when it is done.
        self.failed += 1
        log.error("trace %s failed and ends: %r", trace.name, error, exc_info=error)
        asyncio.get_running_loop().call_soon(self._stop, trace, "it failed; the log says why")


def _addresses(value: str) -> Callable[[Any], bool]:
    if value == "unix":
        return ProxyTrust(["unix"]).covers
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise ValueError(f"{value!r} is no address, network or `unix`: {error}") from None
    return ProxyTrust([str(network)]).covers
