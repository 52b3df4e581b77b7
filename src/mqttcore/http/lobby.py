"""The connections of a listener that speak HTTP: bounded, in all and per address, apart from its WebSocket clients.

A connection is here until MQTT takes it over. Over the bound, who has waited longest goes, if it was for more than a
moment: for a request to come whole, for the next one, or for an answer to be made or read. Who showed a good API key
does not go for others.
"""

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from mqttcore.net.admission import address_key
from mqttcore.net.descriptors import descriptors_maximum

if TYPE_CHECKING:
    from mqttcore.config import Listener
    from mqttcore.net.listeners import BoundListener

__all__ = ["Lobby"]

_PATIENCE_S = 1.0  # who has waited for less does not have to make room for another
_MAXIMUM = 4096  # at some 6 KiB each while half open, without TLS
_PART_OF_DESCRIPTORS = 4
_PART_OF_ADDRESS = 4


class _Guest(Protocol):
    def cut(self) -> None: ...


class _Address:
    __slots__ = ("guests", "waiting")

    def __init__(self) -> None:
        self.guests = 0
        self.waiting: OrderedDict[_Guest, float] = OrderedDict()


class Lobby:
    """Bounds those of one listener, and counts there."""

    def __init__(self, listener: "BoundListener", settings: "Listener") -> None:
        self._listener = listener
        maximum, per_address = settings.http_connections_maximum, settings.http_connections_per_address
        if maximum is None:
            descriptors = descriptors_maximum()
            part = _MAXIMUM if descriptors is None else max(1, descriptors // _PART_OF_DESCRIPTORS)
            maximum = min(_MAXIMUM, part)
        self.maximum = maximum
        self.per_address = max(1, maximum // _PART_OF_ADDRESS) if per_address is None else per_address
        self._here: dict[_Guest, str | None] = {}  # and its address, as it is counted
        self._waiting: OrderedDict[_Guest, float] = OrderedDict()  # and since when; who began first stands first
        self._addresses: dict[str, _Address] = {}  # those with guests

    def enter(self, guest: _Guest, peer: object) -> bool:
        """Count a connection; False: there is no room. peer: the client's address, whoever brought it."""
        key = address_key(peer)
        address = None if key is None else self._addresses.get(key)
        if address is not None and address.guests >= self.per_address and not self._make_room(address.waiting):
            return False
        if len(self._here) >= self.maximum and not self._make_room(self._waiting):
            return False
        self._here[guest] = key
        if key is not None:  # again: it may have made room by being cut
            self._addresses.setdefault(key, _Address()).guests += 1
        self._listener.http_connections += 1
        self.waits(guest)
        return True

    def waits(self, guest: _Guest) -> None:
        """Be told that one waits from now on: it is the last that makes room."""
        if guest not in self._here:
            return
        now_s = time.monotonic()
        for waiting in self._lines(guest):
            waiting[guest] = now_s
            waiting.move_to_end(guest)

    def vouch(self, guest: _Guest) -> None:
        """Let one stay until it waits again."""
        for waiting in self._lines(guest):
            waiting.pop(guest, None)

    def leave(self, guest: _Guest) -> None:
        """Uncount a connection, if it is here."""
        self.vouch(guest)
        if guest not in self._here:
            return
        key = self._here.pop(guest)
        self._listener.http_connections -= 1
        if key is not None:
            address = self._addresses[key]
            address.guests -= 1
            if not address.guests:
                del self._addresses[key]

    def _lines(self, guest: _Guest) -> "tuple[OrderedDict[_Guest, float], ...]":
        key = self._here.get(guest)
        return (self._waiting,) if key is None else (self._waiting, self._addresses[key].waiting)

    def _make_room(self, waiting: "OrderedDict[_Guest, float]") -> bool:
        first = next(iter(waiting), None)
        if first is None or time.monotonic() - waiting[first] < _PATIENCE_S:
            self._listener.http_refused += 1
            return False
        self._listener.http_evicted += 1
        self.leave(first)
        first.cut()
        return True
