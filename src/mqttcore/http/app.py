"""The application that HTTP listeners serve, and what holds for every request of it."""

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from mqttcore.config import Listener, is_local
from mqttcore.errors import MqttCoreError
from mqttcore.http import health, metrics
from mqttcore.http.access import Access
from mqttcore.http.api.routes import guarded
from mqttcore.http.api.routes import routes as api_routes
from mqttcore.http.connection import HttpConnection
from mqttcore.http.keys import Role
from mqttcore.http.refusals import tell_refusal
from mqttcore.http.replies import SERVER, problem
from mqttcore.http.websocket import upgrade_handler
from mqttcore.net.listeners import BoundListener

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["make_app"]

log = logging.getLogger("mqttcore.http")


def make_app(
    broker: "Broker",
    settings: Listener,
    *,
    routes: Iterable[web.AbstractRouteDef] = (),
    allow_anonymous: bool = False,
    listener: "BoundListener | None" = None,
) -> web.Application:
    """Return the application of one listener.

    settings: its `http_…` and `websocket_…` fields count. routes: further ones, of plugins; MqttCoreError when one of
    them is there already. allow_anonymous: of MQTT clients. listener: the broker's own, which says that and counts.
    """
    app = web.Application(
        middlewares=[_telling(broker, listener), _bounded(settings.http_request_timeout_s)],
        client_max_size=settings.http_body_bytes_maximum,
    )
    app.add_routes(health.routes(broker))
    if broker.config.http_api.enabled:
        counting = listener or BoundListener("embedded", False, 0, 1, 1)
        access = Access(broker.config.http_api, counting, is_local=listener is not None and is_local(settings))
        app.router.add_get("/metrics", guarded(access, Role.VIEWER, metrics.handler(broker)))
        app.add_routes(api_routes(broker, access))
    if settings.websocket_path:
        handler = upgrade_handler(broker, settings, allow_anonymous=allow_anonymous, listener=listener)
        app.router.add_get(settings.websocket_path, handler, allow_head=False)
    for route in routes:
        _add(app, route)
    app.on_response_prepare.append(_name_server)
    return app


def _add(app: web.Application, route: web.AbstractRouteDef) -> None:
    before = {(one.method, one.resource.canonical) for one in app.router.routes() if one.resource is not None}
    try:
        added = route.register(app.router)
    except RuntimeError as error:  # aiohttp's word for one that comes next to its double
        raise MqttCoreError(f"an HTTP route cannot be added: {error}") from error
    for one in added:
        if one.resource is not None and (one.method, one.resource.canonical) in before:
            raise MqttCoreError(
                f"an HTTP route cannot be added: {one.method} {one.resource.canonical} is there already"
            )


async def _name_server(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = SERVER


def _telling(broker: "Broker", listener: BoundListener | None) -> Middleware:
    name = None if listener is None else listener.name

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let traces know of every answer that is an error."""
        answer = await handler(request)
        tell_refusal(broker, request, answer, name)
        return answer

    return middleware


def _bounded(timeout_s: float) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer in time, and every error as a problem; what a handler raises besides is logged."""
        if isinstance(request.protocol, HttpConnection):
            request.protocol.headers_are_complete()
            request = request.protocol.with_client(request)
        try:
            async with asyncio.timeout(timeout_s):
                return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            kept = {name: value for name, value in error.headers.items() if name not in (hdrs.CONTENT_TYPE,)}
            return problem(error.status, headers=kept)
        except TimeoutError:
            answer = problem(408, f"the request was not through within {timeout_s:g} s")
            answer.force_close()
            return answer
        except web.RequestPayloadError:
            answer = problem(400, "the body is not what its headers say")
            answer.force_close()
            return answer
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return problem(500)

    return middleware
