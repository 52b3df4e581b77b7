"""Standard input as payloads of `mqttcore pub`."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator

__all__ = ["stdin_lines", "stdin_whole"]

_STDIN = 0
_CHUNK_BYTES = 65_536
_CHUNKS_WAITING = 4


def stdin_whole() -> bytes:
    """Return everything on standard input."""
    with open(_STDIN, "rb", closefd=False) as stdin:
        return stdin.read()


async def stdin_lines() -> AsyncIterator[bytes]:
    """Yield the lines of standard input without their ends, each as soon as it is there."""
    rest = b""
    async for chunk in _stdin_chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest


async def _stdin_chunks() -> AsyncIterator[bytes]:
    """Yield what standard input has, piece by piece.

    A daemon thread reads: standard input may be a file, which no event loop can wait for, and a blocked read must not
    keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    room = threading.Semaphore(_CHUNKS_WAITING)  # of the queue: a thread can wait for this one

    def read() -> None:
        chunk = b"-"
        while chunk and room.acquire():
            chunk = os.read(_STDIN, _CHUNK_BYTES)
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:  # the loop was closed before the input ended
                return

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while chunk := await chunks.get():
        room.release()
        yield chunk
