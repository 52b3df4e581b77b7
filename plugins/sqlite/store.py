"""SqliteStore: what the broker sees. The writer has a thread of its own, reading another one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mqttcore import SessionStore, StoreError, StoreInfo

from .database import Lock, make_folder
from .opening import NotOurs, put_aside
from .reader import Reader
from .writer import Writer, WriterOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mqttcore import StoreAlarm, StoreBatch

__all__ = ["SqliteStore"]

_log = logging.getLogger("mqttcore.plugins.sqlite")
_T = TypeVar("_T")


class SqliteStore(SessionStore):
    """Keeps everything in one SQLite file.

    quarantines: whether a damaged file is put aside and a new one begun; else `open` refuses it.
    """

    def __init__(self, options: WriterOptions, *, quarantines: bool) -> None:
        self._options = options
        self._quarantines = quarantines
        self._lock: Lock | None = None
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._is_closing = False
        self._last: asyncio.Future[None] | None = None  # of the batch that came last
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="mqttcore-sqlite-reader")

    async def open(self, alarm: StoreAlarm) -> None:
        """Open the file; takes as long as reading it from end to end."""
        loop = asyncio.get_running_loop()
        try:
            writer = await loop.run_in_executor(self._threads, self._open, alarm, loop)
        except BaseException:
            self._threads.shutdown(wait=False)
            raise
        self._writer, self._reader = writer, Reader(writer)
        self.last_key = writer.contents.last_key
        writer.start()

    def _open(self, alarm: StoreAlarm, loop: asyncio.AbstractEventLoop) -> Writer:
        path = self._options.path
        make_folder(path.parent)
        lock = Lock(path)
        try:
            try:
                writer = Writer(self._options, loop)
            except StoreError as error:
                if error.kind != "corrupt" or isinstance(error, NotOurs) or not self._quarantines:
                    raise
                aside = put_aside(path)
                _log.error("%s is damaged: %s. Put aside as %s; beginning with nothing", path, error.reason, aside)
                alarm("store_quarantined", True, f"{path} was damaged ({error.reason}) and is now {aside}")
                writer = Writer(self._options, loop)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        return writer

    async def load(self) -> AsyncIterator[bytes]:
        """Give all records that are alive."""
        key = 0
        while True:
            chunk, key = await self._read(Reader.chunk_from, key)
            if chunk:
                yield chunk
            if not key:
                return

    def commit(self, batch: StoreBatch) -> asyncio.Future[None]:
        """Take a batch over."""
        if self._writer is None or self._is_closing:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_exception(StoreError("closed", "not open"))
            return done
        self.last_key = max(self.last_key, batch.last_key)
        self._last = self._writer.put(batch)
        return self._last

    async def read(self, keys: bytes) -> bytes:
        """Return the records of these keys."""
        return await self._read(Reader.records, keys)

    async def value(self, namespace: str, key: bytes) -> bytes | None:
        """Return a value of plugin data, or None."""
        return await self._read(Reader.value, namespace, key)

    async def values(self, namespace: str, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """Give keys and values of a namespace."""
        after = b""
        while True:
            rows = await self._read(Reader.values, namespace, prefix, after)
            for row in rows:
                yield row
            if not rows:
                return
            after = rows[-1][0] + b"\0"

    async def namespaces(self) -> list[str]:
        """Return the namespaces that have values."""
        return await self._read(Reader.namespaces)

    async def info(self) -> StoreInfo:
        """Return figures; `details` are of the time since the file was opened."""
        return await self._read(Reader.info)

    async def check(self) -> list[str]:
        """Look through the whole file, and return what is wrong."""
        return await self._read(Reader.damages)

    async def gc(self) -> int:
        """Give back all the space that nothing alive takes, a slice at a time; bytes."""
        before = (await self.info()).used_bytes
        assert self._writer is not None
        while await self._writer.call(self._writer.collect):
            if self._is_closing:
                break
        return max(before - (await self.info()).used_bytes, 0)

    def limit(self, maximum_bytes: int) -> asyncio.Future[None]:
        """Let the file grow no larger than this, from the next batch on; 0: as far as the disk goes."""
        if self._writer is None or self._is_closing:
            raise StoreError("closed", "not open")
        return self._writer.call(partial(self._writer.limit, maximum_bytes))

    async def close(self) -> None:
        """Complete what is under way, and close the file."""
        if self._writer is None or self._is_closing:
            return
        self._is_closing = True
        loop = asyncio.get_running_loop()
        assert self._reader is not None
        await loop.run_in_executor(self._threads, self._reader.close)
        await loop.run_in_executor(self._threads, self._writer.stop)
        self._threads.shutdown(wait=False)
        assert self._lock is not None
        self._lock.release()

    async def _read(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a method of the reader in its thread, when everything is in the file that was committed before."""
        if self._reader is None or self._is_closing:
            raise StoreError("closed", "not open")
        if self._last is not None and not self._last.done():
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._last)
        reading = asyncio.get_running_loop().run_in_executor(self._threads, function, self._reader, *arguments)
        return await reading
