"""Slowloris: a crowd that begins at one door and does not go on costs others little, and is sent away in time."""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker_process import BrokerProcess, running_broker
from certificates import Authority
from load import wire
from websocket_wire import upgrade_request

PINGREQ = b"\xc0\x00"
CONNACK_BYTES = 4
PINGS = 300
NOISE_S = 0.05  # what a shared machine adds to one answer
HELLO_BEGUN = bytes.fromhex("160301020001")  # a ClientHello that stops in its header


@dataclass(frozen=True)
class Door:
    """said: with which each begins. kib: what one of the crowd may take. has_tls, is_http: of the listener."""

    said: bytes
    kib: int
    is_http: bool = False
    has_tls: bool = False


DOORS = {
    "tcp": Door(b"\x10", 8),
    "tls": Door(HELLO_BEGUN, 64, has_tls=True),
    "proxy": Door(b"PROXY TCP4", 8),
    "http": Door(b"GET / HTTP/1.1\r\nHost: ", 32, is_http=True),
    "https": Door(HELLO_BEGUN, 96, is_http=True, has_tls=True),
    "websocket": Door(upgrade_request(), 16, is_http=True),
}


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


def config_of(name: str, crowd: Crowd, folder: Path) -> str:
    door = DOORS[name]
    lines = [
        "overload_lag_ms = 0",
        "[limits]",
        f"connect_timeout_s = {crowd.deadline_s}",
        '[[listeners]]\nname = "own"\nport = 0',
        '[[listeners]]\nname = "door"\nport = 0\nbacklog = 4096',
        f"handshake_timeout_s = {crowd.deadline_s}",
        f"handshakes_maximum = {crowd.count}",
        f"http_header_timeout_s = {crowd.deadline_s}",
        f'protocol = "{"http" if door.is_http else "mqtt"}"',
    ]
    if name == "proxy":
        lines.append('proxy_protocol = "any"\nproxy_trusted = ["127.0.0.0/8"]\nallow_anonymous = true')
    if door.has_tls:
        own = Authority(folder).server("localhost")
        lines.append(f'[listeners.tls]\ncertificate_file = "{own.certificate}"\nkey_file = "{own.key}"')
    return "\n".join(lines) + "\n"


class Connected:
    """A client that was there before the crowd; blocking, with a deadline."""

    def __init__(self, broker: BrokerProcess, client_id: str) -> None:
        self.socket = socket.create_connection((broker.host, broker.port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(wire.connect(client_id, clean_session=True))
        assert self.socket.recv(CONNACK_BYTES, socket.MSG_WAITALL) == b"\x20\x02\x00\x00"

    def p99_s(self) -> float:
        """Return the 99th percentile of the times that PINGREQs wait for their answer."""
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
            sock = socket.create_connection((broker.host, broker.ports[1]), timeout=10, source_address=source)
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
    with running_broker(tmp_path, config_of(name, crowd, tmp_path), kind="mqttcore") as broker:
        client = Connected(broker, "before")
        client.p99_s()
        quiet_s, before = client.p99_s(), broker.rss_bytes()
        with half_open(broker, crowd, door.said) as sockets:
            wait_for(broker, crowd.count, crowd.count + 100)
            held_s = client.p99_s()
            started = time.monotonic()
            Connected(broker, "meanwhile").socket.close()
            joined_s = time.monotonic() - started
            each = (broker.rss_bytes() - before) / crowd.count / 1024
            assert wait_for_ends(sockets, crowd.deadline_s + 10) == crowd.count
            after_s = client.p99_s()
            wait_for(broker, 0, 100)
        record_testsuite_property(
            f"half open: {name}, {crowd.count}",
            f"{name}, {crowd.count} half-open: p99 {quiet_s * 1e3:.2f} ms without, {held_s * 1e3:.2f} ms with, "
            f"{after_s * 1e3:.2f} ms after; a new client in {joined_s * 1e3:.1f} ms; {each:.1f} KiB each",
        )
        assert held_s < max(2 * quiet_s, NOISE_S)
        assert joined_s < 2
        assert each < door.kib
        Connected(broker, "afterwards").socket.close()
        client.socket.close()
