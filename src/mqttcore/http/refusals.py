"""What HTTP answers with an error, told to traces of the client's address: why a client cannot connect."""

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mqttcore.http.connection import HttpConnection

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["tell_refusal"]


def tell_refusal(broker: "Broker", request: web.Request, answer: web.StreamResponse, listener: str | None) -> None:
    """Tell of an answer, if it is one of 400 and above. Costs next to nothing while no address is traced."""
    if answer.status < 400 or not broker.traces.watches_addresses:
        return
    # Without the query, where clients of Alibaba's API have signatures and tokens.
    path = request.rel_url.raw_path
    broker.traces.request_refused(_address(request), listener, request.method, path, answer.status, _detail(answer))


def _address(request: web.Request) -> Any:
    if isinstance(request.protocol, HttpConnection):
        return request.protocol.address
    return None if request.transport is None else request.transport.get_extra_info("peername")


def _detail(answer: web.StreamResponse) -> str | None:
    if answer.content_type != "application/problem+json" or not isinstance(answer, web.Response):
        return None
    body = answer.body
    detail = json.loads(body).get("detail") if isinstance(body, bytes) else None
    return detail if isinstance(detail, str) else None
