"""Where the registry's tables are kept: one JSON file of mode 0600, replaced as a whole.

Small behind its interface, so that a broker's own store can take its place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mqttcore import StoreError, write_private_file

__all__ = ["FileStorage", "MemoryStorage", "Storage"]

log = logging.getLogger("mqttcore.plugins.aliyun")

_VERSION = 1


class Storage(Protocol):
    """Tables of records: name -> key -> what JSON can say, or a msgspec struct."""

    def load(self) -> dict[str, dict[str, Any]]:
        """Return all tables, at start. Raises StoreError: never a part of them."""
        ...

    def put(self, table: str, key: str, record: object | None) -> None:
        """Keep a record, or drop it with None; on disk soon, and by the end of `saved`."""
        ...

    async def saved(self) -> None:
        """Return when all that was put before is safe. Raises StoreError; it is tried again with the next change."""
        ...


class MemoryStorage:
    """Keeps nothing beyond the process."""

    def load(self) -> dict[str, dict[str, Any]]:
        """Return no tables."""
        return {}

    def put(self, table: str, key: str, record: object | None) -> None:
        """Forget it."""

    async def saved(self) -> None:
        """Return at once."""


class FileStorage:
    """Keeps the tables in a file. Changes that come while it is written go together into the next writing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._tables: dict[str, dict[str, Any]] = {}
        self._changes = 0
        self._written = 0
        self._writing: asyncio.Task[None] | None = None

    def load(self) -> dict[str, dict[str, Any]]:
        """Return the tables; none when there is no file yet. StoreError: not ours alone, unreadable, damaged."""
        try:
            with self._path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError("io", f"{self._path}: cannot be read: {error.strerror or error}") from error
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StoreError(
                "io", f"{self._path}: holds secrets, and others than its owner have rights to it: chmod 600"
            )
        try:
            document = msgspec.json.decode(data, type=_Document)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:  # their texts have no values
            raise StoreError("corrupt", f"{self._path}: {error}") from error
        if document.version != _VERSION:
            raise StoreError("version", f"{self._path}: version {document.version}, and we know {_VERSION}")
        self._tables = document.tables
        return document.tables

    def put(self, table: str, key: str, record: object | None) -> None:
        """Keep or drop a record; written soon when a loop runs, else by `saved`."""
        records = self._tables.setdefault(table, {})
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record
        self._changes += 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # while the broker is put together: `saved` follows
            return
        if self._writing is None:
            self._begin(loop)

    async def saved(self) -> None:
        """Return when all changes are in the file."""
        wanted = self._changes
        while self._written < wanted:
            writing = self._writing or self._begin(asyncio.get_running_loop())
            await asyncio.wait([writing])  # whoever waits here may be cancelled, the writing not
            writing.result()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        self._writing = loop.create_task(self._write(), name="mqttcore.aliyun.write")
        self._writing.add_done_callback(self._ended)
        return self._writing

    async def _write(self) -> None:
        await asyncio.sleep(0)  # with what else changes in this turn
        changes = self._changes
        data = msgspec.json.encode(_Document(version=_VERSION, tables=self._tables))
        try:
            await asyncio.to_thread(write_private_file, self._path, data)
        except OSError as error:
            raise StoreError("io", f"{self._path}: cannot be written: {error.strerror or error}") from error
        self._written = changes

    def _ended(self, writing: asyncio.Task[None]) -> None:
        self._writing = None
        if writing.cancelled():
            return
        if (error := writing.exception()) is not None:
            log.error("the registry is not saved, tried again with its next change: %s", error)
        elif self._written < self._changes:
            self._begin(asyncio.get_running_loop())


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    tables: dict[str, dict[str, Any]]
