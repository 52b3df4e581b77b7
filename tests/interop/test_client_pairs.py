"""Every client hears every other one, across versions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker_process import BrokerProcess
from interop.clients import CLIENTS, Client
from interop.driver import Driver
from interop.wire import Wire

PAIRS = [(client, version) for client in CLIENTS for version in client.versions if version >= 4]


@pytest.mark.parametrize("publishing", [pytest.param(pair, id=f"{pair[0].name}-{pair[1]}") for pair in PAIRS])
def test_every_client_hears_this_one(
    publishing: tuple[Client, int],
    listeners: list[Wire],
    session_broker: BrokerProcess,
    driver_of: Callable[[Client], Driver],
) -> None:
    client, version = publishing
    wire = Wire(session_broker, driver_of(client), version)
    topic = f"pairs/{wire.root}"
    try:
        publisher = wire.connect()
        for qos in (0, 1, 2):
            publisher.publish(topic, b"%d" % qos, qos)
        for listener in listeners:
            received = [listener.connections[0].receive() for _ in range(3)]
            told = f"{listener.driver.title} ({listener.version})"
            assert [(told, m.topic, m.payload, m.qos) for m in received] == [
                (told, topic, b"%d" % qos, qos) for qos in (0, 1, 2)
            ]
    finally:
        wire.close()


@pytest.fixture(scope="module")
def listeners(session_broker: BrokerProcess, driver_of: Callable[[Client], Driver]):
    """One connection of every client and version that is there, subscribed to all pairs."""
    wires = [Wire(session_broker, driver_of(client), version) for client, version in PAIRS if not client.missing()]
    try:
        for wire in wires:
            wire.connect().subscribe("pairs/#", qos=2)
        yield wires
    finally:
        for wire in wires:
            wire.close()
