"""`GET /route/clientId/get`: how many connections a client has (ALIYUN: online status, 2018 to 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import hdrs, web

from .names import group_of
from .signatures import is_signed_request

if TYPE_CHECKING:
    from .online import OnlineRegister
    from .registry import Registry

__all__ = ["status_route"]

_SIGNED = ("accessKey", "instanceId", "resource", "timestamp")  # here the access key is signed as well
_JSON = {hdrs.CONTENT_TYPE: "application/json; charset=utf-8"}
_MISSING, _SIGNATURE, _PERMISSION, _EXPIRED = 1, 2, 3, 4


def status_route(registry: Registry, register: OnlineRegister, *, window_s: float) -> web.RouteDef:
    """Return the route. window_s: how far the request's time may be off ours, either way."""

    async def answer(request: web.Request) -> web.Response:
        given = dict(request.query)
        timestamp = given.get("timestamp", "")
        is_time = timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 18
        is_complete = all(given.get(name) for name in (*_SIGNED, "signature")) and is_time
        if not is_complete or len(request.query) != len(given):
            return _reply(400, _MISSING, "a parameter is missing, given twice, or no time in milliseconds")
        key = registry.access_keys.find(given["accessKey"])
        parameters = {name: value for name, value in given.items() if name != "signature"}
        is_good = is_signed_request(key.secret if key is not None else "", parameters, given["signature"])
        if key is None or not is_good or not key.is_enabled:
            return _reply(403, _SIGNATURE, "unknown access key, or bad signature")
        if abs(registry.now_ms() - int(timestamp)) > window_s * 1000:
            return _reply(403, _EXPIRED, "the timestamp is too far from now")
        instance_id, group_id = given["instanceId"], group_of(given["resource"])
        if (
            not registry.has_instance(instance_id)
            or not key.may_use(instance_id)
            or group_id is None
            or not key.owns_group(group_id)
            or (instance_id, group_id) not in registry.groups
        ):
            return _reply(403, _PERMISSION, "the access key does not own the client's group")
        return _reply(200, 0, "operation success", online=register.connections(given["resource"]))

    return web.get("/route/clientId/get", answer)


def _reply(status: int, code: int, message: str, *, online: int = -1) -> web.Response:
    said = {"code": code, "success": code == 0, "online": online, "message": message}
    return web.Response(body=orjson.dumps(said), status=status, headers=_JSON)
