"""Who may connect how often: token buckets for a listener and each client address, connections at a time per address.

The table of addresses is bounded. A full one forgets the address that has nothing open and was seen least recently;
when all have something open, new addresses are not counted by themselves, and `addresses_overflowed` tells.
"""

import ipaddress
from collections import OrderedDict
from typing import Any

from mqttcore.config import Listener

__all__ = ["Admission", "Bucket", "address_key"]

_SCANNED = 16


class Bucket:
    """Holds one second's worth of *rate* and fills continuously."""

    __slots__ = ("looked_ms", "tokens")

    def __init__(self, rate: int, now_ms: int) -> None:
        self.tokens = float(rate)
        self.looked_ms = now_ms

    def take(self, rate: int, now_ms: int) -> bool:
        """Take one; False when there is none. rate: a second, which may be another one than before."""
        self.tokens = min(float(rate), self.tokens + (now_ms - self.looked_ms) * rate / 1000)
        self.looked_ms = now_ms
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class _Address(Bucket):
    __slots__ = ("connections",)

    def __init__(self, rate: int, now_ms: int) -> None:
        super().__init__(rate, now_ms)
        self.connections = 0


class Admission:
    """The limits of one listener. Times are the engine's clock, in ms."""

    def __init__(self, settings: Listener) -> None:
        self.settings = settings
        self._all: Bucket | None = None
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self.rate_refused = 0
        self.address_refused = 0
        self.addresses_overflowed = 0

    @property
    def counts_addresses(self) -> bool:
        """Whether `enter` has anything to look at."""
        return bool(self.settings.connection_rate_per_address or self.settings.connections_per_address)

    @property
    def addresses(self) -> int:
        """Addresses in the table."""
        return len(self._addresses)

    def take(self, now_ms: int) -> bool:
        """Count one new connection of the listener; False: there were too many in the last second."""
        rate = self.settings.connection_rate
        if not rate:
            return True
        if self._all is None:
            self._all = Bucket(rate, now_ms)
        if self._all.take(rate, now_ms):
            return True
        self.rate_refused += 1
        return False

    def enter(self, peer: Any, now_ms: int) -> str | None:
        """Count one new connection of *peer*; return why it is refused, or None. Who gets None must `leave`."""
        settings = self.settings
        if not self.counts_addresses or (key := address_key(peer)) is None:
            return None
        found = self._addresses.get(key)
        if found is None:
            found = self._make_room(now_ms)
            if found is None:
                return None
            self._addresses[key] = found
        else:
            self._addresses.move_to_end(key)
        rate = settings.connection_rate_per_address
        if rate and not found.take(rate, now_ms):
            self.address_refused += 1
            return f"more than {rate} connections a second from its address"
        if settings.connections_per_address and found.connections >= settings.connections_per_address:
            self.address_refused += 1
            return f"more than {settings.connections_per_address} connections from its address"
        found.connections += 1
        return None

    def leave(self, peer: Any) -> None:
        """Take back what `enter` counted."""
        key = address_key(peer)
        found = self._addresses.get(key) if key is not None else None
        if found is not None and found.connections:
            found.connections -= 1

    def _make_room(self, now_ms: int) -> _Address | None:
        if len(self._addresses) >= self.settings.addresses_remembered:
            # A few of the oldest: those with open connections go to the other end, to be asked again later.
            for _ in range(min(_SCANNED, len(self._addresses))):
                key, oldest = self._addresses.popitem(last=False)
                if not oldest.connections:
                    break
                self._addresses[key] = oldest
            else:
                self.addresses_overflowed += 1
                return None
        return _Address(self.settings.connection_rate_per_address, now_ms)


def address_key(peer: Any) -> str | None:
    """Return what stands for a client: an IPv4 address, an IPv6 network of 64 bits; None for Unix sockets."""
    if not isinstance(peer, tuple):
        return None
    host: str = peer[0]
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
