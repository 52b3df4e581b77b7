"""Requests of HTTP at a fixed rate over connections that are kept, and how long their answers take. Linux only."""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Answers", "ask"]

_RECEIVED_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass
class Answers:
    """latencies_s: of each answer, from the moment at which its request was due, so that waiting counts."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.seconds

    def percentile_ms(self, share: float) -> float:
        """Return the latency that *share* of the answers do not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due_s = 0.0
        self.received = b""

    def send(self, request: bytes, due_s: float) -> None:
        self.due_s = due_s
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """Read; return the whole answer, head and body, or None when there is more to come."""
        data = self.socket.recv(_RECEIVED_BYTES)
        if not data:
            raise SystemExit(f"the broker closed the connection after {self.received!r}")
        self.received += data
        end = self.received.find(_HEAD_END)
        if end < 0:
            return None
        head = self.received[:end].lower()
        size = int(head[head.index(_LENGTH) + len(_LENGTH) :].split(b"\r\n", 1)[0])
        if len(self.received) < end + len(_HEAD_END) + size:
            return None
        found, self.received = self.received, b""
        return found


def ask(
    address: tuple[str, int],
    requests: Iterator[bytes],
    *,
    connections: int,
    rate: float,
    seconds: float,
    check: Callable[[bytes], bool],
) -> Answers:
    """Send *requests* for *seconds*, one at a time on each connection; SystemExit names an answer that *check* refuses.

    rate: requests a second, at fixed times, later only when no connection is free; 0: each as soon as one is.
    """
    pool = [_Connection(address) for _ in range(connections)]
    by_descriptor = {one.socket.fileno(): one for one in pool}
    epoll = select.epoll()
    for descriptor in by_descriptor:
        epoll.register(descriptor, select.EPOLLIN)
    answers = Answers()
    free = deque(pool)
    began_s = now_s = time.monotonic()
    sent = 0
    try:
        while now_s < began_s + seconds or len(free) < connections:
            is_over = now_s >= began_s + seconds
            while free and not is_over:
                due_s = began_s + sent / rate if rate else now_s
                if due_s > now_s:
                    break
                free.popleft().send(next(requests), due_s)
                sent += 1
            wait_s = 1.0 if is_over or not free or not rate else max(0.0, began_s + sent / rate - now_s)
            for descriptor, _ in epoll.poll(wait_s):
                connection = by_descriptor[descriptor]
                if (answer := connection.answer()) is not None:
                    answers.latencies_s.append(time.monotonic() - connection.due_s)
                    if not check(answer):
                        raise SystemExit(f"a wrong answer: {answer.decode('latin-1')}")
                    free.append(connection)
            now_s = time.monotonic()
    finally:
        epoll.close()
        for one in pool:
            one.socket.close()
    answers.seconds = now_s - began_s
    return answers
