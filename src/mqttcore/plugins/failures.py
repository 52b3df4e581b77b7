"""What plugins do wrong: counted, logged but not endlessly, told as events, and an alarm when it does not end."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from mqttcore.events import AlarmChanged, Event, PluginFailed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Failures"]

log = logging.getLogger("mqttcore.plugins")

_LOG_EVERY_S = 10.0
_ALARM_COUNT = 10
_ALARM_WINDOW_S = 60.0


class _Ledger:
    """Failures of one hook of one plugin."""

    __slots__ = ("count", "logged_s", "unlogged")

    def __init__(self) -> None:
        self.count = 0
        self.logged_s = float("-inf")
        self.unlogged = 0


class Failures:
    """Failures of all plugins of one broker; bounded by the number of plugins and hooks.

    emit: takes events. now_s: a monotonic clock.
    """

    def __init__(
        self, *, emit: Callable[[Event], object] | None = None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.emit = emit
        self._now_s = now_s
        self._ledgers: dict[tuple[str, str], _Ledger] = {}
        self._recent: dict[str, deque[float]] = {}
        self.alarms: dict[str, str] = {}  # name of the alarm -> what is wrong

    def record(self, plugin: str, hook: str, error: BaseException | str) -> None:
        """Take note that a hook raised *error*, was late, or answered what *error* says."""
        now_s = self._now_s()
        ledger = self._ledgers.setdefault((plugin, hook), _Ledger())
        ledger.count += 1
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
        if self.emit is not None:
            self.emit(PluginFailed(time_ms=_wall_ms(), plugin=plugin, hook=hook, error=text))
        self._watch(plugin, hook, now_s)

    def look(self) -> None:
        """End the alarms of plugins that have not failed for a while; to be called now and then."""
        limit_s = self._now_s() - _ALARM_WINDOW_S
        for plugin, recent in self._recent.items():
            if recent and recent[-1] < limit_s:
                recent.clear()
                name = _alarm(plugin)
                if self.alarms.pop(name, None) is not None:
                    log.info("plugin %s has not failed for %d s", plugin, _ALARM_WINDOW_S)
                    self._tell(name, False, f"plugin {plugin} works again")

    def count(self, plugin: str, hook: str | None = None) -> int:
        """Return how often a plugin failed, in one hook or all."""
        return sum(
            ledger.count for (one, its), ledger in self._ledgers.items() if one == plugin and hook in (None, its)
        )

    def _watch(self, plugin: str, hook: str, now_s: float) -> None:
        recent = self._recent.setdefault(plugin, deque(maxlen=_ALARM_COUNT))
        recent.append(now_s)
        name = _alarm(plugin)
        if len(recent) == _ALARM_COUNT and recent[0] > now_s - _ALARM_WINDOW_S and name not in self.alarms:
            text = f"plugin {plugin} keeps failing, at last in {hook}"
            self.alarms[name] = text
            log.error("%s", text)
            self._tell(name, True, text)

    def _tell(self, name: str, is_raised: bool, text: str) -> None:
        if self.emit is not None:
            self.emit(AlarmChanged(time_ms=_wall_ms(), name=name, is_raised=is_raised, text=text))


def _alarm(plugin: str) -> str:
    return f"plugin_{plugin}_failing"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
