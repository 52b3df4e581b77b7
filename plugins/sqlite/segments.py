"""What the writer knows of the rows of records: which keys each holds, and how much of it is alive.

    keys      1 ─────── 900 901 ───── 1800 1801 … 2100
    segments  [ alive: 850 ][ alive: 0    ][ alive: 300 ]     ascending, never overlapping
    dead      {17, 20, …}    all            {}

Nothing here touches the file; what a commit pays is per segment and per piece of a deletion, not per record.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from mqttcore import records

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Segment", "SegmentIndex", "segment_of"]

_PIECES_MAXIMUM = 64


class Segment:
    """One row of records, keys first_key to last_key. size_bytes: of the records, dead ones included.

    keys: of its records, native uint64, when there are gaps between them; empty: there are none.
    dead: keys that are dead, native uint64.
    """

    __slots__ = ("_dead_count", "_is_exact", "_keys", "_pieces", "count", "first_key", "last_key", "size_bytes")

    def __init__(
        self, first_key: int, last_key: int, count: int, size_bytes: int, keys: bytes = b"", dead: bytes = b""
    ) -> None:
        self.first_key = first_key
        self.last_key = last_key
        self.count = count
        self.size_bytes = size_bytes
        self._keys = keys
        self._pieces = [dead] if dead else []
        self._dead_count = len(dead) // 8
        self._is_exact = True  # the one piece has keys of ours alone, ascending, none twice

    @property
    def alive(self) -> int:
        """Records that are alive; too few as long as keys died that were dead, or were never here."""
        return self.count - self._dead_count

    @property
    def alive_bytes(self) -> int:
        """Bytes of the records that are alive, were all of one size."""
        return self.size_bytes * max(self.alive, 0) // self.count

    def bury(self, keys: bytes) -> None:
        """Count *keys*, native uint64 between first_key and last_key, as dead."""
        self._pieces.append(keys)
        self._dead_count += len(keys) // 8
        self._is_exact = False
        if self._dead_count >= self.count or len(self._pieces) > _PIECES_MAXIMUM:
            self.dead_keys()

    def dead_keys(self) -> bytes:
        """Return the dead keys, native uint64, ascending, none twice; `alive` is exact then."""
        if not self._is_exact:
            dead = {*memoryview(b"".join(self._pieces)).cast("Q")}
            if self._keys:
                dead.intersection_update(memoryview(self._keys).cast("Q"))
            self._pieces = [array("Q", sorted(dead)).tobytes()]
            self._dead_count = len(dead)
            self._is_exact = True
        return self._pieces[0] if self._pieces else b""


def segment_of(chunk: bytes, dead: bytes = b"") -> Segment:
    """Return what is to be known of a row that holds *chunk*, not empty. dead: as for `Segment`."""
    keys = records.keys(chunk)
    view = memoryview(keys).cast("Q")
    first_key, last_key, count = view[0], view[-1], len(view)
    has_gaps = last_key - first_key + 1 != count
    return Segment(first_key, last_key, count, len(chunk), keys if has_gaps else b"", dead)


class SegmentIndex:
    """All segments by key.

    finished: segments with nothing alive, their rows still there. changed: by first key, those with dead keys that
    stand only in the table `deletions`.
    """

    def __init__(self) -> None:
        self._first_keys: list[int] = []
        self._segments: dict[int, Segment] = {}
        self.finished: list[Segment] = []
        self.changed: dict[int, Segment] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        """Segments that have something alive."""
        return len(self._first_keys)

    @property
    def alive(self) -> int:
        """Records that are alive; walks over all segments."""
        for segment in self._segments.values():
            segment.dead_keys()
        return sum(segment.alive for segment in self._segments.values())

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
            if not segment.alive:
                self.remove(segment)
                self.finished.append(segment)
            at = end

    def from_key(self, key: int) -> Iterator[Segment]:
        """Give the segments in order, beginning with the first whose first key is not below *key*."""
        return self.from_place(bisect_left(self._first_keys, key))

    def from_place(self, place: int) -> Iterator[Segment]:
        """Give the segments in order, beginning with that at *place*."""
        for number in range(place, len(self._first_keys)):
            yield self._segments[self._first_keys[number]]
