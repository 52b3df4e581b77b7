"""What keeps the file small, a slice at a time, in the writer's thread between commits.

    drop        rows whose records are all dead are deleted
    fold        the log `deletions` becomes one row in `dead` for each segment that it names
    merge       neighbours that are small, or mostly dead, are written as one, without what is dead
    checkpoint  the write-ahead log goes into the file, so that it begins again
    vacuum      free pages at the end of the file are given back

A slice moves about a megabyte at most; between two the writer looks for batches that wait.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

from mqttcore import records

from .database import checksum, put_meta, transaction
from .segments import Segment, segment_of

if TYPE_CHECKING:
    import sqlite3
    import threading

    from .integrity import Contents

__all__ = ["SEGMENT_BYTES", "Maintenance"]

SEGMENT_BYTES = 262_144

_SLICE_BYTES = 1_048_576
_DROPPED_AT_ONCE = 256  # rows; their bytes count, too
_FOLD_BYTES = 1_048_576  # of keys in `deletions`
_YOUNG = 64  # segments at the end: most records die there, merging them would be for nothing
_RUN_MAXIMUM = 64  # segments merged into one
_RUN_MINIMUM = 8  # as long as they are not sparse
_LOOK_EVERY = 32  # commits
_LOOKED_AT = 512  # segments a slice looks at before it gives up
_VACUUM_PAGES = 256
_COMMIT_PAGES_BYTES = 40_960  # of the log a commit takes besides what it writes, about: pages of trees
_SPARE_PAGES = 1024  # free pages that are kept for what comes next


class Maintenance:
    """Works on the writer's connection. swap: held while rows move, so that a reader sees either state.

    checkpoint_bytes: size of the write-ahead log from which on it is checkpointed.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        contents: Contents,
        path: Path,
        swap: threading.Lock,
        checkpoint_bytes: int,
    ) -> None:
        self._connection = connection
        self._contents = contents
        self._index = contents.index
        self._log_path = Path(f"{path}-wal")
        self._swap = swap
        self._checkpoint_bytes = checkpoint_bytes
        self._place = 0  # of the segment at which looking for a merge goes on
        self.commits_since_look = 0  # for something to merge
        self.deletion_bytes = 0
        self.log_bytes = 0  # written since the last checkpoint
        self.merged_bytes = 0
        self.checkpoints = 0
        self.checkpoint_us = 0
        self.checkpoint_us_maximum = 0

    def urgent(self) -> bool:
        """Do what must not wait for a quiet moment, if anything has to be done; whether something was."""
        if self.log_bytes >= self._checkpoint_bytes:
            self.checkpoint()
            return True
        waiting = sum(segment.size_bytes for segment in islice(self._index.finished, _DROPPED_AT_ONCE))
        if waiting >= _SLICE_BYTES or len(self._index.finished) >= _DROPPED_AT_ONCE:
            return self._drop()
        if self.deletion_bytes >= _FOLD_BYTES:
            return self._fold()
        if len(self._index) <= 2 * _YOUNG or self.commits_since_look < _LOOK_EVERY:
            return False
        if not self._merge(_YOUNG):
            self.commits_since_look = 0
            return False
        return True

    def idle(self) -> bool:
        """Do a slice of what can wait; False: there is nothing left to do."""
        self.commits_since_look = _LOOK_EVERY
        return self.urgent() or self._drop() or self._vacuum(_SPARE_PAGES) or self._settle()

    def whole(self) -> bool:
        """Do a slice of everything that there is to do; False: there is nothing left to do."""
        return self._drop() or self._merge(0) or self._fold() or self._vacuum(0) or self._settle()

    def _drop(self) -> bool:
        finished = self._index.finished
        if not finished:
            return False
        dropped: list[Segment] = []
        size = 0
        for segment in finished[:_DROPPED_AT_ONCE]:
            dropped.append(segment)
            size += segment.size_bytes
            if size >= _SLICE_BYTES:
                break
        first_keys = json.dumps([segment.first_key for segment in dropped])
        with self._swap, transaction(self._connection):
            put_meta(self._connection, "last_key", self._contents.last_key)
            for table in ("segments", "dead"):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE first_key IN (SELECT value FROM json_each(?))",  # noqa: S608
                    (first_keys,),
                )
        del finished[: len(dropped)]
        self._wrote(len(dropped) * 64)
        return True

    def _fold(self) -> bool:
        if not self.deletion_bytes:
            return False
        while self._index.finished:  # or their rows would be alive again once nothing says that they are dead
            self._drop()
        changed = list(self._index.changed.values())
        rows = []
        blocks = []
        at = 1  # SQL counts from 1
        for segment in changed:
            keys = segment.dead_keys()
            rows.append((segment.first_key, checksum(keys, segment.first_key), at, len(keys)))
            blocks.append(keys)
            at += len(keys)
        with self._swap, transaction(self._connection):
            self._connection.execute(
                "INSERT OR REPLACE INTO dead SELECT value ->> 0, value ->> 1, substr(?, value ->> 2, value ->> 3) "
                "FROM json_each(?)",
                (b"".join(blocks), json.dumps(rows)),
            )
            self._connection.execute("DELETE FROM deletions WHERE number <= ?", (self._contents.deletion_number,))
        self._index.changed.clear()
        self.deletion_bytes = 0
        self._wrote(at)
        return True

    def _merge(self, young: int) -> bool:
        """Write a run of neighbours as one; those at the end are left alone, *young* of them."""
        if self._index.finished:  # their rows may stand between two neighbours
            return self._drop()
        old = max(len(self._index) - young, 0)
        if self._place >= old:
            self._place = 0
        run: list[Segment] = []
        size = 0
        for segment in islice(self._index.from_place(self._place), min(old - self._place, _LOOKED_AT)):
            alive = segment.alive_bytes
            if run and (size + alive > SEGMENT_BYTES or len(run) == _RUN_MAXIMUM):
                if _is_worth(run):
                    self._rewrite(run)
                    return True
                run, size = [], 0
            self._place += 1
            run.append(segment)
            size += alive
        if run and _is_worth(run):
            self._rewrite(run)
            return True
        return False

    def _rewrite(self, run: list[Segment]) -> None:
        """Put the live records of *run*, neighbours, into one row in place of theirs."""
        placeholders = ", ".join("?" * len(run))
        first_keys = [segment.first_key for segment in run]
        found = self._connection.execute(
            f"SELECT first_key, records FROM segments WHERE first_key IN ({placeholders})",  # noqa: S608
            first_keys,
        ).fetchall()
        chunks = dict(found)
        alive = b"".join(records.without(chunks[segment.first_key], segment.dead_keys()) for segment in run)
        made: Segment | None = None
        if alive:
            made = segment_of(alive)
        with self._swap:
            with transaction(self._connection):
                put_meta(self._connection, "last_key", self._contents.last_key)
                for table in ("segments", "dead"):
                    self._connection.execute(
                        f"DELETE FROM {table} WHERE first_key IN ({placeholders})",  # noqa: S608
                        first_keys,
                    )
                if made is not None:
                    numbers = (made.first_key, made.last_key, made.count)
                    self._connection.execute(
                        "INSERT INTO segments VALUES (?, ?, ?, ?, ?)", (*numbers, checksum(alive, *numbers), alive)
                    )
            for segment in run:
                self._index.remove(segment)
            if made is not None:
                self._index.add(made)
        self._place = max(self._place - len(run), 0)
        self.merged_bytes += len(alive)
        self._wrote(len(alive))

    def committed(self, record_bytes: int, deletion_bytes: int) -> None:
        """Count what a commit wrote."""
        self.commits_since_look += 1
        self.deletion_bytes += deletion_bytes
        self._wrote(record_bytes + deletion_bytes)

    def _wrote(self, size: int) -> None:
        self.log_bytes += size + _COMMIT_PAGES_BYTES

    def _vacuum(self, spare: int) -> bool:
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        if free <= spare or (spare and free * 4 < pages):
            return False
        (mode,) = self._connection.execute("PRAGMA auto_vacuum").fetchone()
        if not mode:
            return False
        # fetchall: each step frees one page, and the statement has to come to its end.
        self._connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        self._wrote(_VACUUM_PAGES * 8192)
        return True

    def _settle(self) -> bool:
        """Empty the log, when nothing has been written for a while."""
        if not self.log_bytes:
            return False
        self.checkpoint("TRUNCATE")
        return False

    def checkpoint(self, mode: str = "PASSIVE") -> None:
        """Bring the log into the file. PASSIVE waits for no reader; TRUNCATE leaves an empty log."""
        began = perf_counter_ns()
        is_busy, frames, moved = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        taken_us = (perf_counter_ns() - began) // 1000
        self.checkpoints += 1
        self.checkpoint_us += taken_us
        self.checkpoint_us_maximum = max(self.checkpoint_us_maximum, taken_us)
        # What a reader kept from being moved is moved the next time; looking again at once would be for nothing.
        self.log_bytes = 0 if not is_busy and frames == moved else self._checkpoint_bytes // 2

    @property
    def log_file_bytes(self) -> int:
        """Size of the write-ahead log on disk."""
        try:
            return self._log_path.stat().st_size
        except FileNotFoundError:
            return 0


def _is_worth(run: list[Segment]) -> bool:
    """Whether writing *run* as one saves half of the bytes, or many rows."""
    size = sum(segment.size_bytes for segment in run)
    alive = sum(segment.alive_bytes for segment in run)
    return alive * 2 < size or (len(run) >= _RUN_MINIMUM and alive < len(run) * SEGMENT_BYTES // _RUN_MINIMUM)
