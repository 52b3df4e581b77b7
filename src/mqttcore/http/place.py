"""A connection's place in what its listener counts, from the accepting of its socket to the end."""

import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mqttcore.net.listeners import BoundListener

__all__ = ["Place"]

log = logging.getLogger("mqttcore.http")


class Place:
    """Counts one connection at its listener, and its address once that is known."""

    __slots__ = ("_address", "_is_taken", "_listener")

    def __init__(self, listener: "BoundListener") -> None:
        self._listener = listener
        self._is_taken = False
        self._address: Any = None

    def take(self) -> bool:
        """Count the connection; False: the listener is full, or too many came in the last second."""
        listener = self._listener
        if 0 < listener.max_connections <= listener.connections:
            listener.refused += 1
            return False
        if listener.admission is not None and not listener.admission.take(time.monotonic_ns() // 1_000_000):
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
