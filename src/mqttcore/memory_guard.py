"""Looks how much memory the process has, and tells the engine and who operates it when that is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqttcore.net.memory import MemoryWatch

if TYPE_CHECKING:
    import asyncio

    from mqttcore.engine.engine import Engine
    from mqttcore.services import Services

__all__ = ["MemoryGuard"]

_ALARM = "memory"
_INTERVAL_S = 0.1
_CLOSE_INTERVAL_S = 0.01  # half a gigabyte a second can come; a look costs some 20 µs


class MemoryGuard:
    """Looks every 100 ms from `start` to `stop`, every 10 ms while the maximum is not far. Raises as `MemoryWatch`."""

    def __init__(self, maximum_bytes: int | None, services: Services) -> None:
        self.watch = MemoryWatch(maximum_bytes)
        self._services = services
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def start(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        """Look now, and from now on."""
        self._engine, self._loop = engine, loop
        self._look()

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        assert self._engine is not None
        assert self._loop is not None
        is_changed = self.watch.look()
        self._handle = self._loop.call_later(_CLOSE_INTERVAL_S if self.watch.is_near else _INTERVAL_S, self._look)
        if is_changed:
            self._engine.set_memory(is_short=self.watch.is_short, is_full=self.watch.is_full)
            self._tell()

    def _tell(self) -> None:
        watch = self.watch
        said = f"{watch.resident_bytes >> 20} of {watch.maximum_bytes >> 20} MiB are resident"
        if watch.is_full:
            self._services.raise_alarm(_ALARM, f"{said}: nothing may grow")
        elif watch.is_short:
            self._services.raise_alarm(_ALARM, f"{said}: there are no new sessions")
        else:
            self._services.clear_alarm(_ALARM, said)
