"""Loss of power for a process: what it wrote and did not sync is taken back, wholly or by the sector.

`drivers/power.c`, preloaded, notes what stood in the files before. After the process is dead, `lose` plays the notes:
a page (4 KiB) that was written since the last sync of its file may be as it was, as it should be, or torn. A page whose
sync failed is as it was, until it is written again: that is what Linux may do, and why nothing can be assumed then.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

DRIVER = Path(__file__).parent / "drivers" / "power.c"
PAGE = 4096
SECTOR = 512
_NOTE = struct.Struct("<IIQQQQ")
_CONTROL = struct.Struct("<4i")
_WROTE, _CUT, _SYNCED, _FAILED, _REMOVED = 1, 2, 3, 4, 5


def build(folder: Path) -> Path:
    """Compile the driver; AssertionError with what the compiler says when it does not."""
    library = folder / "power.so"
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    command = [*compiler.split(), "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(DRIVER), "-ldl"]
    if not shutil.which(command[0]):
        command[0] = "cc"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


@dataclass
class _File:
    """What is on the disk where that is not what is in the file: page number -> content, size in bytes.

    size: None: as it is. cut: what an unsynced truncation took away, and the size before. It is undone as a whole, with
    all that came after it, or not at all: file systems keep the order of changes to what a file consists of.
    """

    unsynced: dict[int, bytes] = field(default_factory=dict)
    lost: dict[int, bytes] = field(default_factory=dict)
    size: int | None = None
    cut: tuple[dict[int, bytes], int] | None = None


class Power:
    """The disk below one folder of one process at a time."""

    def __init__(self, library: Path, watched: Path, own: Path) -> None:
        own.mkdir(exist_ok=True)
        self._journal = own / "journal"
        self._control = own / "control"
        self._control.write_bytes(bytes(_CONTROL.size))
        self.environment = {
            "LD_PRELOAD": str(library),
            "POWER_FOLDER": f"{watched.resolve()}/",
            "POWER_JOURNAL": str(self._journal),
            "POWER_CONTROL": str(self._control),
        }

    def set(self, *, sync_errno: int = 0, write_errno: int = 0, sync_delay_s: float = 0.0) -> None:
        """Have syncs and writes fail with these errors from now on, or take longer; 0: as they are."""
        with self._control.open("r+b") as control:
            control.write(struct.pack("<3i", sync_errno, write_errno, round(sync_delay_s * 1e6)))

    @property
    def failures(self) -> int:
        """Calls that were made to fail."""
        return int(_CONTROL.unpack(self._control.read_bytes())[3])

    def forget(self) -> None:
        """Begin anew: the process that comes finds everything on the disk."""
        if self._journal.exists():
            os.truncate(self._journal, 0)  # who is to be forked from a preloaded process has it open already

    def lose(self, rng: random.Random) -> int:
        """Take back what the dead process did not sync; returns how many pages were changed."""
        files = self._replayed()
        self.forget()
        return sum(_restore(path, file, rng) for path, file in files.items() if path.exists())

    def _replayed(self) -> dict[Path, _File]:
        data = self._journal.read_bytes() if self._journal.exists() else b""
        files: dict[Path, _File] = {}
        at = 0
        while at + _NOTE.size <= len(data):
            kind, path_size, offset, extent, before_size, size = _NOTE.unpack_from(data, at)
            begin = at + _NOTE.size + path_size
            if begin + before_size > len(data):
                break  # killed within the note: what it announces did not happen
            path = Path(data[at + _NOTE.size : begin].decode())
            before = data[begin : begin + before_size].ljust(extent, b"\0")
            _play(files.setdefault(path, _File()), kind, offset, before, size)
            at = begin + before_size
        return files


def _play(file: _File, kind: int, offset: int, before: bytes, size: int) -> None:
    if kind in (_SYNCED, _REMOVED):
        file.unsynced.clear()
        file.size = file.cut = None
        if kind == _REMOVED:
            file.lost.clear()
        return
    if kind == _FAILED:
        file.lost.update(file.unsynced)
        file.unsynced.clear()
        return
    if file.size is None:
        file.size = size
    pages = {(offset + at) // PAGE: before[at : at + PAGE] for at in range(0, len(before), PAGE)}
    for number, content in pages.items():
        if number in file.lost:  # written again: the next sync takes it along
            file.unsynced[number] = file.lost.pop(number)
        else:
            file.unsynced.setdefault(number, content)
    if kind == _CUT:
        if file.cut is None:
            file.cut = dict(file.unsynced), file.size
        for number in pages:
            del file.unsynced[number]
        file.size = None


def _restore(path: Path, file: _File, rng: random.Random) -> int:
    fates = dict.fromkeys(file.lost, "lost")
    fates.update((number, rng.choice(("kept", "lost", "torn"))) for number in file.unsynced)
    contents, size = {**file.unsynced, **file.lost}, file.size if rng.random() < 0.5 else None
    if file.cut is not None and rng.random() < 0.5:
        contents = {**contents, **file.cut[0]}
        fates = dict.fromkeys(contents, "lost")
        size = file.cut[1]
    changed = 0
    with path.open("r+b") as target:
        for number, before in contents.items():
            if fates[number] == "kept":
                continue
            for sector in range(0, PAGE, SECTOR):
                if fates[number] == "lost" or rng.random() < 0.5:
                    target.seek(number * PAGE + sector)
                    target.write(before[sector : sector + SECTOR])
            changed += 1
        if size is not None:
            target.truncate(size)
    return changed
