"""A client of the management API, for the command line: one request after another."""

from __future__ import annotations

import http.client
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson

__all__ = ["ApiClient", "ApiFailed"]

_TIMEOUT_S = 30.0


class ApiFailed(Exception):
    """An answer that is an error, or none."""


class ApiClient:
    """Asks the broker at *url*. key_file: whose first line is the key; else the environment's MQTTCORE_API_KEY.

    cafile: certificates that the broker's comes from; else the system's. Raises OSError and ApiFailed.
    """

    def __init__(self, url: str, *, key_file: str | None = None, cafile: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiFailed(f"{url} is no http:// or https:// address")
        self._parts = parts
        self._cafile = cafile
        key = Path(key_file).read_text(encoding="utf-8") if key_file else os.environ.get("MQTTCORE_API_KEY", "")
        self._key = key.strip().partition("\n")[0].strip()

    def ask(self, method: str, path: str, *places: str, query: dict[str, str] | None = None, body: Any = None) -> Any:
        """Return the JSON of the answer. path: below `/api/v1`; *places* go where it has `{}`."""
        data = self._ask(method, path, *places, query=query, body=body)
        return orjson.loads(data) if data else None

    def fetch(self, path: str, *places: str) -> bytes:
        """Return the answer to a GET as it is, JSON or not."""
        return self._ask("GET", path, *places)

    def _ask(
        self, method: str, path: str, *places: str, query: dict[str, str] | None = None, body: Any = None
    ) -> bytes:
        target = f"{self._parts.path.rstrip('/')}/api/v1{path.format(*(quote(one, safe='') for one in places))}"
        if query:
            target += f"?{urlencode(query)}"
        headers = {"Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = self._connect()
        try:
            connection.request(method, target, None if body is None else orjson.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiFailed(f"{self._parts.netloc}: {_fault(error, self._parts.scheme)}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiFailed(_reason(answer.status, data))
        return data

    def pages(self, path: str, name: str, query: dict[str, str]) -> list[dict[str, Any]]:
        """Return the items called *name* of all pages."""
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.ask("GET", path, query=query | {"cursor": cursor})
            found += page[name]
            cursor = page["next_cursor"]
        return found

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        context = ssl.create_default_context(cafile=self._cafile)
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)


def _fault(error: Exception, scheme: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}; --cafile names the authorities to trust"
    if isinstance(error, ssl.SSLError) and error.reason:
        hint = "; perhaps it is http://" if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE") else ""
        return f"TLS: {error.reason.replace('_', ' ').lower()}{hint}"
    if isinstance(error, http.client.RemoteDisconnected) and scheme == "http":
        return "the server closed the connection without an answer; perhaps it is https://"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _reason(status: int, data: bytes) -> str:
    try:
        said = orjson.loads(data)
        return str(said.get("detail") or said["title"])
    except (orjson.JSONDecodeError, AttributeError, KeyError):
        return f"HTTP status {status}"
