"""A store in memory: the default, and the model for others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mqttcore.errors import StoreError
from mqttcore.store import records
from mqttcore.store.contract import SessionStore, StoreInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from mqttcore.store.contract import StoreAlarm, StoreBatch

__all__ = ["MemoryStore"]

_CHUNK_BYTES = 262_144


class MemoryStore(SessionStore):
    """Keeps everything in dicts of this object, for as long as it lives: `close` and `open` are like a restart.

    is_durable: False, the default, for a broker without persistence: sessions live in the engine alone, and only values
    of plugins come here. True makes the broker use it as it would use a disk, which is what tests want.
    """

    def __init__(self, *, is_durable: bool = False) -> None:
        self.is_durable = is_durable
        self.format_version = records.FORMAT_VERSION
        self._records: dict[int, bytes] = {}
        self._values: dict[str, dict[bytes, bytes]] = {}
        self._used_bytes = 0
        self._is_open = False

    async def open(self, alarm: StoreAlarm) -> None:
        """Open it; *alarm* is never called."""
        if self.format_version != records.FORMAT_VERSION:
            upgraded = {key: records.upgrade(record, self.format_version) for key, record in self._records.items()}
            self._records, self.format_version = upgraded, records.FORMAT_VERSION
            self._used_bytes = sum(len(record) for record in upgraded.values())
        self._is_open = True

    async def load(self) -> AsyncIterator[bytes]:
        """Give all records."""
        self._check_open()
        for chunk in list(self._chunks()):
            yield chunk
            await asyncio.sleep(0)

    def _chunks(self) -> Iterator[bytes]:
        chunk: list[bytes] = []
        size = 0
        for key in sorted(self._records):
            chunk.append(self._records[key])
            size += len(chunk[-1])
            if size >= _CHUNK_BYTES:
                yield b"".join(chunk)
                chunk, size = [], 0
        if chunk:
            yield b"".join(chunk)

    def commit(self, batch: StoreBatch) -> asyncio.Future[None]:
        """Take a batch; it is done at once."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._is_open:
            done.set_exception(StoreError("closed", "not open"))
            return done
        for key, _, start, end in records.index(batch.records):
            self._forget(key)
            self._records[key] = batch.records[start:end]
            self._used_bytes += end - start
        for key in memoryview(batch.deleted).cast("Q"):
            self._forget(key)
        self.last_key = max(self.last_key, batch.last_key)
        for namespace, name, value in batch.values:
            if value is None:
                self._values.get(namespace, {}).pop(name, None)
            else:
                self._values.setdefault(namespace, {})[name] = value
        done.set_result(None)
        return done

    def _forget(self, key: int) -> None:
        self._used_bytes -= len(self._records.pop(key, b""))

    async def read(self, keys: bytes) -> bytes:
        """Return the records of these keys."""
        self._check_open()
        return b"".join(self._records.get(key, b"") for key in memoryview(keys).cast("Q"))

    async def value(self, namespace: str, key: bytes) -> bytes | None:
        """Return a value, or None."""
        self._check_open()
        return self._values.get(namespace, {}).get(key)

    async def values(self, namespace: str, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """Give keys and values of a namespace."""
        self._check_open()
        for key, value in sorted(self._values.get(namespace, {}).items()):
            if key.startswith(prefix):
                yield key, value

    async def info(self) -> StoreInfo:
        """Return figures; used_bytes are those of records and values alone."""
        self._check_open()
        values = [value for space in self._values.values() for value in space.items()]
        return StoreInfo(
            place="memory",
            format_version=records.FORMAT_VERSION,
            records=len(self._records),
            values=len(values),
            used_bytes=self._used_bytes + sum(len(key) + len(value) for key, value in values),
            free_bytes=0,
        )

    async def check(self) -> list[str]:
        """Find nothing wrong, unless a record is none."""
        self._check_open()
        problems = []
        for key, record in self._records.items():
            try:
                list(records.decode(record))
            except StoreError as error:
                problems.append(f"record {key}: {error.reason}")
        return problems

    async def gc(self) -> int:
        """Give nothing back: there is never anything left behind."""
        self._check_open()
        return 0

    async def close(self) -> None:
        """Close it; what it holds stays for the next `open`."""
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreError("closed", "not open")
