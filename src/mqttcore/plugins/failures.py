"""What plugins do wrong: counted, logged but not endlessly, told as events, and an alarm when it does not end."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from mqttcore.events import Event, PluginFailed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Failures"]

log = logging.getLogger("mqttcore.plugins")

_LOG_EVERY_S = 10.0
_ALARM_COUNT = 10
_ALARM_WINDOW_S = 60.0


class _Told(Protocol):
    """What a broker does with the news."""

    def emit(self, event: Event) -> None: ...

    def raise_alarm(self, name: str, text: str) -> None: ...

    def clear_alarm(self, name: str, text: str = "") -> None: ...


class _Ledger:
    """Failures of one hook of one plugin."""

    __slots__ = ("count", "logged_s", "unlogged")

    def __init__(self) -> None:
        self.count = 0
        self.logged_s = float("-inf")
        self.unlogged = 0


class Failures:
    """Failures of all plugins of one broker; bounded by the number of plugins and hooks.

    tell: the broker, once it runs. now_s: a monotonic clock.
    """

    def __init__(self, *, now_s: Callable[[], float] | None = None) -> None:
        self.tell: _Told | None = None
        self._now_s = now_s if now_s is not None else lambda: time.monotonic()  # as it is then: tests set it ahead
        self._ledgers: dict[tuple[str, str], _Ledger] = {}
        self._recent: dict[str, deque[float]] = {}
        self._failing: set[str] = set()
        self._last_s: dict[str, float] = {}  # plugin -> wall clock

    def record(self, plugin: str, hook: str, error: BaseException | str) -> None:
        """Take note that a hook raised *error*, was late, or answered what *error* says."""
        now_s = self._now_s()
        ledger = self._ledgers.setdefault((plugin, hook), _Ledger())
        ledger.count += 1
        self._last_s[plugin] = time.time()
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
        if now_s - ledger.logged_s >= _LOG_EVERY_S:
            more = f" ({ledger.unlogged} more since the last line)" if ledger.unlogged else ""
            log.error(
                "plugin %s, hook %s: %s%s", plugin, hook, text, more, exc_info=None if isinstance(error, str) else error
            )
            ledger.logged_s = now_s
            ledger.unlogged = 0
        else:
            ledger.unlogged += 1
        if self.tell is not None:
            time_ms = time.time_ns() // 1_000_000
            self.tell.emit(PluginFailed(time_ms=time_ms, plugin=plugin, hook=hook, error=text))
        self._watch(plugin, hook, now_s)

    def look(self) -> None:
        """End the alarms of plugins that have not failed for a while; to be called now and then."""
        limit_s = self._now_s() - _ALARM_WINDOW_S
        for plugin, recent in self._recent.items():
            if recent and recent[-1] < limit_s:
                recent.clear()
                if plugin in self._failing:
                    self._failing.discard(plugin)
                    if self.tell is not None:
                        self.tell.clear_alarm(_alarm(plugin), f"plugin {plugin} has not failed for a while")

    def count(self, plugin: str, hook: str | None = None) -> int:
        """Return how often a plugin failed, in one hook or all."""
        return sum(
            ledger.count for (one, its), ledger in self._ledgers.items() if one == plugin and hook in (None, its)
        )

    def by_hook(self, plugin: str) -> dict[str, int]:
        """Return how often a plugin failed, for each hook in which it did."""
        return {its: ledger.count for (one, its), ledger in self._ledgers.items() if one == plugin}

    def last_s(self, plugin: str) -> float | None:
        """Return when a plugin failed last, by the wall clock; None: it has not."""
        return self._last_s.get(plugin)

    def is_failing(self, plugin: str) -> bool:
        """Say whether the alarm of a plugin is raised."""
        return plugin in self._failing

    def _watch(self, plugin: str, hook: str, now_s: float) -> None:
        recent = self._recent.setdefault(plugin, deque(maxlen=_ALARM_COUNT))
        recent.append(now_s)
        if len(recent) < _ALARM_COUNT or recent[0] <= now_s - _ALARM_WINDOW_S or plugin in self._failing:
            return
        self._failing.add(plugin)
        if self.tell is not None:
            self.tell.raise_alarm(_alarm(plugin), f"plugin {plugin} keeps failing, at last in {hook}")


def _alarm(plugin: str) -> str:
    return f"plugin_{plugin}_failing"
