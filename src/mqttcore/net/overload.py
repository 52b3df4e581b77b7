"""When the event loop cannot keep up: measured by how late a regular call comes."""

import logging

__all__ = ["OverloadWatch"]

log = logging.getLogger("mqttcore.net")

_LATE_CALLS = 3  # in a row: one slow callback is no overload
_GOOD_CALLS = 10


class OverloadWatch:
    """Told of every tick, it says whether new work should be refused. lag_ms 0: never."""

    def __init__(self, lag_ms: int, interval_s: float) -> None:
        self.lag_ms = lag_ms
        self.last_lag_ms = 0
        self._interval_s = interval_s
        self._due_s: float | None = None
        self._late = 0
        self._good = 0
        self._is_overloaded = False

    def is_overloaded(self, now_s: float) -> bool:
        """Take note of a tick at *now_s* (monotonic) and say how things stand."""
        self.last_lag_ms = 0 if self._due_s is None else max(0, int((now_s - self._due_s) * 1000))
        self._due_s = now_s + self._interval_s
        is_late = 0 < self.lag_ms <= self.last_lag_ms
        self._late = self._late + 1 if is_late else 0
        self._good = 0 if is_late else self._good + 1
        if not self._is_overloaded and self._late >= _LATE_CALLS:
            self._is_overloaded = True
            log.error("overloaded: the event loop lags by %d ms; new clients are refused", self.last_lag_ms)
        elif self._is_overloaded and self._good >= _GOOD_CALLS:
            self._is_overloaded = False
            log.warning("no longer overloaded: new clients are taken")
        return self._is_overloaded
