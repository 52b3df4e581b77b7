"""A client of the management API, for the command line: one request after another."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ApiClient", "ApiFailed"]

_TIMEOUT_S = 30.0


class ApiFailed(Exception):
    """An answer that is an error, or none."""


class _ByUnixSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket; the host is this machine."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a port."""
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("there are no Unix sockets on this system")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ApiClient:
    """Asks the broker at *url*: `http://…`, `https://…`, or `unix:///PATH` for a Unix socket.

    key_file: whose first line is the key; else the environment's MQTTCORE_API_KEY. tls: for https. Raises OSError and
    ApiFailed.
    """

    def __init__(self, url: str, *, key_file: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._unix_path = unquote(parts.path) if parts.scheme == "unix" and not parts.netloc else ""
        if not self._unix_path and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ApiFailed(f"{url} is no http://, https:// or unix:/// address")
        self._root = "" if self._unix_path else parts.path.rstrip("/")
        self._parts = parts
        self._tls = tls
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
        target = f"{self._root}/api/v1{path.format(*(quote(one, safe='') for one in places))}"
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
            raise ApiFailed(f"{self._unix_path or self._parts.netloc}: {_fault(error, self._parts.scheme)}") from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiFailed(_reason(answer.status, data))
        return data

    def pages(self, path: str, *places: str, name: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Yield the items called *name* of all pages, as they are asked for."""
        cursor: str | None = ""
        while cursor is not None:
            page = self.ask("GET", path, *places, query=query | {"cursor": cursor})
            yield from page[name]
            cursor = page["next_cursor"]

    def _connect(self) -> http.client.HTTPConnection:
        if self._unix_path:
            return _ByUnixSocket(self._unix_path)
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._tls)


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
