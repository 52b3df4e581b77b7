"""What plugins are given, without a broker: for tests of one plugin's own logic."""

from __future__ import annotations

from typing import Any

from mqttcore import Connect, Section


class Client:
    """The attributes of a ClientView that authenticators look at."""

    def __init__(self, client_id: str = "c", address: Any = ("127.0.0.1", 50000)) -> None:
        self.client_id = client_id
        self.address = address
        self.listener = "default"


class Alarms:
    """A Broker as far as alarms and metrics go."""

    def __init__(self) -> None:
        self.raised: dict[str, str] = {}

    def plugin_section(self, name: str) -> Section:
        return Section(name)

    def raise_alarm(self, name: str, text: str) -> None:
        self.raised[name] = text

    def clear_alarm(self, name: str) -> None:
        self.raised.pop(name, None)


def connect(client_id: str = "c", user_name: str | None = None, password: bytes | None = None) -> Connect:
    """A CONNECT of MQTT 5."""
    return Connect(client_id=client_id, user_name=user_name, password=password)
