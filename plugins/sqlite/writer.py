"""The thread that writes: batches that wait together become one transaction, one sync, one answer to the event loop.

    event loop   put(batch, future) ──▶ queue ──▶ gather ──▶ commit ──▶ settled([...], error) ──▶ event loop
                                                      └──▶ maintenance, a slice at a time

The GIL is the scarce thing here: while the event loop is busy, each time that this thread has let go of it may cost a
turn of the loop. So the usual commit is one statement, whatever it holds.

After an error of the disk nothing that was written since the last good sync is believed: the system may have thrown it
away and say it is clean. The file is closed, opened again, brought to where nothing depends on its log, and looked
through from end to end; only then it is written to.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
from dataclasses import dataclass, replace
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING

from mqttcore import StoreError, records

from . import database
from .maintenance import SEGMENT_BYTES, Maintenance
from .opening import open_writer
from .segments import segment_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from mqttcore import StoreBatch

    from .database import Synchronous
    from .integrity import Contents

__all__ = ["Figures", "Writer", "WriterOptions"]

_log = logging.getLogger("mqttcore.plugins.sqlite")

_Row = tuple[int, int, int, int, bytes]  # first key, last key, count, checksum, records

_QUIET_S = 1.0  # without commits, before what can wait is done
_REST_S = 5.0  # for maintenance, when it failed
_BUSY_MS = 100  # our own readers are the only ones to wait for


@dataclass(frozen=True)
class WriterOptions:
    """How the file is written; see the plugin's `Config`."""

    path: Path
    synchronous: Synchronous
    commit_bytes: int
    checkpoint_bytes: int
    maximum_bytes: int


@dataclass
class Figures:
    """Counted since the file was opened; times in microseconds, of transactions."""

    commits: int = 0
    batches: int = 0
    committed_bytes: int = 0
    commit_us: int = 0
    commit_us_maximum: int = 0
    failed_commits: int = 0
    reopened: int = 0


@dataclass
class _Order:
    """Something that waits for the writer: a batch, or else a call, or else the end."""

    future: asyncio.Future[Any] | None = None
    batch: StoreBatch | None = None
    call: Callable[[], Any] | None = None


