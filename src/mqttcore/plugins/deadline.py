"""What plugins are awaited with: an end, whether they listen to being cancelled or not."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

__all__ = ["Late", "give_up", "within"]

log = logging.getLogger("mqttcore.plugins")


_GRACE_S = 0.1  # to end after having been cancelled; who listens does so at once


class Late(TimeoutError):
    """It did not end in time; a TimeoutError that a plugin raises itself is none."""


async def within(result: Any, timeout_s: float) -> None:
    """Await *result* if it can be awaited, at most for this time: then cancel it, wait no longer, and raise Late."""
    if not inspect.isawaitable(result):
        return
    task = asyncio.ensure_future(result)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_forget)
        raise
    if not task.done():
        task.cancel()
        task.add_done_callback(_forget)
        await asyncio.wait({task}, timeout=_GRACE_S)
        raise Late
    if task.cancelled():
        raise RuntimeError("was cancelled")
    task.result()


def give_up(awaitable: Any) -> None:
    """Drop a coroutine or future that nobody will await, without a warning; no harm when it has ended."""
    for name in ("close", "cancel"):
        if callable(end := getattr(awaitable, name, None)):
            end()
            return


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("a plugin's call that was given up ended with %s: %s", type(error).__name__, error)
