"""The register of who is online: every question is answered in O(1)."""

from __future__ import annotations

from typing import NamedTuple

from .names import group_of

__all__ = ["UNKNOWN", "Counts", "OnlineRegister"]

UNKNOWN = -1


class Counts(NamedTuple):
    """Clients with a connection, and clients whose sessions persist, connected or not; -1: unknown."""

    online: int
    persistent: int


class _Client:
    __slots__ = ("connections", "filters", "is_persistent")

    def __init__(self) -> None:
        self.connections: set[str] = set()
        self.filters: set[str] = set()
        self.is_persistent = False


class OnlineRegister:
    """Clients with a connection or a lasting session, and how many there are by group and by filter.

    clients_maximum, filters_maximum: what does not fit is not in the register, and from then on what is not in it is
    unknown.
    """

    def __init__(self, *, clients_maximum: int, filters_maximum: int) -> None:
        self._clients: dict[str, _Client] = {}
        self._clients_maximum = clients_maximum
        self._filters_maximum = filters_maximum
        self._groups: dict[str, list[int]] = {}
        self._filters: dict[str, list[int]] = {}
        self.has_all_clients = True
        self.has_all_filters = True

    def __len__(self) -> int:
        """Return how many clients are in it."""
        return len(self._clients)

    @property
    def filters(self) -> int:
        """How many filters are counted."""
        return len(self._filters)

    # --- questions --------------------------------------------------------------------------------------------------

    def connections(self, client_id: str) -> int:
        """Return how many connections a client has; 0: it is offline, -1: unknown."""
        client = self._clients.get(client_id)
        if client is not None:
            return len(client.connections)
        return 0 if self.has_all_clients else UNKNOWN

    def of_group(self, group_id: str) -> Counts:
        """Return the counts of a group's clients."""
        if group_id not in self._groups and not self.has_all_clients:
            return Counts(UNKNOWN, UNKNOWN)
        return Counts(*self._groups.get(group_id, (0, 0)))

    def of_filter(self, topic_filter: str) -> Counts:
        """Return the counts of clients that subscribed with exactly this filter."""
        if topic_filter not in self._filters and not (self.has_all_filters and self.has_all_clients):
            return Counts(UNKNOWN, UNKNOWN)
        return Counts(*self._filters.get(topic_filter, (0, 0)))

    # --- what happens -----------------------------------------------------------------------------------------------

    def connected(self, client_id: str, connection_id: str, *, is_persistent: bool, is_resumed: bool) -> None:
        """Take note of a connection. is_persistent: its session outlives it; is_resumed: it had one."""
        client = self._clients.get(client_id)
        if client is None:
            if (client := self._new(client_id)) is None:
                return
        elif not is_resumed:
            self._clear(client)
        before = self._state(client)
        client.connections.add(connection_id)
        client.is_persistent = is_persistent
        self._changed(client_id, client, before)

    def closed(self, client_id: str, connection_id: str) -> None:
        """Take note that a connection is gone."""
        client = self._clients.get(client_id)
        if client is None or connection_id not in client.connections:
            return
        before = self._state(client)
        client.connections.discard(connection_id)
        self._changed(client_id, client, before)
        if not client.connections and not client.is_persistent:
            self._drop(client_id, client)

    def session_ended(self, client_id: str) -> None:
        """Take note that a session is gone with its subscriptions."""
        client = self._clients.get(client_id)
        if client is None:
            return
        self._clear(client)
        if not client.connections:
            self._drop(client_id, client)

    def subscribed(self, client_id: str, topic_filter: str) -> None:
        """Take note of a subscription."""
        client = self._clients.get(client_id)
        if client is not None and topic_filter not in client.filters:
            self._subscribe(client, topic_filter)

    def unsubscribed(self, client_id: str, topic_filter: str) -> None:
        """Take note that a subscription was removed."""
        client = self._clients.get(client_id)
        if client is not None and topic_filter in client.filters:
            client.filters.discard(topic_filter)
            self._count(self._filters, topic_filter, self._state(client), -1)

    def stored(self, client_id: str, filters: tuple[str, ...]) -> None:
        """Take note of a session that was there before the register."""
        client = self._new(client_id)
        if client is None:
            return
        before = self._state(client)
        client.is_persistent = True
        self._changed(client_id, client, before)
        for topic_filter in filters:
            self._subscribe(client, topic_filter)

    # ----------------------------------------------------------------------------------------------------------------

    def _new(self, client_id: str) -> _Client | None:
        if len(self._clients) >= self._clients_maximum:
            self.has_all_clients = False
            return None
        client = self._clients[client_id] = _Client()
        return client

    def _subscribe(self, client: _Client, topic_filter: str) -> None:
        if topic_filter not in self._filters and len(self._filters) >= self._filters_maximum:
            self.has_all_filters = False
            return
        client.filters.add(topic_filter)
        self._count(self._filters, topic_filter, self._state(client), 1)

    def _clear(self, client: _Client) -> None:
        before = self._state(client)
        for topic_filter in client.filters:
            self._count(self._filters, topic_filter, before, -1)
        client.filters.clear()

    def _drop(self, client_id: str, client: _Client) -> None:
        self._clear(client)
        before = self._state(client)
        client.is_persistent = False
        self._changed(client_id, client, before)
        del self._clients[client_id]

    @staticmethod
    def _state(client: _Client) -> tuple[int, int]:
        return (1 if client.connections else 0, 1 if client.is_persistent else 0)

    def _changed(self, client_id: str, client: _Client, before: tuple[int, int]) -> None:
        now = self._state(client)
        if now == before:
            return
        change = (now[0] - before[0], now[1] - before[1])
        group_id = group_of(client_id)
        if group_id is not None:
            self._count(self._groups, group_id, change, 1)
        for topic_filter in client.filters:
            self._count(self._filters, topic_filter, change, 1)

    @staticmethod
    def _count(counters: dict[str, list[int]], name: str, change: tuple[int, int], sign: int) -> None:
        if change == (0, 0):
            return
        counts = counters.setdefault(name, [0, 0])
        counts[0] += sign * change[0]
        counts[1] += sign * change[1]
        if counts == [0, 0]:
            del counters[name]
