"""Who failed to log in how often: too many failures close the door for a while."""

import hashlib
from collections import OrderedDict

__all__ = ["Failures"]


class Failures:
    """Counts failures per address and per user name within a window; bounded, the oldest entries go first.

    A user name is closed only to addresses from which it never logged in, so that a stranger cannot lock a user out.
    Times are seconds of a monotonic clock that the caller gives. Names are kept as digests: they may be 64 KiB long.
    """

    def __init__(self, *, maximum: int, window_s: float, entries_maximum: int = 100_000) -> None:
        self.maximum = maximum
        self.window_s = window_s
        self.entries_maximum = entries_maximum
        self._failed: OrderedDict[bytes, list[float]] = OrderedDict()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed)

    def is_closed(self, address: str, user_name: str, now_s: float) -> bool:
        """Say whether a login from there, under that name, is to be refused unseen."""
        if self._has_too_many(_key("address", address), now_s):
            return True
        return _key(address, user_name) not in self._known and self._has_too_many(_key("user", user_name), now_s)

    def failed(self, address: str, user_name: str, now_s: float) -> None:
        """Count one failure."""
        if not self.maximum:
            return
        for key in (_key("address", address), _key("user", user_name)):
            times = self._failed.pop(key, [])
            times.append(now_s)
            self._failed[key] = times[-self.maximum :]
        while len(self._failed) > self.entries_maximum:
            self._failed.popitem(last=False)

    def succeeded(self, address: str, user_name: str) -> None:
        """Forget the failures of an address, and know it as one of the user's."""
        self._failed.pop(_key("address", address), None)
        known = _key(address, user_name)
        self._known.pop(known, None)
        self._known[known] = None
        while len(self._known) > self.entries_maximum:
            self._known.popitem(last=False)

    def _has_too_many(self, key: bytes, now_s: float) -> bool:
        times = self._failed.get(key)
        if not self.maximum or times is None:
            return False
        if times[-1] + self.window_s <= now_s:
            del self._failed[key]
            return False
        return len(times) >= self.maximum and times[0] + self.window_s > now_s


def _key(kind: str, name: str) -> bytes:
    return hashlib.blake2b(f"{kind}\n{name}".encode(), digest_size=16).digest()
