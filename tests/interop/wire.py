"""What a test works with: connections of one client in one protocol version, and names that no other test uses."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from broker_process import BrokerProcess
from interop.clients import CLIENTS
from interop.driver import Connection, Driver

_numbers = itertools.count(1)


def for_clients(*needs: str, versions: tuple[int, ...] = (4, 5)) -> pytest.MarkDecorator:
    """Run a test once for each client and version that has all capabilities in `needs`."""
    chosen = [
        pytest.param((client, version), id=f"{client.name}-{version}")
        for client in CLIENTS
        for version in client.versions
        if version in versions and client.can.issuperset(needs)
    ]
    return pytest.mark.parametrize("wire", chosen, indirect=True)


class Wire:
    """What a test holds: connections of one client in one protocol version, and names of its own."""

    def __init__(self, broker: BrokerProcess, driver: Driver, version: int, tls: dict[str, str] | None = None) -> None:
        self.broker = broker
        self.driver = driver
        self.version = version
        self.tls = tls  # files, as drivers/README.md has them
        self.root = f"interop/{next(_numbers)}"
        self.connections: list[Connection] = []

    def client_id(self) -> str:
        return f"c{next(_numbers)}"  # MQTT 3.1 allows 23 characters

    def connect(
        self,
        client_id: str | None = None,
        clean_start: bool = True,
        will: dict[str, Any] | None = None,
        **properties: Any,
    ) -> Connection:
        if will is not None:
            will = {"qos": 0, "retain": False, "properties": {}} | will | {"payload": will["payload"].hex()}
        command = {
            "version": self.version,
            "client_id": self.client_id() if client_id is None else client_id,
            "clean_start": clean_start,
            "keep_alive_s": 60,
            "will": will,
            "properties": properties,
        }
        port = self.broker.websocket_port if self.driver.client.is_websocket else self.broker.port
        connection = Connection(self.driver, f"n{next(_numbers)}", (self.broker.host, port), command, self.tls)
        self.connections.append(connection)
        return connection

    def connect_lasting(self, client_id: str) -> Connection:
        """Connect to a session that outlives its connections, in the words of the version."""
        if self.version == 5:
            return self.connect(client_id, clean_start=False, session_expiry_s=3600)
        return self.connect(client_id, clean_start=False)

    def close(self) -> None:
        """Disconnect what is still connected; where that fails, the rest is at least cut."""
        try:
            for connection in self.connections:
                if connection.relay.is_open:
                    connection.disconnect()
        finally:
            for connection in self.connections:
                connection.relay.cut()
