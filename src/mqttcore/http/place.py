"""A connection's place in what its listener counts, from the accepting of its socket to the end."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqttcore.net.listeners import BoundListener

__all__ = ["Place"]

log = logging.getLogger("mqttcore.http")


class Place:
    """Counts one connection at its listener, and its address once that is known.

    on_failure: called with address, listener's name and reason when there is no place.
    """

    __slots__ = ("_address", "_is_taken", "_listener", "_on_failure")

    def __init__(self, listener: "BoundListener", on_failure: Callable[[object, str, str], object]) -> None:
        self._listener = listener
        self._on_failure = on_failure
        self._is_taken = False
        self._address: Any = None

    def take(self, peer: Any) -> bool:
        """Count the connection; False: the listener is full, or too many came in the last second."""
        listener = self._listener
        if 0 < listener.max_connections <= listener.connections:
            listener.refused += 1
            self._on_failure(peer, listener.name, "max_connections")
            return False
        if listener.admission is not None and not listener.admission.take(time.monotonic_ns() // 1_000_000):
            self._on_failure(peer, listener.name, "connection_rate")
            return False
        listener.connections += 1
        self._is_taken = True
        return True

    def admit(self, peer: Any) -> bool:
        """Count *peer*'s address; False: it has too many connections, or makes them too fast."""
        admission = self._listener.admission
        if admission is None or not admission.counts_addresses or not isinstance(peer, tuple):
            return True
        reason = admission.enter(peer[:2], time.monotonic_ns() // 1_000_000)
        if reason is not None:
            log.info("listener %s: %s: %s", self._listener.name, peer, reason)
            self._on_failure(peer, self._listener.name, reason)
            return False
        self._address = peer[:2]
        return True

    def hand_over(self) -> bool:
        """Be free, but for the address: return whether the next owner has to uncount that."""
        is_counted, self._address = self._address is not None, None
        self.free()
        return is_counted

    def free(self) -> None:
        """Uncount what was counted."""
        if self._is_taken:
            self._is_taken = False
            self._listener.connections -= 1
        if self._address is not None:
            self._listener.admission.leave(self._address)  # type: ignore[union-attr]
            self._address = None
