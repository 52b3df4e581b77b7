"""The line protocol of ../README.md for drivers in Python."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Fields = dict[str, Any]

_writing = threading.Lock()


class Refused(Exception):
    """The peer said no; reason_code: its code, None where the library hides it."""

    def __init__(self, text: str, reason_code: int | None = None) -> None:
        super().__init__(text)
        self.reason_code = reason_code


def emit(**fields: Any) -> None:
    """Write one line; callable from any thread."""
    with _writing:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


def failure(number: int, error: Exception) -> Fields:
    return {
        "id": number,
        "ok": False,
        "error": f"{type(error).__name__}: {error}",
        "reason_code": getattr(error, "reason_code", None),
    }


def serve(client: str, handle: Callable[[Fields], Fields | None]) -> None:
    """Answer commands until stdin ends."""
    emit(event="ready", client=client)
    for line in sys.stdin:
        command = json.loads(line)
        number = command.pop("id")
        try:
            answer = handle(command) or {}
        except Exception as error:  # whatever the library raises is the test's business
            emit(**failure(number, error))
        else:
            emit(id=number, ok=True, **answer)


async def serve_async(client: str, handle: Callable[[Fields], Awaitable[Fields | None]]) -> None:
    """Answer commands until stdin ends, for libraries on asyncio."""
    loop = asyncio.get_running_loop()
    emit(event="ready", client=client)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        number = command.pop("id")
        try:
            answer = await handle(command) or {}
        except Exception as error:  # as above
            emit(**failure(number, error))
        else:
            emit(id=number, ok=True, **answer)
