"""How much memory the process has, and may have: read from the system, and judged with some inertia.

What counts is resident memory, the figure that `ps` and the kernel's out-of-memory killer go by. It falls only when the
allocator gives pages back, which glibc's does by itself only at the end of its heap: so it is asked to, while it is
short (`trim`).
"""

import contextlib
import ctypes
import logging
import os
import sys
import time
from pathlib import Path

from mqttcore.errors import ConfigError

__all__ = ["MemoryWatch", "available_bytes", "resident_bytes"]

log = logging.getLogger("mqttcore.net")

_SHARE = 0.8  # the rest is for the kernel's socket buffers and page cache, which count for the control group as well
_NEAR = 0.75
_SHORT, _SHORT_ENDS = 0.9, 0.85
_FULL, _FULL_ENDS = 1.0, 0.95
_TRIM_EVERY_S = 10.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
_LIMIT_FILES = {"": "memory.max", "memory": "memory.limit_in_bytes"}  # of control groups, version 2 and 1


class MemoryWatch:
    """Told to look from time to time, it says whether memory is short, or full.

    maximum_bytes: what resident memory should not exceed; 0: it is never short. None: 80 % of what there is. Raises
    ConfigError for a maximum where the system does not say what is resident.
    """

    def __init__(self, maximum_bytes: int | None) -> None:
        self.maximum_bytes = 0
        self.resident_bytes = 0
        self.is_near = False  # it may be short any moment: worth looking more often
        self.is_short = False  # over 90 % of it, and until it is below 85 %
        self.is_full = False  # over all of it, and until it is below 95 %
        self._trimmed_s = 0.0
        self.set_maximum(maximum_bytes)

    def set_maximum(self, maximum_bytes: int | None) -> None:
        """Take another maximum, as the first one was given. Raises ConfigError, and changes nothing, as then."""
        is_readable = resident_bytes() is not None
        if maximum_bytes and not is_readable:
            raise ConfigError("memory_maximum_bytes", "what is resident cannot be told here: install psutil")
        if maximum_bytes is None:
            maximum_bytes = int((available_bytes() or 0) * _SHARE) if is_readable else 0
        self.maximum_bytes = maximum_bytes

    def look(self) -> bool:
        """Read how much memory is resident; return whether it became short or full, or ceased to be."""
        found = resident_bytes()
        if found is not None:  # else out of descriptors: what was read last is the best guess
            self.resident_bytes = found
        before = self.is_short, self.is_full
        share = self.resident_bytes / self.maximum_bytes if self.maximum_bytes else 0.0
        self.is_near = share >= _NEAR
        self.is_short = share >= (_SHORT_ENDS if self.is_short else _SHORT)
        self.is_full = share >= (_FULL_ENDS if self.is_full else _FULL)
        if self.is_short and time.monotonic() >= self._trimmed_s + _TRIM_EVERY_S:
            _trim()
            self._trimmed_s = time.monotonic()  # from its end: it may take a while
        return before != (self.is_short, self.is_full)

    def metrics(self) -> dict[str, int]:
        """Return gauges: what is resident and may be, in bytes, and how that is judged."""
        return {
            "memory_resident_bytes": self.resident_bytes,
            "memory_maximum_bytes": self.maximum_bytes,
            "memory_short": int(self.is_short),
            "memory_full": int(self.is_full),
        }


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None: it cannot be told now, or never on this system."""
    if sys.platform == "linux":
        try:
            return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
        except OSError:
            return None
    try:
        import psutil
    except (ImportError, NotImplementedError):  # the latter: psutil knows this system as little as we do
        return None
    return int(psutil.Process().memory_info().rss)


def available_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what this process may have at most: the machine's memory, or less by its control groups; None: unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES)
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            controller = next((one for one in controllers.split(",") if one in _LIMIT_FILES), None)
            if controller is None:
                continue
            top = groups / controller
            here = top / path.lstrip("/")
            for folder in (here, *here.parents):  # the least on the way up counts
                with contextlib.suppress(OSError, ValueError):  # not there, or "max"
                    found.append(int((folder / _LIMIT_FILES[controller]).read_text()))
                if folder == top:
                    break
    return min(found, default=None)


def _trim() -> None:
    # Other C libraries have no such function, and give back by themselves.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
