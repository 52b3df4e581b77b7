"""What the writer knows of the rows of records: which keys each holds, and how much of it is alive.

    keys      1 ─────── 900 901 ───── 1800 1801 … 2100
    segments  [ alive: 850 ][ alive: 0    ][ alive: 300 ]     ascending, never overlapping
    dead      {17, 20, …}    all            {}

Nothing here touches the file, and nothing costs per record, only per segment and per piece of a deletion.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Segment", "SegmentIndex"]

_PIECES_MAXIMUM = 64


class Segment:
    """One row of records, keys first_key to last_key. size_bytes: of the records, dead ones included."""

    __slots__ = ("_dead_count", "_pieces", "count", "first_key", "is_changed", "last_key", "size_bytes")

    def __init__(self, first_key: int, last_key: int, count: int, size_bytes: int, dead: bytes = b"") -> None:
        self.first_key = first_key
        self.last_key = last_key
        self.count = count
        self.size_bytes = size_bytes
        self.is_changed = False  # has dead keys that stand only in the table `deletions`
        self._pieces = [dead] if dead else []
        self._dead_count = len(dead) // 8

    @property
    def is_dense(self) -> bool:
        """Whether every key between the first and the last is one of its records."""
        return self.last_key - self.first_key + 1 == self.count

    @property
    def alive(self) -> int:
        """Records that are alive; too few when keys died twice that `dead_keys` has not gone through."""
        return self.count - self._dead_count

    @property
    def alive_bytes(self) -> int:
        """Bytes of the records that are alive, were all of one size."""
        return self.size_bytes * max(self.alive, 0) // self.count

    def bury(self, keys: bytes) -> None:
        """Count *keys*, native uint64, as dead."""
        self._pieces.append(keys)
        self._dead_count += len(keys) // 8
        self.is_changed = True
        if self._dead_count >= self.count or len(self._pieces) > _PIECES_MAXIMUM:
            self.dead_keys()

    def dead_keys(self) -> bytes:
        """Return the dead keys, native uint64, ascending, none twice."""
        if len(self._pieces) > 1:
            keys = sorted({*memoryview(b"".join(self._pieces)).cast("Q")})
            self._pieces = [array("Q", keys).tobytes()]
            self._dead_count = len(keys)
        return self._pieces[0] if self._pieces else b""


class SegmentIndex:
    """All segments by key; who of them is dead, changed, or might be worth rewriting.

    finished: segments with nothing alive, their rows still there. doubtful: those that seem so, but have keys missing
    between the first and the last, so that only a look at the records can tell.
    """

    def __init__(self) -> None:
        self._first_keys: list[int] = []
        self._segments: dict[int, Segment] = {}
        self.finished: list[Segment] = []
        self.doubtful: list[Segment] = []
        self.changed: dict[int, Segment] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        """Segments that have something alive."""
        return len(self._first_keys)

    @property
    def alive(self) -> int:
        """Records that are alive; walks over all segments."""
        return sum(max(segment.alive, 0) for segment in self._segments.values())

    @property
    def alive_bytes(self) -> int:
        """Bytes of the records that are alive, about; walks over all segments."""
        return sum(segment.alive_bytes for segment in self._segments.values())

    def add(self, segment: Segment) -> None:
        """Add a segment behind all others, or put one into the place of what was taken out."""
        if not self._first_keys or segment.first_key > self._first_keys[-1]:
            self._first_keys.append(segment.first_key)
        else:
            self._first_keys.insert(bisect_left(self._first_keys, segment.first_key), segment.first_key)
        self._segments[segment.first_key] = segment
        self.size_bytes += segment.size_bytes

    def remove(self, segment: Segment) -> None:
        """Take a segment out."""
        del self._first_keys[bisect_left(self._first_keys, segment.first_key)]
        del self._segments[segment.first_key]
        self.changed.pop(segment.first_key, None)
        self.size_bytes -= segment.size_bytes

    def covering(self, key: int) -> Segment | None:
        """Return the segment within whose first and last key *key* is, or None."""
        place = bisect_right(self._first_keys, key) - 1
        if place < 0:
            return None
        segment = self._segments[self._first_keys[place]]
        return segment if key <= segment.last_key else None

    def bury(self, deleted: bytes) -> None:
        """Count keys as dead: native uint64, ascending; keys of no segment are passed over."""
        keys = memoryview(deleted).cast("Q")
        at = 0
        while at < len(keys):
            segment = self.covering(keys[at])
            if segment is None:
                place = bisect_right(self._first_keys, keys[at])
                if place == len(self._first_keys):
                    return
                at = bisect_left(keys, self._first_keys[place], at)
                continue
            end = bisect_right(keys, segment.last_key, at)
            segment.bury(keys[at:end].tobytes())
            self.changed[segment.first_key] = segment
            if segment.alive <= 0:
                self._finish(segment)
            at = end

    def _finish(self, segment: Segment) -> None:
        if segment.is_dense:
            self.remove(segment)
            self.finished.append(segment)
        elif segment not in self.doubtful:
            self.doubtful.append(segment)

    def from_key(self, key: int) -> Iterator[Segment]:
        """Give the segments in order, beginning with the first whose first key is not below *key*."""
        return self.from_place(bisect_left(self._first_keys, key))

    def from_place(self, place: int) -> Iterator[Segment]:
        """Give the segments in order, beginning with that at *place*."""
        for number in range(place, len(self._first_keys)):
            yield self._segments[self._first_keys[number]]
