"""Clients that connect and disconnect all the time, as two devices with one client id do: refused for a while.

Counted is the pair of client id and address, so that nobody can have a client refused by taking its name elsewhere. The
table is bounded; a full one forgets whom it has not seen for longest.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from mqttcore.constants import ReasonCode
from mqttcore.identity import Refusal
from mqttcore.net.admission import address_key

if TYPE_CHECKING:
    from mqttcore.codec import Connect
    from mqttcore.config import Flapping
    from mqttcore.engine.client_view import ClientView

__all__ = ["FlappingWatch"]

log = logging.getLogger("mqttcore.broker")

_Key = tuple[str, str | None]

_CLIENT_ID_LENGTH = 64  # kept of a longer one, with a digest: 64 KiB each would be gigabytes for a full table


class _Seen:
    __slots__ = ("connects", "since_s")

    def __init__(self, now_s: float) -> None:
        self.since_s = now_s
        self.connects = 0


class FlappingWatch:
    """Counts CONNECTs in windows that begin with a client's first. Times are of `time.monotonic()`."""

    def __init__(self, settings: Flapping) -> None:
        self.settings = settings
        self._seen: OrderedDict[_Key, _Seen] = OrderedDict()
        self._refused_until_s: OrderedDict[_Key, float] = OrderedDict()
        self._refused = 0
        self._forgotten = 0

    @property
    def is_alarming(self) -> bool:
        """Whether there is a client that is refused now."""
        return bool(self._refused_until_s)

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges."""
        return {
            "connects_refused_flapping": self._refused,
            "clients_flapping": len(self._refused_until_s),
            "flapping_watched": len(self._seen),
            "flapping_forgotten": self._forgotten,
        }

    def admit(self, client: ClientView, connect: Connect) -> Refusal | None:
        """Answer for a CONNECT; a client id that the broker makes up says nothing."""
        if not self.settings.connects_maximum or not client.client_id:
            return None
        return self.look((_shortened(client.client_id), address_key(client.address)), time.monotonic())

    def look(self, key: _Key, now_s: float) -> Refusal | None:
        """Count a CONNECT of client id and address at *now_s*."""
        settings = self.settings
        until_s = self._refused_until_s.get(key)
        if until_s is not None:
            if now_s < until_s:
                self._refused += 1
                return Refusal(ReasonCode.CONNECTION_RATE_EXCEEDED, "connects too often")
            del self._refused_until_s[key]
        seen = self._seen.get(key)
        if seen is None or now_s - seen.since_s >= settings.window_s:
            seen = self._seen[key] = _Seen(now_s)
        self._seen.move_to_end(key)
        while len(self._seen) > settings.clients_remembered:
            self._seen.popitem(last=False)
            self._forgotten += 1
        seen.connects += 1
        if seen.connects <= settings.connects_maximum:
            return None
        del self._seen[key]
        self._refused_until_s[key] = now_s + settings.refused_s
        while len(self._refused_until_s) > settings.clients_remembered:
            self._refused_until_s.popitem(last=False)
            self._forgotten += 1
        self._refused += 1
        log.warning(
            "client %r of %s connected more than %d times in %g s: refused for %g s",
            key[0],
            key[1],
            settings.connects_maximum,
            settings.window_s,
            settings.refused_s,
        )
        return Refusal(ReasonCode.CONNECTION_RATE_EXCEEDED, "connects too often")

    def sweep(self, now_s: float) -> None:
        """Let go of whom is refused no longer: they are in the order in which that ends, but for a reload."""
        while self._refused_until_s:
            key, until_s = next(iter(self._refused_until_s.items()))
            if now_s < until_s and self.settings.connects_maximum:
                return
            del self._refused_until_s[key]


def _shortened(client_id: str) -> str:
    """Return a client id that is not long as it is, of a longer one its beginning and what tells it from others."""
    if len(client_id) <= _CLIENT_ID_LENGTH:
        return client_id
    return f"{client_id[:_CLIENT_ID_LENGTH]}…{hashlib.blake2b(client_id.encode(), digest_size=16).hexdigest()}"
