"""Requests that were seen, so that none counts twice.

The memory is bounded, and shared: a key may hold as many nonces as are still free. So one key by itself gets half of
it, two that want all they can get a third each, and who holds few always finds room.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import Literal

__all__ = ["Nonces"]

_FORGOTTEN_AT_ONCE = 1000  # by one request, so that none has to wait while a million are


class Nonces:
    """The nonces of signed requests, for as long as their timestamps are good. maximum: how many are remembered."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._seen: set[bytes] = set()
        # Timestamps are whole seconds, so many nonces of a key end together: (when, key) -> they.
        self._ending: dict[tuple[int, str], list[bytes]] = {}
        self._ends: list[tuple[int, str]] = []  # a heap of those
        self._held: dict[str, int] = {}  # access key id -> how many are its; never 0

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._seen)

    @property
    def largest_share(self) -> int:
        """How many are of the key that holds most."""
        return max(self._held.values(), default=0)

    def was_seen(self, access_key_id: str, nonce: str) -> bool:
        """Say whether a nonce is remembered."""
        return _digest(access_key_id, nonce) in self._seen

    def lacks_room(self, access_key_id: str, now_ms: int) -> Literal["", "key", "all"]:
        """Forget what is over, and say who has no room left: a request then cannot be taken, as it might come again.

        all: nobody has; key: this one holds its share.
        """
        self._forget(now_ms)
        free = self._maximum - len(self._seen)
        if free <= 0:
            return "all"
        return "key" if self._held.get(access_key_id, 0) >= free else ""

    def take(self, access_key_id: str, nonce: str, *, until_ms: int) -> None:
        """Remember a nonce, not seen before, until its timestamp is no longer good."""
        digest = _digest(access_key_id, nonce)
        end = (until_ms, access_key_id)
        if end not in self._ending:
            self._ending[end] = []
            heapq.heappush(self._ends, end)
        self._ending[end].append(digest)
        self._seen.add(digest)
        self._held[access_key_id] = self._held.get(access_key_id, 0) + 1

    def _forget(self, now_ms: int) -> None:
        left = _FORGOTTEN_AT_ONCE
        while left and self._ends and self._ends[0][0] < now_ms:
            end = self._ends[0]
            digests, access_key_id = self._ending[end], end[1]
            gone = digests[-left:]
            del digests[-left:]
            left -= len(gone)
            self._seen.difference_update(gone)
            self._held[access_key_id] -= len(gone)
            if not self._held[access_key_id]:
                del self._held[access_key_id]
            if not digests:
                heapq.heappop(self._ends)
                del self._ending[end]


def _digest(access_key_id: str, nonce: str) -> bytes:
    return hashlib.blake2b(f"{access_key_id}\n{nonce}".encode(errors="replace"), digest_size=16).digest()
