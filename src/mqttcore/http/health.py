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
        """Say whether new clients are taken; with `listener`, whether by that one.

        They are not while the broker starts or stops, nor when every listener that takes any was stopped.
        """
        if not broker.is_ready:
            return problem(503, "the broker takes no clients now")
        listeners = {one.name: one for one in broker.listeners}
        name = request.query.get("listener")
        if name is not None and name not in listeners:
            return problem(404, "there is no such listener")
        asked = [listeners[name]] if name is not None else [one for one in listeners.values() if one.takes_clients]
        if asked and not any(one.is_listening for one in asked):
            return problem(503, "no listener takes clients now" if name is None else "the listener was stopped")
        stopped = [one.name for one in listeners.values() if not one.is_listening]
        return json_reply({"status": "ready", "alarms": sorted(broker.alarms), "stopped_listeners": stopped})

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
