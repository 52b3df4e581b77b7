"""Fixtures: one driver process per client for the whole run, connections that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from broker_process import BrokerProcess
from interop.clients import Client
from interop.driver import Driver
from interop.wire import Wire


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "interop" in item.path.parts:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def driver_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Client], Driver]]:
    """Return a client's driver, started at its first use; a client that is not there skips the test."""
    folder = tmp_path_factory.mktemp("drivers")
    running: dict[str, Driver] = {}

    def find(client: Client) -> Driver:
        if client.name not in running:
            if reason := client.missing():
                pytest.skip(reason)
            running[client.name] = Driver(client, folder / f"{client.name}.stderr")
        return running[client.name]

    yield find
    for driver in running.values():
        driver.stop()


@pytest.fixture
def wire(
    request: pytest.FixtureRequest, session_broker: BrokerProcess, driver_of: Callable[[Client], Driver]
) -> Iterator[Wire]:
    client, version = request.param
    held = Wire(session_broker, driver_of(client), version)
    try:
        yield held
    finally:
        held.close()
