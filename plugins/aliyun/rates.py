"""How often a caller may ask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rates"]


class Rates:
    """A token bucket for each access key. burst: what it holds, one at least; None: a second's worth.

    Only keys of the registry whose signature was right come here, so there are no more buckets than keys.
    """

    def __init__(
        self, per_s: float, *, burst: float | None = None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s if burst is None else burst)
        self._now_s = now_s
        self._buckets: dict[str, tuple[float, float]] = {}  # what is in it, and when that was

    def take(self, access_key_id: str) -> bool:
        """Take one; False when there is none."""
        now_s = self._now_s()
        held, then_s = self._buckets.get(access_key_id, (self._burst, now_s))
        held = min(self._burst, held + (now_s - then_s) * self._per_s)
        has_one = held >= 1
        self._buckets[access_key_id] = (held - 1 if has_one else held, now_s)
        return has_one
