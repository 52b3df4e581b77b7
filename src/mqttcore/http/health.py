"""Whether the process lives and takes clients, for load balancers and orchestrators."""

from typing import TYPE_CHECKING

from aiohttp import web

from mqttcore.http.replies import json_reply, problem

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["routes"]


def routes(broker: "Broker") -> list[web.RouteDef]:
    """Return `/healthz` and `/readyz`."""

    async def healthz(request: web.Request) -> web.Response:
        """Answer at all: the event loop turns."""
        return json_reply({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        """Say whether new clients are taken: not while the broker starts or stops; and the names of its alarms."""
        if broker.is_ready:
            return json_reply({"status": "ready", "alarms": sorted(broker.alarms)})
        return problem(503, "the broker takes no clients now")

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
