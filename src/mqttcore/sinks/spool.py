"""Records on disk that a sink has not taken yet: a queue of segment files, bounded, safe against torn writes.

    00000000000000000001.spool     records: length, CRC-32, msgpack
    00000000000000000002.spool     the newest; written at its end
    position                       segment and offset of the first record that was not taken

A record that was cut off by a crash ends its segment; everything before it is read. Whatever is taken twice because the
crash came before `position` was written has been delivered at least once: that is the promise.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mqttcore.private_file import write_private_file
from mqttcore.sinks.records import SinkRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Spool"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # Windows: bytes as they are
_HEADER = struct.Struct("<II")
_SUFFIX = ".spool"


class Spool:
    """A bounded queue of records in a folder of its own. Its methods wait for the disk.

    bytes_maximum: of all segments; `append` says False, and keeps nothing, when they would be more. Raises OSError.
    """

    def __init__(self, folder: str | os.PathLike[str], *, bytes_maximum: int, segment_bytes: int = 1_048_576) -> None:
        self.folder = Path(folder)
        self.bytes_maximum = bytes_maximum
        self.segment_bytes = min(segment_bytes, max(bytes_maximum // 4, 4096))
        self.damaged = 0  # segments whose end could not be read
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(SinkRecord)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sizes = {int(path.stem): path.stat().st_size for path in sorted(self.folder.glob(f"*{_SUFFIX}"))}
        self._segment, self._offset = self._read_position()
        self._drop_read_segments()
        self._writer: int | None = None
        self._taken: tuple[int, int] | None = None

    @property
    def bytes_held(self) -> int:
        """Bytes that wait to be taken."""
        return sum(self._sizes.values()) - (self._offset if self._segment in self._sizes else 0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return self.bytes_held == 0

    def append(self, records: Sequence[SinkRecord]) -> bool:
        """Keep records at the end; when it returns True they are on disk."""
        data = self._encoded(records)
        if self.bytes_held + len(data) > self.bytes_maximum:
            return False
        if self._writer is None or self._sizes[self._newest] >= self.segment_bytes:
            self._begin_segment()
        assert self._writer is not None
        try:
            _write_all(self._writer, data)
        except OSError:
            self._give_up_segment()
            raise
        self._sizes[self._newest] += len(data)
        return True

    def prepend(self, records: Sequence[SinkRecord]) -> None:
        """Keep records before all others, over the limit if need be: they had been taken from it, or never came to
        it.
        """
        self.close()
        path = self._path(self._segment)
        rest = path.read_bytes()[self._offset :] if self._segment in self._sizes else b""
        data = self._encoded(records) + rest
        self._go_to(self._segment, 0)  # first: a crash now delivers some twice, the other way round it would lose some
        write_private_file(path, data)
        self._sizes[self._segment] = len(data)
        self._sizes = dict(sorted(self._sizes.items()))

    def take(self, count_maximum: int, bytes_maximum: int) -> list[SinkRecord]:
        """Return the oldest records, at least one when there is one; they stay until `taken` is called."""
        found: list[SinkRecord] = []
        size = 0
        self._taken = self._segment, self._offset
        for number in self._sizes:
            read_to = self._offset if number == self._segment else 0
            for record, end in self._records(number, read_to):
                if found and (len(found) >= count_maximum or size + end - read_to > bytes_maximum):
                    return found
                found.append(record)
                size += end - read_to
                read_to = end
                self._taken = number, end
            if number != self._newest or self._writer is None:  # nothing will be written to it any more
                self.damaged += read_to < self._sizes[number]
                self._taken = number + 1, 0
        return found

    def taken(self) -> None:
        """Forget what the last `take` returned: it was delivered."""
        if self._taken is None:
            return
        self._go_to(*self._taken)
        self._taken = None
        self._drop_read_segments()

    def close(self) -> None:
        """Close the files; what waits, waits for the next time."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    @property
    def _newest(self) -> int:
        return max(self._sizes, default=self._segment)

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:020}{_SUFFIX}"

    def _read_position(self) -> tuple[int, int]:
        try:
            segment, offset = (self.folder / "position").read_text().split()
            return int(segment), int(offset)
        except (OSError, ValueError):  # none yet, or damaged: from the oldest on, rather twice than never
            return min(self._sizes, default=1), 0

    def _drop_read_segments(self) -> None:
        for number in [number for number in self._sizes if number < self._segment]:
            self._path(number).unlink(missing_ok=True)
            del self._sizes[number]

    def _begin_segment(self) -> None:
        self.close()
        number = self._newest + 1 if self._sizes else max(self._segment, 1)
        if number == self._segment:
            self._offset = 0
        self._writer = os.open(self._path(number), _NEW, 0o600)
        self._sizes[number] = 0

    def _give_up_segment(self) -> None:
        # What a failed write left behind is unknown: this file ends where it was good, and a new one goes on.
        self.close()
        with contextlib.suppress(OSError):  # if this fails too, the checksum ends the file
            os.truncate(self._path(self._newest), self._sizes[self._newest])

    def _go_to(self, segment: int, offset: int) -> None:
        write_private_file(self.folder / "position", b"%d %d\n" % (segment, offset))
        self._segment, self._offset = segment, offset

    def _encoded(self, records: Sequence[SinkRecord]) -> bytes:
        parts = []
        for record in records:
            body = self._encoder.encode(record)
            parts += [_HEADER.pack(len(body), zlib.crc32(body)), body]
        return b"".join(parts)

    def _records(self, segment: int, offset: int) -> Iterator[tuple[SinkRecord, int]]:
        """Yield the records from *offset* on with the offset behind each, up to the end or the first damage."""
        with self._path(segment).open("rb") as file:
            file.seek(offset)
            data = file.read(self._sizes[segment] - offset)
        at = 0
        while len(data) - at >= _HEADER.size:
            length, checksum = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + _HEADER.size + length]
            if len(body) < length or zlib.crc32(body) != checksum:
                return
            try:
                record = self._decoder.decode(body)
            except msgspec.DecodeError:
                return
            at += _HEADER.size + length
            yield record, offset + at


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)
