"""The contract of stores: what keeps sessions, messages and plugin data, and how the broker talks to it.

    broker ── commit(batch 1) ──▶ store        a batch: records put, keys deleted, values of plugins; all or nothing
           ── commit(batch 2) ──▶
           ◀── done 1, done 2 ──               in order, when they would survive loss of power
           ── read(keys) ───────▶              messages that do not fit into memory

A store is a bag of records with a key each (`mqttcore.store.records`), and need not know what they say. It takes them
by the batch as one block of bytes, so that a commit is a handful of calls whatever the number of records. A simple
store keeps each record under its key in some key-value store:

    for key, kind, start, end in records.index(batch.records): table[key] = batch.records[start:end]
    for key in memoryview(batch.deleted).cast("Q"): table.pop(key, None)

A fast one keeps the blocks as they are, counts what is alive in each, removes those that are dead, and rewrites sparse
ones with `records.without`: keys ascend from batch to batch, so a key is found by the first key of its block, and
deleted keys come sorted, so those of one block are one slice. What it rewrites keeps its key: the broker asks by key.

Calls come from one event loop's thread, and none of them may block it; a store has threads or processes of its own.
Code that takes the GIL for each of many small steps in another thread waits for it each time: hand blocks to C.
`mqttcore.testing.store.StoreContract` is this page as tests. A store needs no locking against a second broker process,
but has to refuse to be opened twice.

What has to be kept with the records: the format version of the time they were written (`records.FORMAT_VERSION`), which
`open` compares, and the highest key that was ever committed, so that no key is used twice even when its record is gone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

__all__ = ["SessionStore", "StoreAlarm", "StoreBatch", "StoreInfo", "ValueChange"]

ValueChange = tuple[str, bytes, bytes | None]
"""Namespace, key and new value of plugin data; None: removed."""


class StoreAlarm(Protocol):
    """Tells operators of something that began or ended; may be called from any thread.

    name: stable, one of `store_quarantined`, `store_full`, `store_failing`, or the store's own beginning with `store_`.
    """

    def __call__(self, name: str, is_raised: bool, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class StoreBatch:
    """What belongs together: all of it is kept, or nothing.

    number: ascending from 1 each time the broker starts, without gaps; not to be stored. records: framed records, keys
    ascending, all higher than those of earlier batches. count: how many. first_key, last_key: 0 when there are none.
    deleted: native uint64, ascending, none twice, none of this batch's own; a key that is not there is passed over.
    values: in order; a later change of a key counts.
    """

    number: int
    records: bytes = b""
    count: int = 0
    first_key: int = 0
    last_key: int = 0
    deleted: bytes = b""
    values: tuple[ValueChange, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes it takes in memory, about."""
        changed = sum(len(key) + len(value or b"") for _, key, value in self.values)
        return len(self.records) + len(self.deleted) + changed


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store as it was when asked.

    place: where it is, for people. records, values: alive. used_bytes: on disk or in memory, all in all. free_bytes:
    those of them that `gc` could give back, as far as known. details: the store's own, for people and metrics.
    """

    place: str
    format_version: int
    records: int
    values: int
    used_bytes: int
    free_bytes: int
    details: Mapping[str, int | str] = field(default_factory=dict)


class SessionStore(ABC):
    """What keeps sessions, messages in flight and queued, retained messages, and the data of plugins.

    Every method raises StoreError: `full`, `io`, `corrupt`, `version` or `closed`. One object is opened once.
    """

    is_durable: bool = True
    """Whether it outlives the process. False: the broker gives it no records, only values of plugins."""

    last_key: int = 0
    """Set by `open`: at least the highest key that was ever committed; 0: none was."""

    @abstractmethod
    async def open(self, alarm: StoreAlarm) -> None:
        """Open it, repair what a crash left behind, upgrade what is older.

        alarm: for all that an operator has to see. What is damaged is put aside as a whole, with an alarm, and the
        store begins anew, or StoreError (corrupt) is raised: its choice by setting, but nothing is given in part.
        StoreError (version): written by a newer version; nothing is touched then.
        """

    @abstractmethod
    def load(self) -> AsyncIterator[bytes]:
        """Give all records that are alive, in chunks of some 100 KiB, keys ascending within and from chunk to chunk.

        The broker calls it once, after `open` and before the first `commit`; tools may call it again. Yields to the
        event loop between chunks.
        """

    @abstractmethod
    def commit(self, batch: StoreBatch) -> asyncio.Future[None]:
        """Take a batch over at once; the future is done when it would survive a crash and loss of power.

        Several batches may be under way; they take effect and complete in the order of their numbers, and one sync may
        serve many. When one fails, StoreError says why, nothing of it counts, and those under way behind it fail with
        `closed`: the broker goes on with the one that failed, the same number and content, until it succeeds. A failed
        sync may have kept it or not, so committing a batch again must do no harm: a key that is there is replaced by
        itself.
        """

    @abstractmethod
    async def read(self, keys: bytes) -> bytes:
        """Return the framed records of these keys as one chunk; those that are not there are left out.

        keys: native uint64, ascending; some hundreds at a time. Sees every batch committed before the call.
        """

    @abstractmethod
    async def value(self, namespace: str, key: bytes) -> bytes | None:
        """Return a value of plugin data; None without one. Sees every batch committed before the call."""

    @abstractmethod
    def values(self, namespace: str, prefix: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """Give keys and values of a namespace, keys ascending.

        What changes meanwhile may or may not be seen.
        """

    @abstractmethod
    async def info(self) -> StoreInfo:
        """Return figures; cheap enough to be asked every few seconds."""

    @abstractmethod
    async def check(self) -> list[str]:
        """Look through everything and return what is wrong, in words; empty: nothing. May take long, stalls nobody."""

    @abstractmethod
    async def gc(self) -> int:
        """Give space back that nothing alive takes; bytes. May take long, stalls nobody, is never needed."""

    @abstractmethod
    async def close(self) -> None:
        """Complete what is under way and close; without effect the second time."""
