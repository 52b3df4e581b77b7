"""A broker's store at work: loading it, batches on their way, pages coming in, data of plugins, failures and figures.

One commit is under way at a time; while it runs, the next batch gathers, so one sync serves all that came meanwhile.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from mqttcore.engine.keeper import Keeper
from mqttcore.engine.restore import Restorer
from mqttcore.errors import StoreError
from mqttcore.store.contract import StoreBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mqttcore.config import StoreSettings
    from mqttcore.engine.engine import Engine
    from mqttcore.engine.message import Message
    from mqttcore.engine.session import Session
    from mqttcore.store.contract import SessionStore, StoreAlarm, ValueChange

__all__ = ["Persistence", "PluginData"]

log = logging.getLogger("mqttcore.store")

_READS_AT_ONCE = 8
_LOOKS_AT_ONCE = 2  # of operators
_LOOK_TIMEOUT_S = 5.0  # for what is still to be written


class Persistence:
    """What stands between an engine and an opened store.

    flush: writes the engine's output. alarm: tells operators.
    """

    def __init__(
        self,
        engine: Engine,
        store: SessionStore,
        settings: StoreSettings,
        *,
        flush: Callable[[], None],
        alarm: StoreAlarm,
    ) -> None:
        self._engine = engine
        self._store = store
        self._settings = settings
        self._flush = flush
        self._alarm = alarm
        self._keeper: Keeper | None = None
        if store.is_durable:
            self._keeper = Keeper(
                engine,
                wall_ms=time.time_ns() // 1_000_000,
                bytes_maximum=settings.pending_bytes_maximum,
                keeps_retained=settings.retained,
            )
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._batch: StoreBatch | None = None  # under way, or to be tried again
        self._began_s = 0.0
        self._number = 0  # of the last batch, where the engine counts none
        self._safe = 0
        self._is_failing = False
        self._is_closed = False
        self._progress = asyncio.Event()  # a commit ended
        self._values: list[ValueChange] = []
        self._unsafe_values: dict[tuple[str, bytes], tuple[int, bytes | None]] = {}
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._reading = asyncio.Semaphore(_READS_AT_ONCE)
        self._looking = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._read_tasks: set[asyncio.Task[None]] = set()
        self._figures = dict.fromkeys(
            (
                "store_commits",
                "store_commit_failures",
                "store_records_written",
                "store_records_deleted",
                "store_bytes_written",
                "store_commit_us_total",
                "store_commit_us_maximum",
                "store_reads",
                "store_read_failures",
            ),
            0,
        )

    # --- life ---------------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Fill the engine with what the store has. Raises StoreError; the engine is not to be used then."""
        if self._keeper is None:
            return
        started_s = time.monotonic()
        restorer = Restorer(self._keeper, last_key=self._store.last_key)
        async for chunk in self._store.load():
            restorer.feed(chunk)
        while keys := restorer.wanted():
            restorer.supply(keys, await self._store.read(keys))
        counts = restorer.finish()
        found = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        log.info("store loaded in %.2f s: %s", time.monotonic() - started_s, found or "empty")

    def begin(self) -> None:
        """Commit from now on."""
        if self._keeper is not None:
            self._keeper.set_work(self._work)
        self._work()

    async def settle(self, timeout_s: float) -> None:
        """Return when all that happened until now is safe, the store fails, or it took too long."""
        keeper = self._keeper
        number = keeper.journal.number if keeper is not None else self._number + 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._is_failing and (self._batch is not None or self._has_work()) and self._safe < number:
                    if self._batch is None:
                        self._pump()
                    self._progress.clear()
                    if self._batch is not None:
                        await self._progress.wait()
                    else:
                        await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop committing; who waits for a commit gets StoreError. The store is not closed."""
        if self._batch is not None or self._has_work():
            log.error("store: what was not acknowledged is lost: it could not be written before the end")
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.set_work(None)
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for task in list(self._read_tasks):
            task.cancel()
        if self._read_tasks:
            await asyncio.wait(self._read_tasks)
        self._settle_waiters(None, StoreError("closed", "the broker stopped"))

    # --- commits ------------------------------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        return bool(self._values) or (self._keeper is not None and self._keeper.has_work)

    def _work(self) -> None:
        # The engine's call at the end of a turn: at once after a pause, gathered under load.
        if self._batch is not None or self._handle is not None or self._is_closed or not self._has_work():
            return
        wait_s = self._began_s + self._settings.gather_ms / 1000 - self._loop.time()
        self._handle = self._loop.call_later(max(wait_s, 0), self._pump)

    def _pump(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        values = tuple(self._values)
        self._values.clear()
        if self._keeper is not None:
            batch = self._keeper.take_batch(values)
            self._made_safe(self._keeper.journal.safe)
        else:
            batch = StoreBatch(self._number + 1, values=values) if values else None
        if batch is not None:
            self._number = batch.number
            self._commit(batch)
        if self._keeper is not None:
            self._read(self._keeper)
        self._flush()

    def _commit(self, batch: StoreBatch) -> None:
        self._batch = batch
        self._began_s = self._loop.time()
        try:
            future = self._store.commit(batch)
        except Exception as error:  # the store's fault; nothing of it is safe
            future = self._loop.create_future()
            future.set_exception(error)
        future.add_done_callback(self._committed)

    def _committed(self, future: asyncio.Future[None]) -> None:
        batch = self._batch
        self._progress.set()
        if batch is None or self._is_closed:
            if not future.cancelled():
                future.exception()
            return
        error = StoreError("closed", "a commit was cancelled") if future.cancelled() else future.exception()
        if error is not None:
            self._failed(batch, error)
            return
        self._batch = None
        took_us = int((self._loop.time() - self._began_s) * 1e6)
        figures = self._figures
        figures["store_commits"] += 1
        figures["store_records_written"] += batch.count
        figures["store_records_deleted"] += len(batch.deleted) // 8
        figures["store_bytes_written"] += len(batch.records)
        figures["store_commit_us_total"] += took_us
        figures["store_commit_us_maximum"] = max(figures["store_commit_us_maximum"], took_us)
        if self._is_failing:
            self._is_failing = False
            log.warning("store: it works again")
            for name in ("store_full", "store_failing"):
                self._alarm(name, False, "the store works again")
        if self._keeper is not None:
            self._keeper.committed(batch.number)
        self._made_safe(batch.number)
        self._work()
        self._flush()

    def _failed(self, batch: StoreBatch, error: BaseException) -> None:
        self._figures["store_commit_failures"] += 1
        if isinstance(error, StoreError):
            kind, reason = error.kind, error.reason
        else:
            kind, reason = "io", repr(error)
            log.error("store: commit", exc_info=error)
        if not self._is_failing:
            self._is_failing = True
            log.error("store: %s; durable messages are refused until it works again", reason)
            self._alarm("store_full" if kind == "full" else "store_failing", True, reason)
        if self._keeper is not None:
            self._keeper.failed(batch.number, kind)
        self._settle_waiters(None, error if isinstance(error, StoreError) else StoreError("io", reason))
        self._handle = self._loop.call_later(self._settings.retry_s, self._retry)
        self._flush()

    def _retry(self) -> None:
        self._handle = None
        assert self._batch is not None  # it waits for this
        self._commit(self._batch)

    def _made_safe(self, number: int) -> None:
        self._safe = max(self._safe, number)
        self._settle_waiters(number, None)
        for name in [name for name, (batch, _) in self._unsafe_values.items() if batch <= number]:
            del self._unsafe_values[name]

    def _settle_waiters(self, number: int | None, error: StoreError | None) -> None:
        # Those of batches up to *number*; None: all.
        for waited in [waited for waited in self._waiters if number is None or waited <= number]:
            for waiter in self._waiters.pop(waited):
                if not waiter.done():
                    if error is None:
                        waiter.set_result(None)
                    else:
                        waiter.set_exception(error)

    # --- pages --------------------------------------------------------------------------------------------------------

    def _read(self, keeper: Keeper) -> None:
        for session, keys in keeper.take_reads():
            task = self._loop.create_task(self._page_in(keeper, session, keys))
            self._read_tasks.add(task)
            task.add_done_callback(self._read_tasks.discard)

    async def _page_in(self, keeper: Keeper, session: Session, keys: bytes) -> None:
        chunk: bytes | None = None
        async with self._reading:
            try:
                chunk = await self._store.read(keys)
                self._figures["store_reads"] += 1
            except StoreError as error:
                self._figures["store_read_failures"] += 1
                log.error("store: messages of %s cannot be read, trying again: %s", session.client_id, error)
                self._loop.call_later(self._settings.retry_s, self._ask_again)
        keeper.page_in(session, keys, chunk)
        self._flush()

    def _ask_again(self) -> None:
        if self._keeper is not None and not self._is_closed:
            self._keeper.ask_again()
            self._work()

    async def look_up(self, keys: set[int]) -> dict[int, Message]:
        """Return messages that are in the store only, without paging them in; those that are gone are left out.

        Waits for a commit where one of them is not safe yet. Raises StoreError. A few at a time: who sends comes first.
        """
        keeper = self._keeper
        if keeper is None or not keys:
            return {}
        packed = array.array("Q", sorted(keys)).tobytes()
        async with self._looking:
            if not keeper.are_safe(packed):
                await self.settle(_LOOK_TIMEOUT_S)
            self._figures["store_reads"] += 1
            try:
                chunk = await self._store.read(packed)
            except StoreError:
                self._figures["store_read_failures"] += 1
                raise
        return keeper.messages_of(chunk)

    # --- what others wait for -----------------------------------------------------------------------------------------

    @property
    def writes(self) -> int:
        """Changes so far that the store has to know of; `until_safe` tells when they are."""
        return self._keeper.journal.writes if self._keeper is not None else 0

    async def until_safe(self, writes_before: int) -> None:
        """Return when what changed `writes` since it was *writes_before* is safe. Raises StoreError when it fails."""
        if self._keeper is None or self._keeper.journal.writes == writes_before:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.setdefault(self._keeper.journal.number, []).append(waiter)
        self._work()
        await waiter

    @property
    def is_failing(self) -> bool:
        """Whether the last commit failed."""
        return self._is_failing

    def metrics(self) -> dict[str, int]:
        """Return figures; the keys are stable, the values integers."""
        journal = self._keeper.journal if self._keeper is not None else None
        return {
            **self._figures,
            "store_records_struck": journal.struck if journal is not None else 0,
            "store_pending_bytes": journal.pending_bytes if journal is not None else 0,
            "store_failing": int(self._is_failing),
        }

    # --- data of plugins ----------------------------------------------------------------------------------------------

    def change(self, namespace: str, key: bytes, value: bytes | None) -> asyncio.Future[None]:
        """Change a value with the next batch; the future is done when it is safe."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._is_closed:
            waiter.set_exception(StoreError("closed", "the broker stopped"))
            return waiter
        number = self._keeper.journal.number if self._keeper is not None else self._number + 1
        waiter.add_done_callback(_retrieved)  # nobody has to wait for it
        self._values.append((namespace, key, value))
        self._unsafe_values[namespace, key] = (number, value)
        self._waiters.setdefault(number, []).append(waiter)
        self._work()
        return waiter

    async def value(self, namespace: str, key: bytes) -> bytes | None:
        """Return a value as it was last set; None: there is none."""
        unsafe = self._unsafe_values.get((namespace, key))
        return unsafe[1] if unsafe is not None else await self._store.value(namespace, key)

    async def values(self, namespace: str, prefix: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        """Give keys and values as they were last set, keys ascending."""
        changed = {
            key: value
            for (space, key), (_, value) in self._unsafe_values.items()
            if space == namespace and key.startswith(prefix)
        }
        fresh = sorted(changed)
        async for key, value in self._store.values(namespace, prefix):
            while fresh and fresh[0] < key:
                first = fresh.pop(0)
                if (known := changed[first]) is not None:
                    yield first, known
            if fresh and fresh[0] == key:
                fresh.pop(0)
            known = changed.get(key, value)
            if known is not None:
                yield key, known
        for key in fresh:
            if (known := changed[key]) is not None:
                yield key, known


def _retrieved(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()


class PluginData:
    """Values that a plugin keeps in the broker's store, by key, in a namespace of its own.

    Without a durable store they live as long as the broker. What was set is read back at once, also before it is safe.
    """

    def __init__(self, persistence: Persistence, namespace: str) -> None:
        self._persistence = persistence
        self._namespace = namespace

    async def get(self, key: bytes) -> bytes | None:
        """Return a value; None: there is none."""
        return await self._persistence.value(self._namespace, key)

    def set(self, key: bytes, value: bytes) -> asyncio.Future[None]:
        """Set a value; await the result to know that it is safe. It raises StoreError when the store fails."""
        return self._persistence.change(self._namespace, key, value)

    def delete(self, key: bytes) -> asyncio.Future[None]:
        """Remove a value, if there is one; as `set`."""
        return self._persistence.change(self._namespace, key, None)

    def items(self, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """Give keys that begin with *prefix*, ascending, and their values."""
        return self._persistence.values(self._namespace, prefix)
