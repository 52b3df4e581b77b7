"""Slowloris: a crowd that begins at one door and does not go on costs others little, and is sent away in time.

What others wait is told, and has a wide bound: it depends on what else the machine does. What the broker works for each
of them does not.
"""

from __future__ import annotations

import resource
import select
import socket
import ssl
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
PINGS = 2000
ENTRANTS = 15
WAIT_FLOOR_S = 0.5  # some time slices of the kernel's scheduler
# What twice almost nothing may be, of CPU time: a ping takes some 10 µs, an entrant 50 to 900.
PING_FLOOR_S = 50e-6
ENTER_FLOOR_S = 2e-3


@dataclass(frozen=True)
class Cost:
    """Of one of many that did the same. cpu_s: the broker's CPU time, on average; wait_s: of 99 in 100, at most."""

    cpu_s: float
    wait_s: float

    def is_little_more_than(self, other: Cost, floor_s: float) -> bool:
        return self.cpu_s < max(2 * other.cpu_s, floor_s) and self.wait_s < max(2 * other.wait_s, WAIT_FLOOR_S)


def cost(broker: BrokerProcess, count: int, one_s: Callable[[], float]) -> Cost:
    """Have *one_s* done *count* times; each returns the seconds that it waited."""
    began = broker.cpu_s()
    waits = sorted(one_s() for _ in range(count))
    return Cost((broker.cpu_s() - began) / count, waits[count * 99 // 100])


@dataclass(frozen=True)
class Crowd:
    """deadline_s: of the broker, for all that the crowd does not do."""

    count: int
    deadline_s: int


SMALL = Crowd(1000, 10)
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

    def __enter__(self) -> Connected:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def ping_s(self) -> float:
        """Return how long a PINGREQ waits for its answer."""
        started = time.monotonic()
        self.socket.sendall(PINGREQ)
        assert self.socket.recv(2, socket.MSG_WAITALL) == b"\xd0\x00"
        return time.monotonic() - started


def descriptors(broker: BrokerProcess) -> int:
    return len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))


def wait_for(broker: BrokerProcess, least: float, most: float) -> None:
    """Wait until the broker has so many descriptors: accepted all of a crowd, or let it go."""
    until = time.monotonic() + 60
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

        def pings() -> Cost:
            return cost(broker, PINGS, client.ping_s)

        def entrants() -> Cost:
            return cost(broker, ENTRANTS, lambda: door.enter_s(broker, broker.ports[1], context))

        with Connected(broker, "before") as client:
            pings()
            entrants()
            quiet, quiet_entrants, before = pings(), entrants(), broker.rss_bytes()
            with half_open(broker, crowd, door.begun) as sockets:
                wait_for(broker, crowd.count, crowd.count + 100)
                # Who comes now may have to wait until the crowd has been silent for a second.
                door.enter_s(broker, broker.ports[1], context)
                held, held_entrants = pings(), entrants()
                Connected(broker, "meanwhile").socket.close()
                each = (broker.rss_bytes() - before) / crowd.count / 1024
                assert wait_for_ends(sockets, crowd.deadline_s + 60) == crowd.count
                after = pings()
                wait_for(broker, 0, 100)
        record_testsuite_property(
            f"half open: {name}, {crowd.count}",
            f"{name}, {crowd.count} half-open: a ping takes {quiet.cpu_s * 1e6:.0f} µs of CPU without, "
            f"{held.cpu_s * 1e6:.0f} with, {after.cpu_s * 1e6:.0f} after, and waits, p99, {quiet.wait_s * 1e3:.2f} ms, "
            f"{held.wait_s * 1e3:.2f}, {after.wait_s * 1e3:.2f}; a new client through that door takes "
            f"{quiet_entrants.cpu_s * 1e6:.0f} µs without, {held_entrants.cpu_s * 1e6:.0f} with; {each:.1f} KiB each",
        )
        assert held.is_little_more_than(quiet, PING_FLOOR_S)
        assert held_entrants.is_little_more_than(quiet_entrants, ENTER_FLOOR_S)
        assert each < door.kib
        Connected(broker, "afterwards").socket.close()
