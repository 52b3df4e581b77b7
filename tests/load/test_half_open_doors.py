"""Slowloris: a crowd that begins at one door and does not go on costs others little, and is sent away in time."""

from __future__ import annotations

import resource
import select
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker_process import BrokerProcess, running_broker
from load import wire
from load.doors import DOORS, Door

PINGREQ = b"\xc0\x00"
CONNACK_BYTES = 4
PINGS = 300
ROUNDS = 7  # of PINGS; the median of their p99 counts, as other work on the machine comes in bursts
ENTRANTS = 15
# What twice almost nothing may be: 99 of 100 answers come within 0.1 ms, and with other work on the machine the next
# one comes a time slice of the kernel's scheduler later, 3 to 4 ms, crowd or not.
PING_FLOOR_S = 0.005
ENTER_FLOOR_S = 0.02


@dataclass(frozen=True)
class Crowd:
    """deadline_s: of the broker, for all that the crowd does not do."""

    count: int
    deadline_s: int


SMALL = Crowd(1000, 6)
LARGE = Crowd(10_000, 40)


@pytest.fixture(autouse=True)
def all_descriptors() -> Iterator[None]:
    """Raise RLIMIT_NOFILE, for the broker as well, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def config_of(door: Door, crowd: Crowd, folder: Path) -> str:
    lines = [
        "overload_lag_ms = 0",
        "[limits]",
        f"connect_timeout_s = {crowd.deadline_s}",
        '[[listeners]]\nname = "own"\nport = 0',
        '[[listeners]]\nname = "door"\nport = 0\nbacklog = 4096',
        "allow_anonymous = true",
        f"handshake_timeout_s = {crowd.deadline_s}",
        f"handshakes_maximum = {crowd.count}",
        f"http_header_timeout_s = {crowd.deadline_s}" if door.is_http else "",
        f"http_connections_maximum = {crowd.count * 2}" if door.is_http else "",
        door.listener(folder),
    ]
    return "\n".join(lines) + "\n"


class Connected:
    """A client that was there before the crowd; blocking, with a deadline."""

    def __init__(self, broker: BrokerProcess, client_id: str) -> None:
        self.socket = socket.create_connection((broker.host, broker.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(wire.connect(client_id, clean_session=True))
        assert self.socket.recv(CONNACK_BYTES, socket.MSG_WAITALL) == b"\x20\x02\x00\x00"

    def p99_s(self) -> float:
        """Return the median of some rounds' 99th percentiles of the times that PINGREQs wait for their answer."""
        return statistics.median(self._round_s() for _ in range(ROUNDS))

    def _round_s(self) -> float:
        times = []
        for _ in range(PINGS):
            started = time.monotonic()
            self.socket.sendall(PINGREQ)
            assert self.socket.recv(2, socket.MSG_WAITALL) == b"\xd0\x00"
            times.append(time.monotonic() - started)
        return sorted(times)[PINGS * 99 // 100]


def descriptors(broker: BrokerProcess) -> int:
    return len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))


def wait_for(broker: BrokerProcess, least: float, most: float) -> None:
    """Wait until the broker has so many descriptors: accepted all of a crowd, or let it go."""
    until = time.monotonic() + 10
    while not least <= descriptors(broker) <= most:
        assert time.monotonic() < until, f"{descriptors(broker)} descriptors, not {least} to {most}"
        time.sleep(0.01)  # another process: there is nothing to be notified by


@contextmanager
def half_open(broker: BrokerProcess, crowd: Crowd, said: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        sockets = []
        for number in range(crowd.count):
            # Several source addresses: no rule about one of them is what holds the crowd.
            source = (f"127.0.2.{1 + number % 50}", 0)
            sock = socket.create_connection((broker.host, broker.ports[1]), timeout=60, source_address=source)
            sockets.append(stack.enter_context(sock))
            sock.sendall(said)
        yield sockets


def wait_for_ends(sockets: list[socket.socket], deadline_s: float) -> int:
    """Read until the broker has closed each, or time is up; return how many it has."""
    poll = select.poll()
    waiting = {sock.fileno(): sock for sock in sockets}
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    until = time.monotonic() + deadline_s
    while waiting and time.monotonic() < until:
        for descriptor, _ in poll.poll(1000):
            try:
                is_over = not waiting[descriptor].recv(4096)
            except ConnectionResetError:
                is_over = True
            if is_over:
                poll.unregister(descriptor)
                del waiting[descriptor]
    return len(sockets) - len(waiting)


@pytest.mark.parametrize("crowd", [SMALL, pytest.param(LARGE, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
@pytest.mark.parametrize("name", DOORS)
def test_crowd_at_a_door(
    name: str, crowd: Crowd, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
):
    door = DOORS[name]
    if crowd.count * 1.1 > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        pytest.fail(f"RLIMIT_NOFILE is too low for {crowd.count} connections")
    with running_broker(tmp_path, config_of(door, crowd, tmp_path), kind="mqttcore") as broker:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt")) if door.has_tls else None

        def entered_s() -> float:
            return statistics.median(door.enter_s(broker, broker.ports[1], context) for _ in range(ENTRANTS))

        client = Connected(broker, "before")
        client.p99_s()
        entered_s()
        quiet_s, quiet_entered_s, before = client.p99_s(), entered_s(), broker.rss_bytes()
        with half_open(broker, crowd, door.begun) as sockets:
            wait_for(broker, crowd.count, crowd.count + 100)
            held_s = client.p99_s()
            held_entered_s = entered_s()
            Connected(broker, "meanwhile").socket.close()
            each = (broker.rss_bytes() - before) / crowd.count / 1024
            assert wait_for_ends(sockets, crowd.deadline_s + 10) == crowd.count
            after_s = client.p99_s()
            wait_for(broker, 0, 100)
        record_testsuite_property(
            f"half open: {name}, {crowd.count}",
            f"{name}, {crowd.count} half-open: p99 {quiet_s * 1e3:.2f} ms without, {held_s * 1e3:.2f} ms with, "
            f"{after_s * 1e3:.2f} ms after; a new client through that door in {quiet_entered_s * 1e3:.2f} ms without, "
            f"{held_entered_s * 1e3:.2f} ms with; {each:.1f} KiB each",
        )
        assert held_s < max(2 * quiet_s, PING_FLOOR_S)
        assert held_entered_s < max(2 * quiet_entered_s, ENTER_FLOOR_S)
        assert each < door.kib
        Connected(broker, "afterwards").socket.close()
        client.socket.close()
