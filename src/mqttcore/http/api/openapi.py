"""The OpenAPI 3.1 document of the management API, made of its operations."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from mqttcore._version import __version__
from mqttcore.http.api.mqtt_types import NOT_BOTH_PAYLOADS, MessageGiven
from mqttcore.http.api.operation import Operation

__all__ = ["document"]

_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_ALWAYS = (400, 401, 403, 408, 413, 415, 429, 500, 503)
_REF = "#/components/schemas/{name}"


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document."""
    kinds = [kind for one in operations for kind in (one.answer, one.body, one.query) if kind is not None]
    shapes, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    by_kind = dict(zip(kinds, shapes, strict=True))
    given: list[type[MessageGiven]] = [MessageGiven, *MessageGiven.__subclasses__()]
    for kind in given:
        components[kind.__name__] |= NOT_BOTH_PAYLOADS
    queries = {one.query for one in operations if one.query is not None}
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, by_kind, components)
    kept = {name: shape for name, shape in components.items() if name not in {kind.__name__ for kind in queries}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "mqttcore", "version": __version__, "description": "Management of an MQTT broker."},
        "servers": [{"url": "/api/v1"}],
        "paths": paths,
        "components": {
            "schemas": {**kept, "Problem": _PROBLEM},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _operation(one: Operation, by_kind: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", one.path)
    ]
    if one.query is not None:
        shape = components[one.query.__name__]
        for name, schema in shape["properties"].items():
            parameters.append(
                {"name": name, "in": "query", "required": name in shape.get("required", ()), "schema": _bare(schema)}
            )
    responses: dict[str, Any] = {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
        for status in sorted({*_ALWAYS, *one.errors})
    }
    if one.answer is None:
        responses["204"] = {"description": "Done"}
    else:
        responses["200"] = {
            "description": "Done",
            "content": {one.media_type: {"schema": by_kind[one.answer]}},
        }
    made: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "description": f"For keys of a {one.role.name.lower()} and above.",
        "parameters": parameters,
        "responses": dict(sorted(responses.items())),
    }
    if one.body is not None:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_kind[one.body]}}}
    return made


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    # A query has no null: what is not given is left out.
    if "anyOf" in schema:
        others: list[dict[str, Any]] = [one for one in schema["anyOf"] if one != {"type": "null"}]
        if len(others) == 1:
            return others[0]
    return {key: value for key, value in schema.items() if (key, value) != ("default", None)}
