"""A clock that tests set ahead: engine, event loop and `time` together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Clock"]

_SECONDS = ("time", "monotonic")
_NANOSECONDS = ("time_ns", "monotonic_ns")


class Clock:
    """Time that goes on as always and can be set ahead; in force between `__enter__` and `__exit__`.

    Meanwhile `time.time`, `time.monotonic` and their `_ns` forms are this clock's, and so are the timers of an asyncio
    loop (not uvloop's). What did `from time import time` before keeps the real one. There can be one at a time.
    """

    def __init__(self) -> None:
        self._ahead_ns = 0
        self._real = {name: getattr(time, name) for name in (*_SECONDS, *_NANOSECONDS)}

    def set_ahead(self, seconds: float) -> None:
        """Let *seconds* pass at once."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._ahead_ns += round(seconds * 1_000_000_000)

    def time(self) -> float:
        """Return this clock's wall time, in seconds since 1970."""
        now_s: float = self._real["time"]()
        return now_s + self._ahead_ns / 1_000_000_000

    def monotonic(self) -> float:
        """Return this clock's monotonic time, in seconds."""
        now_s: float = self._real["monotonic"]()
        return now_s + self._ahead_ns / 1_000_000_000

    def _time_ns(self) -> int:
        now_ns: int = self._real["time_ns"]()
        return now_ns + self._ahead_ns

    def _monotonic_ns(self) -> int:
        now_ns: int = self._real["monotonic_ns"]()
        return now_ns + self._ahead_ns

    def __enter__(self) -> Self:
        """Put it in force."""
        if time.time is not self._real["time"]:
            raise RuntimeError("another Clock is in force")
        time.time, time.monotonic = self.time, self.monotonic
        time.time_ns, time.monotonic_ns = self._time_ns, self._monotonic_ns
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the real one back."""
        for name, function in self._real.items():
            setattr(time, name, function)
