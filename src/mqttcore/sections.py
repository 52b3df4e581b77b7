"""What a plugin counts and measures: its part of `Broker.metrics()` and of `$SYS`."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Section"]

log = logging.getLogger("mqttcore.broker")

_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEYS_MAXIMUM = 256  # names of metrics must not come from what clients send


class Section:
    """Counters and gauges of one plugin, by names of small letters, digits and `_`.

    They appear as `plugin_NAME_KEY` in metrics and as `$SYS/broker/plugins/NAME/KEY`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: dict[str, int] = {}
        self._measured: dict[str, Callable[[], int]] = {}
        self._failed: set[str] = set()

    def add(self, key: str, by: int = 1) -> None:
        """Count."""
        try:
            self._values[key] += by
        except KeyError:
            self._check(key)
            self._values[key] = by

    def set(self, key: str, value: int) -> None:
        """Set a gauge."""
        if key not in self._values:
            self._check(key)
        self._values[key] = value

    def measure(self, key: str, function: Callable[[], int]) -> None:
        """Have *function* asked for a gauge whenever somebody looks; it must be quick."""
        if key not in self._measured:
            self._check(key)
        self._measured[key] = function

    def values(self) -> Iterator[tuple[str, int]]:
        """Yield key and value of each; one whose function fails is left out, and logged once."""
        yield from self._values.items()
        for key, function in self._measured.items():
            try:
                yield key, int(function())
            except Exception:
                if key not in self._failed:
                    self._failed.add(key)
                    log.exception("gauge %s of plugin %s", key, self.name)

    def _check(self, key: str) -> None:
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} is no name of a metric: small letters, digits and _, a letter first, 64 at most")
        if key in self._values or key in self._measured:
            raise ValueError(f"{key!r} is there already, of the other kind")
        if len(self._values) + len(self._measured) >= _KEYS_MAXIMUM:
            raise ValueError(f"a plugin has at most {_KEYS_MAXIMUM} metrics")
