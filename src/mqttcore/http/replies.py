"""Answers: JSON by orjson, errors as problem details (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import hdrs, web

__all__ = ["NDJSON", "SERVER", "json_reply", "problem"]

SERVER = "mqttcore"  # without a version: it would only tell which holes to try

NDJSON = "application/x-ndjson"  # one JSON object a line


def json_reply(value: Any, *, status: int = 200) -> web.Response:
    """Return *value* as JSON; what orjson serializes."""
    return web.Response(
        body=orjson.dumps(value), status=status, content_type="application/json", headers={hdrs.SERVER: SERVER}
    )


def problem(
    status: int,
    detail: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> web.Response:
    """Return an error. detail: what is wrong with this very request, for people. members: further ones of the JSON."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, **members}
    if detail:
        body["detail"] = detail
    return web.Response(
        body=orjson.dumps(body),
        status=status,
        content_type="application/problem+json",
        headers={**(headers or {}), hdrs.SERVER: SERVER},
    )
