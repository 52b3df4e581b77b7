"""Whether a file is whole: looked at before anything of it is believed, and again after every fault of the disk."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqttcore import StoreError

from .database import checksum, meta
from .segments import SegmentIndex, segment_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Contents", "LogFrames", "damages", "log_frames", "read_contents"]

_WAL_MAGIC = 0x377F0682  # the lowest bit says whether checksums are big-endian
_WAL_HEADER = struct.Struct(">8I")
_WAL_FRAME = struct.Struct(">4I8x")
_DAMAGES_MAXIMUM = 100


@dataclass
class Contents:
    """What is in a file that is whole. deletion_number: highest in the table `deletions`."""

    last_key: int = 0
    deletion_number: int = 0
    format_version: int = 0
    index: SegmentIndex = field(default_factory=SegmentIndex)


def read_contents(connection: sqlite3.Connection) -> Contents:
    """Look through the whole file. Raises StoreError (corrupt) for the first thing that is wrong."""
    contents = Contents()
    for damage in _damages(connection, contents):
        raise StoreError("corrupt", damage)
    return contents


def damages(connection: sqlite3.Connection) -> list[str]:
    """Return what is wrong, at most some hundred things."""
    found = []
    for damage in _damages(connection, Contents()):
        found.append(damage)
        if len(found) == _DAMAGES_MAXIMUM:
            found.append("and more")
            break
    return found


def _damages(connection: sqlite3.Connection, contents: Contents) -> Iterator[str]:
    for (line,) in connection.execute(f"PRAGMA quick_check({_DAMAGES_MAXIMUM})"):
        if line != "ok":
            yield f"quick_check: {line}"
    for name in ("format_version", "last_key"):
        try:
            setattr(contents, name, meta(connection, name))
        except StoreError as error:
            yield error.reason
    yield from _segment_damages(connection, contents)
    for number, expected, keys in connection.execute("SELECT number, checksum, keys FROM deletions ORDER BY number"):
        contents.deletion_number = number
        if checksum(keys, number) == expected:
            contents.index.bury(array("Q", sorted(memoryview(keys).cast("Q"))).tobytes())  # of several batches
        else:
            yield f"deletions: row {number} does not have its checksum"
    for namespace, name, expected, value in connection.execute(
        "SELECT namespace, name, checksum, value FROM plugin_values"
    ):
        if checksum(value, namespace, name) != expected:
            yield f"plugin_values: {namespace}, {name!r} does not have its checksum"


def _segment_damages(connection: sqlite3.Connection, contents: Contents) -> Iterator[str]:
    before = 0
    for first_key, last_key, count, expected, chunk, dead_checksum, dead in connection.execute(
        "SELECT first_key, last_key, count, segments.checksum, records, dead.checksum, keys "
        "FROM segments LEFT JOIN dead USING (first_key) ORDER BY first_key"
    ):
        if checksum(chunk, first_key, last_key, count) != expected:
            yield f"segments: row {first_key} does not have its checksum"
            continue
        if first_key <= before:
            yield f"segments: row {first_key} begins within the one before it"
        if dead is not None and checksum(dead, first_key) != dead_checksum:
            yield f"dead: row {first_key} does not have its checksum"
            continue
        before = last_key
        contents.last_key = max(contents.last_key, last_key)
        contents.index.add(segment_of(chunk, dead or b""))


@dataclass(frozen=True)
class LogFrames:
    """Where in a write-ahead log the commits end: numbers of frames, from 1; has_header: whether its header is whole.

    Each commit is synced before the next one begins. So behind the last frame that SQLite takes there can be the rest
    of one commit that a crash tore; if there are more, what was safe once has been damaged since.
    """

    has_header: bool
    commits: tuple[int, ...]

    def lost(self, taken: int) -> int:
        """Return how many whole commits stand behind frame *taken*, the last one that SQLite takes."""
        behind = sum(number > taken for number in self.commits)
        return max(behind - 1, 0)


def log_frames(path: Path) -> LogFrames | None:
    """Look at the log at *path*; None when there is none, or nothing in it. Has to be done before SQLite opens it."""
    try:
        log = path.open("rb")
    except FileNotFoundError:
        return None
    with log:
        header = log.read(_WAL_HEADER.size)
        if len(header) < _WAL_HEADER.size:
            return None
        magic, _, page_bytes, _, *salts, sum_1, sum_2 = _WAL_HEADER.unpack(header)
        has_header = magic | 1 == _WAL_MAGIC | 1 and _wal_checksum(header[:24], magic & 1) == (sum_1, sum_2)
        if not has_header:
            page_bytes = page_bytes if page_bytes in {1 << bit for bit in range(9, 17)} else 8192
        commits = []
        number = 1
        while len(frame := log.read(_WAL_FRAME.size)) == _WAL_FRAME.size:
            _, pages, *frame_salts = _WAL_FRAME.unpack(frame)
            if pages and (frame_salts == salts or not has_header):
                commits.append(number)
            log.seek(page_bytes, 1)
            number += 1
    return LogFrames(has_header, tuple(commits))


def _wal_checksum(data: bytes, is_big_endian: int) -> tuple[int, int]:
    words = struct.unpack(f"{'>' if is_big_endian else '<'}{len(data) // 4}I", data)
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
