"""A file that lines are added to, and that is put aside when it has grown."""

import contextlib
import os
from pathlib import Path

__all__ = ["RotatedFile"]

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)  # Windows: bytes as they are


class RotatedFile:
    """`path`, and behind it `path.1` (the newest of the old) to `path.N`; mode 0600. Its methods wait for the disk.

    bytes_maximum: from which on the file is put aside; 0: never. Raises OSError.
    """

    def __init__(self, path: str | os.PathLike[str], *, bytes_maximum: int, kept: int, syncs: bool) -> None:
        self.path = Path(path)
        self.bytes_maximum = bytes_maximum
        self.kept = kept
        self.syncs = syncs
        self.rotations = 0
        self._descriptor = self._opened()

    def write(self, data: bytes) -> None:
        """Add whole lines; what a failed write left behind is taken off again."""
        if self._was_moved():
            os.close(self._descriptor)  # by logrotate, say
            self._descriptor = self._opened()
        size = os.fstat(self._descriptor).st_size
        if self.bytes_maximum and size and size + len(data) > self.bytes_maximum:
            self._rotate()
            size = 0
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            if self.syncs:
                os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _opened(self) -> int:
        return os.open(self.path, _APPEND, 0o600)

    def _was_moved(self) -> bool:
        try:
            return not os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotate(self) -> None:
        os.close(self._descriptor)
        for number in range(self.kept, 0, -1):
            source = self._old(number - 1) if number > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                source.replace(self._old(number))
        if not self.kept:
            self.path.unlink(missing_ok=True)
        self._descriptor = self._opened()
        self.rotations += 1
