"""Reading, in a thread and over a connection of its own: the writer is hardly ever waited for, or made to wait."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mqttcore import StoreError, StoreInfo, records

from . import database
from .integrity import damages

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from .segments import SegmentIndex
    from .writer import Writer

__all__ = ["Reader"]

_CHUNK_BYTES = 262_144
_ROWS_AT_ONCE = 256
_VALUES_AT_ONCE = 256
_SEGMENT = "SELECT first_key, last_key, count, checksum, records FROM segments WHERE first_key = ?"
_T = TypeVar("_T", bound=tuple[Any, ...])


class Reader:
    """Owns the reading connection. All methods are for the reader's thread; they raise StoreError."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._generation = 0
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with database.translated():
            if self._generation != self._writer.generation:
                self.close()
                self._generation = self._writer.generation
            if self._connection is None:
                self._connection = database.connect_reader(self._writer.options.path)
            yield self._connection

    def _fetch(self, plan: Callable[[SegmentIndex], list[_T]], use: Callable[[_T, bytes], bytes]) -> bytes:
        """Read the segments that *plan* names, as they were then; *use* makes of each what is wanted of it.

        plan answers things that begin with a first key. The writer is held back while it does, and no longer.
        """
        with self._reading() as connection:
            with self._writer.swap:
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM meta").fetchone()  # the snapshot begins with the first read
                planned = plan(self._writer.contents.index)
            try:
                parts = []
                for one in planned:
                    row = connection.execute(_SEGMENT, one[:1]).fetchone()
                    if row is None:
                        raise StoreError("corrupt", f"segments: row {one[0]} is not there")
                    first_key, last_key, count, expected, chunk = row
                    if database.checksum(chunk, first_key, last_key, count) != expected:
                        raise StoreError("corrupt", f"segments: row {one[0]} does not have its checksum")
                    parts.append(use(one, chunk))
            finally:
                connection.execute("COMMIT")
        return b"".join(parts)

    def records(self, keys: bytes) -> bytes:
        """Return the framed records of *keys*, native uint64, ascending."""
        return self._fetch(lambda index: _parts(index, memoryview(keys).cast("Q")), _selected)

    def chunk_from(self, key: int) -> tuple[bytes, int]:
        """Return live records from *key* on, and the key at which to go on; 0: there are no more."""
        following = 0

        def plan(index: SegmentIndex) -> list[tuple[int, bytes]]:
            nonlocal following
            found: list[tuple[int, bytes]] = []
            size = 0
            for segment in index.from_key(key):
                if size >= _CHUNK_BYTES or len(found) == _ROWS_AT_ONCE:
                    following = segment.first_key
                    break
                found.append((segment.first_key, segment.dead_keys()))
                size += segment.alive_bytes
            return found

        chunk = self._fetch(plan, lambda one, chunk: records.without(chunk, one[1]) if one[1] else chunk)
        return chunk, following

    def value(self, namespace: str, name: bytes) -> bytes | None:
        """Return a value of plugin data, or None."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT checksum, value FROM plugin_values WHERE namespace = ? AND name = ?", (namespace, name)
            ).fetchone()
        return None if row is None else _checked(namespace, name, *row)

    def values(self, namespace: str, prefix: bytes, after: bytes) -> list[tuple[bytes, bytes]]:
        """Return some names and values, names ascending, from *after* on, all beginning with *prefix*."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT name, checksum, value FROM plugin_values "
                "WHERE namespace = ? AND name >= ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
                (namespace, max(prefix, after), len(prefix), prefix, _VALUES_AT_ONCE),
            ).fetchall()
        return [(name, _checked(namespace, name, expected, value)) for name, expected, value in rows]

    def namespaces(self) -> list[str]:
        """Return the namespaces that have values."""
        with self._reading() as connection:
            return [name for (name,) in connection.execute("SELECT DISTINCT namespace FROM plugin_values ORDER BY 1")]

    def damages(self) -> list[str]:
        """Return what is wrong with the file."""
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                return damages(connection)
            finally:
                connection.execute("COMMIT")

    def info(self) -> StoreInfo:
        """Return figures of now."""
        writer = self._writer
        with self._reading() as connection:
            (values,) = connection.execute("SELECT count(*) FROM plugin_values").fetchone()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        figures, maintenance = writer.figures, writer.maintenance
        with writer.swap:
            index = writer.contents.index
            alive, segments = index.alive, len(index)
            dead_bytes = index.size_bytes - index.alive_bytes + sum(segment.size_bytes for segment in index.finished)
        return StoreInfo(
            place=str(writer.options.path),
            format_version=writer.contents.format_version,
            records=alive,
            values=values,
            used_bytes=writer.options.path.stat().st_size + maintenance.log_file_bytes,
            free_bytes=free * page_bytes + dead_bytes,
            details={
                "schema_version": database.SCHEMA_VERSION,
                "segments": segments,
                "free_pages": free,
                "wal_bytes": maintenance.log_file_bytes,
                "commits": figures.commits,
                "batches": figures.batches,
                "commit_us": figures.commit_us,
                "commit_us_maximum": figures.commit_us_maximum,
                "committed_bytes": figures.committed_bytes,
                "failed_commits": figures.failed_commits,
                "reopened": figures.reopened,
                "merged_bytes": maintenance.merged_bytes,
                "checkpoints": maintenance.checkpoints,
                "checkpoint_us": maintenance.checkpoint_us,
                "checkpoint_us_maximum": maintenance.checkpoint_us_maximum,
            },
        )


def _parts(index: SegmentIndex, keys: memoryview[int]) -> list[tuple[int, bytes, bytes]]:
    """Return first key, keys that are wanted, and dead keys, of each segment that has any of *keys*."""
    found = []
    at = 0
    while at < len(keys):
        segment = index.covering(keys[at])
        if segment is None:
            at += 1
            continue
        end = bisect_right(keys, segment.last_key, at)
        found.append((segment.first_key, keys[at:end].tobytes(), segment.dead_keys()))
        at = end
    return found


def _selected(one: tuple[int, bytes, bytes], chunk: bytes) -> bytes:
    _, wanted, dead = one
    selected = records.select(chunk, wanted)
    return records.without(selected, dead) if dead else selected


def _checked(namespace: str, name: bytes, expected: int, value: bytes) -> bytes:
    if database.checksum(value, namespace, name) != expected:
        raise StoreError("corrupt", f"plugin_values: {namespace}, {name!r} does not have its checksum")
    return value
