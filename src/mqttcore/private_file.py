"""Files that only their owner may read: credentials, keys, state."""

import os
import stat
import tempfile
from pathlib import Path

__all__ = ["read_private_file", "write_private_file"]


def write_private_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace *path* by a file with *data*, mode 0600: whole or not at all, also when the power fails.

    A symbolic link is followed: its target is replaced. Raises OSError.
    """
    target = Path(path).resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # 0600 by mkstemp's contract
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if os.name == "posix":
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename itself
        finally:
            os.close(directory)


def read_private_file(path: str | os.PathLike[str]) -> tuple[bytes, bool]:
    """Return the bytes of *path*, and whether others than its owner could read them. Raises OSError."""
    with Path(path).open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        return file.read(), os.name == "posix" and bool(mode & (stat.S_IRGRP | stat.S_IROTH))
