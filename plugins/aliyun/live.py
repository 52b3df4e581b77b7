"""Who is logged in, and what becomes due for them: notices, expiries, tokens that were revoked."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .gate import Login
    from .tokens import Token

__all__ = ["Deadlines", "LiveLogins"]

_SLEEP_MAXIMUM_S = 60.0  # the wall clock may be set meanwhile


class LiveLogins:
    """Logins of connected clients: by connection, by client, by token; bounded by *maximum* connections.

    A client that is taken over has two connections for a moment: the newer counts.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._by_connection: dict[str, Login] = {}
        self._by_client: dict[str, Login] = {}
        self._by_token: dict[bytes, dict[str, Login]] = {}

    def __len__(self) -> int:
        """Return how many connections are logged in."""
        return len(self._by_connection)

    @property
    def is_full(self) -> bool:
        """Whether another one must be refused."""
        return len(self._by_connection) >= self.maximum

    def add(self, login: Login) -> None:
        """Take a login in."""
        self._by_connection[login.connection_id] = login
        self._by_client[login.client_id] = login
        for token in login.tokens.values():
            self._by_token.setdefault(token.token_id, {})[login.connection_id] = login

    def remove(self, connection_id: str) -> None:
        """Forget a connection; harmless when it is not known."""
        login = self._by_connection.pop(connection_id, None)
        if login is None:
            return
        if self._by_client.get(login.client_id) is login:
            del self._by_client[login.client_id]
        for token in login.tokens.values():
            self._drop_token(token.token_id, connection_id)

    def by_connection(self, connection_id: str) -> Login | None:
        """Return the login of a connection."""
        return self._by_connection.get(connection_id)

    def by_client(self, client_id: str) -> Login | None:
        """Return the login of a client's newest connection."""
        return self._by_client.get(client_id)

    def with_token(self, token_id: bytes) -> list[Login]:
        """Return the logins that rest on a token."""
        return list(self._by_token.get(token_id, {}).values())

    def where(self, is_one: Callable[[Login], bool]) -> Iterable[Login]:
        """Return the logins for which *is_one*; looks at all of them."""
        return [login for login in self._by_connection.values() if is_one(login)]

    def replace_token(self, login: Login, token_type: str, token: Token) -> None:
        """Put a token in place of that of the same type."""
        before = login.tokens.get(token_type)
        login.tokens[token_type] = token
        if before is not None and all(other.token_id != before.token_id for other in login.tokens.values()):
            self._drop_token(before.token_id, login.connection_id)
        self._by_token.setdefault(token.token_id, {})[login.connection_id] = login

    def _drop_token(self, token_id: bytes, connection_id: str) -> None:
        holders = self._by_token.get(token_id)
        if holders is not None:
            holders.pop(connection_id, None)
            if not holders:
                del self._by_token[token_id]


class _Deadline(NamedTuple):
    due_ms: int
    number: int  # keeps those of one moment in order
    connection_id: str
    kind: str
    token_type: str
    token_id: bytes


class Deadlines:
    """What is due when, by the wall clock: one heap, one timer.

    call: gets connection id, kind, token type and token id of each that is due; it finds out whether they still hold.
    Bounded by the caller: as many as there are tokens of logins, until they are due; those of logins that are gone are
    dropped when they are more than half of all.
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        call: Callable[[str, str, str, bytes], None],
        is_alive: Callable[[str, str, bytes], bool],
    ) -> None:
        self._now_ms = now_ms
        self._call = call
        self._is_alive = is_alive
        self._heap: list[_Deadline] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = 0
        self._swept = 64

    def __len__(self) -> int:
        """Return how many are waiting."""
        return len(self._heap)

    def add(self, due_ms: int, connection_id: str, kind: str, token_type: str = "", token_id: bytes = b"") -> None:
        """Have it called at *due_ms*; in the loop's next turn when that is past."""
        heapq.heappush(self._heap, _Deadline(due_ms, next(self._numbers), connection_id, kind, token_type, token_id))
        if len(self._heap) >= 2 * self._swept:
            self._heap = [one for one in self._heap if self._is_alive(one.connection_id, one.token_type, one.token_id)]
            heapq.heapify(self._heap)
            self._swept = max(64, len(self._heap))
        self._arm()

    def close(self) -> None:
        """Call nothing any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if not self._heap:
            return
        due_ms = self._heap[0].due_ms
        if self._timer is not None:
            if self._timer_due_ms <= due_ms:
                return
            self._timer.cancel()
        self._timer_due_ms = due_ms
        delay_s = min(max(0.0, (due_ms - self._now_ms()) / 1000), _SLEEP_MAXIMUM_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_ms = self._now_ms()
        while self._heap and self._heap[0].due_ms <= now_ms:
            one = heapq.heappop(self._heap)
            self._call(one.connection_id, one.kind, one.token_type, one.token_id)
        self._arm()
