"""Many connections: held idle, and coming as fast as they can."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from broker_process import BrokerProcess

PROGRAM = Path(__file__).with_name("idle_clients.py")


@pytest.fixture(autouse=True)
def all_descriptors() -> Iterator[None]:
    """Raise RLIMIT_NOFILE for the broker, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def broker(all_descriptors: None, broker_process: BrokerProcess) -> BrokerProcess:
    return broker_process


class IdleClients:
    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self.process = process
        self.count = count

    def answer(self) -> list[str]:
        assert self.process.stdout
        return self.process.stdout.readline().split()

    def ready(self) -> float:
        """Wait until all are connected; return the seconds that it took."""
        word, seconds = self.answer() or ("ended", "")
        assert word == "ready"
        return float(seconds)

    def ping(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("ping\n")
        self.process.stdin.flush()
        assert self.answer() == ["alive", str(self.count)]


@contextmanager
def idle_clients(broker: BrokerProcess, count: int, first: int, at_once: int) -> Iterator[IdleClients]:
    """Clients in a process of their own, which must end well."""
    arguments = [broker.host, str(broker.port), str(count), str(first), str(at_once)]
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield IdleClients(process, count)
            assert process.stdin
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.kill()


def _hold(broker: BrokerProcess, total: int, processes: int, at_once: int) -> float:
    """Connect, ping twice, disconnect; return bytes of RSS per connection."""
    before = broker.rss_bytes()
    with ExitStack() as stack:
        each = total // processes
        groups = [stack.enter_context(idle_clients(broker, each, each * index, at_once)) for index in range(processes)]
        for group in groups:
            group.ready()
        held = broker.rss_bytes() - before
        for _ in range(2):
            for group in groups:
                group.ping()
    return held / total


def test_idle_connections_are_held(broker: BrokerProcess) -> None:
    _hold(broker, 600, 2, 50)


def test_connect_storm_is_served(broker: BrokerProcess) -> None:
    _hold(broker, 400, 2, 200)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_15000_idle_connections_are_held(broker: BrokerProcess) -> None:
    per_connection = _hold(broker, 15_000, 3, 100)
    assert per_connection < 16_384


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_storm_of_10000_connections_is_served(broker: BrokerProcess) -> None:
    _hold(broker, 10_000, 2, 5_000)
