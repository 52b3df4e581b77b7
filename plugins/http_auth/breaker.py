"""A breaker: a service that keeps failing is not asked for a while."""

__all__ = ["Breaker"]


class Breaker:
    """Opens after *failures_maximum* failures in a row, for *open_s*; then lets one request through to try.

    Times are seconds of a monotonic clock that the caller gives.
    """

    def __init__(self, *, failures_maximum: int, open_s: float) -> None:
        self.failures_maximum = failures_maximum
        self.open_s = open_s
        self._failures = 0
        self._opened_s: float | None = None
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether requests are held back."""
        return self._opened_s is not None

    def allows(self, now_s: float) -> bool:
        """Say whether a request may go out; whoever is allowed says how it went."""
        if self._opened_s is None:
            return True
        if now_s - self._opened_s < self.open_s or self._is_trying:
            return False
        self._is_trying = True
        return True

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0
        self._opened_s = None
        self._is_trying = False

    def failed(self, now_s: float) -> None:
        """Count a failure."""
        self._failures += 1
        self._is_trying = False
        if self._opened_s is not None or self._failures >= self.failures_maximum:
            self._opened_s = now_s

    def cancelled(self) -> None:
        """Forget a request that was given up: it says nothing about the service."""
        self._is_trying = False
