"""Says at an HTTP listener how many clients are connected; the name of the path is a setting."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from mqttcore import Broker, hookimpl


class HttpStatus:
    """Answers GET with a few gauges as JSON."""

    @dataclass(frozen=True)
    class Config:
        """Where."""

        path: Annotated[str, Meta(pattern="^/", description="Path of the resource.")] = "/status"

    def __init__(self, config: Config) -> None:
        self._path = config.path

    @hookimpl
    def http_routes(self, broker: Broker) -> Iterable[web.AbstractRouteDef]:
        """One route; its handler is a coroutine in the broker's loop and may use all of its services."""

        async def status(request: web.Request) -> web.Response:
            metrics = broker.metrics()
            shown = {name: metrics[name] for name in ("sessions_connected", "sessions", "subscriptions", "retained")}
            return web.json_response(shown | {"alarms": broker.alarms})

        return [web.get(self._path, status)]
