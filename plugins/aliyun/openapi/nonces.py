"""Requests that were seen, so that none counts twice."""

from __future__ import annotations

import hashlib
import heapq

__all__ = ["Nonces"]


class Nonces:
    """The nonces of signed requests, for as long as their timestamps are good. maximum: how many are remembered."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._seen: set[bytes] = set()
        self._ends: list[tuple[int, bytes]] = []  # a heap

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._seen)

    def is_full(self, now_ms: int) -> bool:
        """Forget what is over, and say whether there is no room: then nothing can be taken, as it might come again."""
        while self._ends and self._ends[0][0] < now_ms:
            self._seen.discard(heapq.heappop(self._ends)[1])
        return len(self._seen) >= self._maximum

    def take(self, access_key_id: str, nonce: str, *, until_ms: int) -> bool:
        """Remember a nonce until its timestamp is no longer good; False when it was seen before."""
        digest = hashlib.blake2b(f"{access_key_id}\n{nonce}".encode(errors="replace"), digest_size=16).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        heapq.heappush(self._ends, (until_ms, digest))
        return True
