"""Routes of the management API: a request is checked for who asks and what is asked, then done."""

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from aiohttp import hdrs, web

from mqttcore.errors import MqttCoreError, NotPossible, QuotaExceeded
from mqttcore.http.access import Access, Denied
from mqttcore.http.api import (
    bans,
    clients,
    listeners,
    messages,
    plugins,
    queues,
    retained,
    sessions,
    state,
    subscriptions,
    topics,
    traces,
)
from mqttcore.http.api.mqtt_types import in_words
from mqttcore.http.api.openapi import document
from mqttcore.http.api.operation import ApiError, Call, Operation
from mqttcore.http.connection import HttpConnection
from mqttcore.http.keys import Role
from mqttcore.http.replies import SERVER, json_reply, problem

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

    from mqttcore.broker import Broker

__all__ = ["BASE", "guarded", "operations", "routes"]

BASE = "/api/v1"
_ROLE = web.RequestKey("role", Role)
_EXACT = 2**53
_NOUNS = (clients, queues, sessions, subscriptions, topics, retained, messages, bans, listeners, plugins, traces, state)


def operations(broker: "Broker") -> list[Operation]:
    """Return all operations."""
    return [one for noun in _NOUNS for one in noun.operations(broker)]


def routes(broker: "Broker", access: Access) -> list[web.RouteDef]:
    """Return the routes of all operations, and of their OpenAPI document."""
    offered = operations(broker)
    described = orjson.dumps(document(offered))

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=described, content_type="application/json", headers={hdrs.SERVER: SERVER})

    return [
        web.route("GET", f"{BASE}/openapi.json", guarded(access, Role.VIEWER, openapi)),
        *(web.route(one.method, f"{BASE}{one.path}", guarded(access, one.role, _handler(one))) for one in offered),
    ]


def guarded(access: Access, role: Role, handler: "Handler") -> "Handler":
    """Return *handler* for those alone who may."""

    async def checked(request: web.Request) -> web.StreamResponse:
        try:
            key = access.check(request, role)
        except Denied as error:
            return problem(error.status, error.detail, headers=error.headers)
        if isinstance(request.protocol, HttpConnection):
            request.protocol.has_good_key()
        request[_ROLE] = Role.ADMIN if key is None else key.role
        answer = await handler(request)
        answer.headers[hdrs.CACHE_CONTROL] = "no-store"
        return answer

    return checked


def _handler(operation: Operation) -> "Handler":
    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            call = Call(
                dict(request.match_info),
                _query(request, operation.query),
                await _body(request, operation.body),
                role=request[_ROLE],
            )
            answer = await operation.function(call)
        except ApiError as error:
            return problem(error.status, error.detail)
        except (NotPossible, QuotaExceeded) as error:
            return problem(409, str(error))
        except MqttCoreError as error:
            return problem(503, str(error))
        except ValueError as error:  # what the broker says of topics, filters and properties
            return problem(400, in_words(error))
        if isinstance(answer, web.StreamResponse):
            return answer
        if operation.answer is None:
            return web.Response(status=204, headers={hdrs.SERVER: SERVER})
        return json_reply(msgspec.to_builtins(answer))

    return handler


def _query(request: web.Request, kind: Any) -> Any:
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise ApiError(400, f"{name} is given twice")
        given[name] = value
    if kind is None:
        if given:
            raise ApiError(400, f"unknown parameter {next(iter(given))}")
        return None
    found = msgspec.convert(given, kind, strict=False)
    for name in given:
        if getattr(found, name) is None:  # msgspec takes the word `null` for it
            raise ApiError(400, f"{name} has no value")
    return found


async def _body(request: web.Request, kind: Any) -> Any:
    if kind is None:
        if request.body_exists and await request.read():
            raise ApiError(400, "no body is expected")
        return None
    if request.content_type != "application/json":  # nor what a page's form can send
        raise ApiError(415, "the body must be application/json")
    said = await request.read()
    try:
        orjson.loads(said)  # refuses what `json` lets through: halves of surrogate pairs, which no answer could repeat
        given = json.loads(said.decode(), parse_float=_number, parse_int=_number, parse_constant=_refuse)
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply") from None
    return msgspec.convert(given, kind)


def _number(text: str) -> int | float:
    # In JSON 1.0 and 1 are the same number.
    value = float(text)
    if not math.isfinite(value):
        raise ApiError(400, "there is a number out of range")
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def _refuse(text: str) -> float:
    raise ApiError(400, f"{text} is no JSON")
