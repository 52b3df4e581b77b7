"""Stand-ins: a broker that remembers what it was asked to do, an HTTP server for a plugin's routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from mqttcore import MqttCoreError


class SectionDouble:
    """Takes gauges, and can be asked for them."""

    def __init__(self) -> None:
        self.measured: dict[str, Any] = {}

    def measure(self, key: str, function: Any) -> None:
        self.measured[key] = function


class BrokerDouble:
    """Takes what plugins ask of a broker, does nothing, remembers it."""

    def __init__(self) -> None:
        self.plugins: dict[str, object] = {}
        self.provided: dict[str, object] = {}
        self.emitted: list[Any] = []
        self.published: list[tuple[str, bytes, int]] = []
        self.known: list[Any] = []
        self.sections: dict[str, SectionDouble] = {}

    def provide(self, name: str, service: object) -> None:
        self.provided[name] = service

    def service(self, name: str) -> object:
        if name not in self.provided:
            raise MqttCoreError(name)
        return self.provided[name]

    def plugin_section(self, name: str) -> SectionDouble:
        return self.sections.setdefault(name, SectionDouble())

    def clients(self) -> list[Any]:
        return self.known

    def emit(self, event: object) -> None:
        self.emitted.append(event)

    def publish_nowait(self, topic: str, payload: bytes, *, qos: int = 0) -> int:
        if "#" in topic:
            raise ValueError(topic)
        self.published.append((topic, payload, qos))
        return 1


@asynccontextmanager
async def http_server(routes: Iterable[web.AbstractRouteDef]) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Serve routes on a free port of loopback; gives a client and the address."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession() as client:
            yield client, f"http://{host}:{port}"
    finally:
        await runner.cleanup()
