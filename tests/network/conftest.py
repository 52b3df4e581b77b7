"""Every test here runs on the event loops of asyncio and, where pyproject.toml requires it, of uvloop.

Those that take `driver` run over epoll and over asyncio transports too.
"""

import asyncio
import gc
import importlib.util
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mqttcore import Broker, Config, Limits, Listener


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories = {"asyncio": asyncio.new_event_loop}
    if importlib.util.find_spec("uvloop"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(params=["epoll", "transports"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the broker reaches its sockets; `transports` is what systems without epoll have."""
    monkeypatch.setattr(Broker, "_uses_poller", request.param == "epoll")
    return request.param


@pytest_asyncio.fixture(autouse=True)
async def nothing_stays_behind() -> AsyncIterator[None]:
    """No test leaves a task, a descriptor or an error that only the loop's handler saw."""
    loop = asyncio.get_running_loop()
    unhandled = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    descriptors = open_descriptors()
    yield
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    deadline_s = loop.time() + 60  # the kernel may tell the other end of a close a moment later
    while open_descriptors() - descriptors and loop.time() < deadline_s:
        gc.collect()
        await asyncio.sleep(0.005)
    assert not open_descriptors() - descriptors
    assert not unhandled


def open_descriptors() -> Counter[str]:
    """Return how many sockets and epolls the process has open; loops keep other descriptors as they like."""
    found = Counter[str]()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            kind = str(entry.readlink()).partition(":[")[0]
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if kind in ("socket", "anon_inode"):
            found[kind] += 1
    return found


@pytest.fixture
def config() -> Iterator[Config]:
    """A broker's configuration for tests: any free port of loopback, no `$SYS` messages."""
    return quiet_config()


def quiet_config(
    *listeners: Listener, sys_interval_s: int = 0, shutdown_timeout_s: float = 5, **limits: object
) -> Config:
    """Return a configuration for loopback; without listeners one on a free port."""
    return Config(
        listeners=list(listeners) or [Listener(port=0)],
        sys_interval_s=sys_interval_s,
        shutdown_timeout_s=shutdown_timeout_s,
        overload_lag_ms=0,  # a busy machine is no reason to refuse a client
        limits=Limits(**limits),
    )
