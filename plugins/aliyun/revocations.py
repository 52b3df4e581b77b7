"""Tokens that were revoked, each remembered until it would have expired."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from .records import Revocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from .table import Table

__all__ = ["Revocations"]


class Revocations:
    """Ids of revoked tokens. when_revoked: called with the token's id for each new one."""

    def __init__(self, table: Table[Revocation], now_ms: Callable[[], int]) -> None:
        self._table = table
        self._now_ms = now_ms
        self._by_expiry: list[tuple[int, str]] | None = None  # a heap, made when it is first asked for
        self.when_revoked: list[Callable[[bytes], object]] = []

    @property
    def tables(self) -> tuple[Table[Revocation], ...]:
        """The tables that it keeps."""
        return (self._table,)

    def __contains__(self, token_id: bytes) -> bool:
        """Say whether a token was revoked."""
        return (token_id.hex(),) in self._table

    def add(self, token_id: bytes, expires_ms: int) -> None:
        """Revoke a token. RegistryError when too many are remembered: none of them may be forgotten."""
        self.forget_expired()
        revocation = Revocation(token_id=token_id.hex(), expires_ms=expires_ms)
        if (revocation.token_id,) in self._table:
            return
        self._table.put(revocation)
        heapq.heappush(self._heap(), (expires_ms, revocation.token_id))
        for call in self.when_revoked:
            call(token_id)

    def forget_expired(self) -> None:
        """Drop those of tokens that have expired by now."""
        heap, now_ms = self._heap(), self._now_ms()
        while heap and heap[0][0] <= now_ms:
            self._table.remove(heapq.heappop(heap)[1])

    def _heap(self) -> list[tuple[int, str]]:
        if self._by_expiry is None:
            self._by_expiry = [(one.expires_ms, one.token_id) for one in self._table]
            heapq.heapify(self._by_expiry)
        return self._by_expiry