class Writer:
    """Owns the writing connection. What does not say otherwise is for the event loop's thread.

    swap: held while rows move, see `Maintenance`. generation: how often the file was opened; whoever has a connection
    of an earlier one has to close it. contents, maintenance, figures: to be read only, by other threads as well.
    Making one opens the file, which takes as long as reading it. Raises what `open_writer` does.
    """

    def __init__(self, options: WriterOptions, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.figures = Figures()
        self.swap = threading.Lock()
        self.generation = 0
        self._loop = loop
        self._queue: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._ahead: _Order | None = None  # taken from the queue, not done
        self._resting_until_s = 0.0
        self._failed: int | None = None  # number of the batch that has to come again before any other
        self._connection: sqlite3.Connection | None = None
        self.contents: Contents
        self.maintenance: Maintenance
        self._open(is_first=True)
        self._thread = threading.Thread(target=self._run, name="mqttcore-sqlite-writer", daemon=True)

    def start(self) -> None:
        """Begin to take orders."""
        self._thread.start()

    def put(self, batch: StoreBatch) -> asyncio.Future[None]:
        """Have a batch committed."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Order(future, batch=batch))
        return future

    def call(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have *function* called in the writer's thread, behind what waits; it may raise StoreError."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Order(future, call=function))
        return future

    def stop(self) -> None:
        """Complete what waits, close the file, and end. Blocks until then: not for the event loop's thread."""
        self._queue.put(_Order())
        self._thread.join()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (order := self._next()) is not None:
            if order.call is not None:
                self._settle([order], *self._called(order.call))
            elif order.batch is None:
                break
            else:
                orders = self._gather(order)
                try:
                    self._commit(orders)
                except Exception as error:  # ours; who waits must be answered, and this thread must go on
                    _log.exception("%s: commit", self.options.path)
                    fault = StoreError("io", f"{type(error).__name__}: {error}")
                    self._failed = order.batch.number
                    self._fail(fault)
                    self._settle(orders, None, fault)
                self._work(Maintenance.urgent)
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()

    def _next(self) -> _Order:
        """Return the next order; what can wait is done when none comes for a while."""
        if (ahead := self._ahead) is not None:
            self._ahead = None
            return ahead
        while True:
            has_work = self._connection is not None and self.maintenance.log_bytes > 0
            try:
                return self._queue.get(timeout=_QUIET_S if has_work else None)
            except queue.Empty:
                while self._queue.empty() and self._work(Maintenance.idle):
                    pass

    def _gather(self, first: _Order) -> list[_Order]:
        """Return *first* and the batches that wait behind it, as many as may be one transaction."""
        assert first.batch is not None
        gathered = [first]
        size = first.batch.size_bytes
        while size < self.options.commit_bytes:
            try:
                order = self._queue.get_nowait()
            except queue.Empty:
                break
            if order.batch is None or size + order.batch.size_bytes > self.options.commit_bytes:
                self._ahead = order
                break
            gathered.append(order)
            size += order.batch.size_bytes
        return gathered

    def _called(self, function: Callable[[], Any]) -> tuple[Any, StoreError | None]:
        try:
            with database.translated():
                return function(), None
        except StoreError as error:
            return None, error
        except Exception as error:
            _log.exception("%s: %s", self.options.path, function)
            return None, StoreError("io", f"{type(error).__name__}: {error}")

    def _settle(self, orders: list[_Order], result: Any, error: StoreError | None) -> None:
        self._loop.call_soon_threadsafe(_settle, orders, result, error)

    # --- committing -------------------------------------------------------------------------------------------------

    def _commit(self, orders: list[_Order]) -> None:
        if self._failed is not None:
            numbers = [order.batch.number for order in orders if order.batch is not None]
            place = numbers.index(self._failed) if self._failed in numbers else len(orders)
            self._settle(orders[:place], None, StoreError("closed", f"batch {self._failed} has to come first"))
            orders = orders[place:]
            if not orders:
                return
        batches = [order.batch for order in orders if order.batch is not None]
        began = perf_counter_ns()
        try:
            with database.translated():
                self._write(batches)
        except StoreError as error:
            self._failed = batches[0].number
            self.figures.failed_commits += 1
            self._fail(error)
            self._settle(orders[:1], None, error)
            self._settle(orders[1:], None, StoreError("closed", f"batch {self._failed} before it failed"))
            return
        self._failed = None
        taken_us = (perf_counter_ns() - began) // 1000
        figures = self.figures
        figures.commits += 1
        figures.batches += len(batches)
        figures.commit_us += taken_us
        figures.commit_us_maximum = max(figures.commit_us_maximum, taken_us)
        self._settle(orders, None, None)

    def _write(self, batches: list[StoreBatch]) -> None:
        """Make one transaction of *batches*; nothing of them is kept when it raises, or all."""
        if self._connection is None:
            self._open()
        assert self._connection is not None
        contents, index = self.contents, self.contents.index
        rows = self._rows(batches)
        deleted = b"".join([batch.deleted for batch in batches])
        number = contents.deletion_number + 1
        values = [change for batch in batches for change in batch.values]
        if not values and len(rows) == 1 and deleted:
            self._connection.execute(
                "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*rows[0], number, database.checksum(deleted, number), deleted),
            )
        elif not values and len(rows) + bool(deleted) == 1:
            self._insert(rows, number, deleted)
        elif values or rows or deleted:
            with database.transaction(self._connection):
                self._insert(rows, number, deleted)
                for change in values:
                    self._change_value(*change)
        with self.swap:  # a reader looks at the index
            for row in rows:
                segment = segment_of(row[-1])
                index.add(segment)
                contents.last_key = segment.last_key
                self.figures.committed_bytes += segment.size_bytes
            if deleted:
                contents.deletion_number = number
                for batch in batches:
                    if batch.deleted:
                        index.bury(batch.deleted)
        self.maintenance.committed(sum(len(row[4]) for row in rows), len(deleted))

    def _rows(self, batches: list[StoreBatch]) -> list[_Row]:
        """Return rows for the records of *batches*, those left out that are in the file already."""
        rows: list[_Row] = []
        taken: list[StoreBatch] = []
        size = 0
        for batch in batches:
            # All or nothing was kept, and no key is used twice: one key tells of the whole batch.
            if not batch.count or batch.first_key <= self.contents.last_key:
                continue
            if taken and size + len(batch.records) > SEGMENT_BYTES:
                rows += _cut(taken, size)
                taken, size = [], 0
            taken.append(batch)
            size += len(batch.records)
        if taken:
            rows += _cut(taken, size)
        return rows

    def _insert(self, rows: list[_Row], number: int, deleted: bytes) -> None:
        assert self._connection is not None
        for row in rows:
            self._connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)", row)
        if deleted:
            self._connection.execute(
                "INSERT INTO deletions VALUES (?, ?, ?)", (number, database.checksum(deleted, number), deleted)
            )

    def _change_value(self, namespace: str, name: bytes, value: bytes | None) -> None:
        assert self._connection is not None
        if value is None:
            self._connection.execute("DELETE FROM plugin_values WHERE namespace = ? AND name = ?", (namespace, name))
            return
        self._connection.execute(
            "INSERT OR REPLACE INTO plugin_values VALUES (?, ?, ?, ?)",
            (namespace, name, database.checksum(value, namespace, name), value),
        )

    # --- faults -----------------------------------------------------------------------------------------------------

    def _open(self, *, is_first: bool = False) -> None:
        options = self.options
        connection, contents = open_writer(
            options.path, options.synchronous, options.maximum_bytes, looks_at_log=is_first
        )
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        self.maintenance = Maintenance(connection, contents, options.path, self.swap, options.checkpoint_bytes)
        self._connection, self.contents = connection, contents
        self.generation += 1
        if not is_first:
            self.figures.reopened += 1
            _log.warning("%s: opened again and found whole", options.path)

    def _fail(self, error: StoreError) -> None:
        """Make sure that nothing is believed that may not be so."""
        if self._connection is None:
            return
        if error.kind == "full":
            with contextlib.suppress(sqlite3.Error):
                self.maintenance.checkpoint("TRUNCATE")  # the log's space may be all that is missing
        else:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _work(self, slice_of: Callable[[Maintenance], bool]) -> bool:
        """Do a slice of maintenance; whether there may be more."""
        if self._connection is None or monotonic() < self._resting_until_s:
            return False
        try:
            with database.translated():
                return slice_of(self.maintenance)
        except StoreError as error:
            # Batches go on, if they can; they tell the broker when not.
            _log.error("%s: maintenance: %s", self.options.path, error)
            self._fail(error)
        except Exception as error:
            _log.exception("%s: maintenance", self.options.path)
            self._fail(StoreError("io", f"{type(error).__name__}: {error}"))
        self._resting_until_s = monotonic() + _REST_S
        return False

    def collect(self) -> bool:
        """Do a slice of all that there is to collect; whether there may be more. For `call`, in the writer's thread."""
        return self._work(Maintenance.whole)

    def limit(self, maximum_bytes: int) -> None:
        """Set how large the file may get. For `call`, in the writer's thread."""
        self.options = replace(self.options, maximum_bytes=maximum_bytes)
        if self._connection is not None:
            database.limit(self._connection, maximum_bytes)


def _settle(orders: list[_Order], result: Any, error: StoreError | None) -> None:
    for order in orders:
        if order.future is None or order.future.done():  # cancelled by who waited
            continue
        if error is None:
            order.future.set_result(result)
        else:
            order.future.set_exception(error)


def _cut(batches: list[StoreBatch], size: int) -> list[_Row]:
    """Return the records of *batches* as rows, each of about SEGMENT_BYTES; *size*: of all of them."""
    chunk = batches[0].records if len(batches) == 1 else b"".join([batch.records for batch in batches])
    if size <= 2 * SEGMENT_BYTES:
        return [_row(batches[0].first_key, batches[-1].last_key, sum(batch.count for batch in batches), chunk)]
    rows: list[_Row] = []
    first = begin = count = 0
    index = records.index(chunk)
    for key, _, start, end in index:
        if not count:
            first, begin = key, start
        count += 1
        if end - begin >= SEGMENT_BYTES or end == size:
            rows.append(_row(first, key, count, chunk[begin:end]))
            count = 0
    return rows


def _row(first_key: int, last_key: int, count: int, chunk: bytes) -> _Row:
    return first_key, last_key, count, database.checksum(chunk, first_key, last_key, count), chunk
