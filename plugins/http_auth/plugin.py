"""The plugin: asks a URL about each CONNECT."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Annotated, Literal

import aiohttp
import msgspec
from msgspec import Meta

from mqttcore import Identity, ReasonCode, Refusal, Secret, hookimpl

from .answers import parse_answer
from .breaker import Breaker

if TYPE_CHECKING:
    from mqttcore import Broker, ClientView, Connect

__all__ = ["HttpAuth"]

_log = logging.getLogger("mqttcore.plugins.http_auth")


class HttpAuthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugins.http_auth]`."""

    url: Annotated[str, Meta(pattern=r"^https?://", description="Asked by POST for each CONNECT.")]
    body: Annotated[Literal["json", "form"], Meta(description="How the fields are sent.")] = "json"
    fields: Annotated[
        dict[str, str],
        Meta(
            min_length=1,
            description="Fields of the request; `${username}`, `${password}`, `${clientid}`, `${peerhost}` and "
            "`${listener}` are filled in.",
        ),
    ] = msgspec.field(
        default_factory=lambda: {"username": "${username}", "password": "${password}", "clientId": "${clientid}"}
    )
    headers: Annotated[dict[str, Secret], Meta(description="Headers of the request; shown to nobody.")] = msgspec.field(
        default_factory=dict
    )
    timeout_s: Annotated[float, Meta(ge=0.05, le=60, description="Longest time an answer may take.")] = 3.0
    connections_maximum: Annotated[int, Meta(ge=1, le=1000, description="Connections to the service.")] = 32
    waiting_maximum: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Requests under way or waiting; more clients are told Server busy.")
    ] = 1000
    response_bytes_maximum: Annotated[int, Meta(ge=64, le=10_000_000, description="Longest answer.")] = 4096
    rules_maximum: Annotated[int, Meta(ge=0, le=100_000, description="Rules in an answer.")] = 10
    cache_s: Annotated[
        float, Meta(ge=0, le=86_400, description="How long an `allow` is remembered for the same credentials; 0: not.")
    ] = 0.0
    cache_maximum: Annotated[int, Meta(ge=1, le=10_000_000, description="Answers that are remembered.")] = 10_000
    on_error: Annotated[
        Literal["refuse", "ignore"],
        Meta(description="Without a proper answer: refuse, or leave it to the next plugin (EMQX's convention)."),
    ] = "refuse"
    breaker_failures: Annotated[int, Meta(ge=1, le=1000, description="Failures in a row before we stop asking.")] = 5
    breaker_s: Annotated[float, Meta(ge=0.1, le=3600, description="How long we then do not ask.")] = 10.0


class HttpAuth:
    """Authenticates by asking a web service; fails closed."""

    Config = HttpAuthConfig
    is_replaceable = True

    def __init__(self, config: HttpAuthConfig) -> None:
        self.config = config
        self._session: aiohttp.ClientSession | None = None
        self._breaker = Breaker(failures_maximum=config.breaker_failures, open_s=config.breaker_s)
        self._waiting = 0
        self._cache: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._cache_key = secrets.token_bytes(32)  # credentials are remembered as keyed digests only
        self._broker: Broker | None = None

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        """Open the pool of connections."""
        self._broker = broker
        section = broker.plugin_section("http_auth")
        section.measure("requests_waiting", lambda: self._waiting)
        section.measure("answers_remembered", lambda: len(self._cache))
        section.measure("breaker_open", lambda: self._breaker.is_open)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.config.connections_maximum),
            timeout=aiohttp.ClientTimeout(total=self.config.timeout_s),
            headers={name: value.reveal() for name, value in self.config.headers.items()},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @hookimpl
    async def shutdown(self, broker: Broker) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @hookimpl
    async def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal | None:
        """Ask the service, or remember what it said."""
        digest = self._digest(connect)
        now_s = time.monotonic()
        remembered = self._cache.get(digest)
        if remembered is not None and remembered[0] > now_s:
            return remembered[1]
        if not self._breaker.allows(now_s):
            return self._no_answer()
        if self._waiting >= self.config.waiting_maximum:
            self._breaker.cancelled()
            return Refusal(ReasonCode.SERVER_BUSY)
        self._waiting += 1
        try:
            answer = await self._asked(client, connect)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            _log.error("%s: client %s: %s: %s", self.config.url, connect.client_id, type(error).__name__, error)
            self._breaker.failed(time.monotonic())
            self._tell()
            return self._no_answer()
        except asyncio.CancelledError:
            self._breaker.cancelled()
            raise
        finally:
            self._waiting -= 1
        self._breaker.succeeded()
        self._tell()
        if isinstance(answer, Identity):
            self._remember(digest, answer)
        return answer

    def _no_answer(self) -> Refusal | None:
        return None if self.config.on_error == "ignore" else Refusal(ReasonCode.SERVER_UNAVAILABLE)

    async def _asked(self, client: ClientView, connect: Connect) -> Identity | Refusal | None:
        assert self._session is not None
        fields = self._filled(client, connect)
        request = aiohttp.JsonPayload(fields) if self.config.body == "json" else aiohttp.FormData(fields)
        async with self._session.post(self.config.url, allow_redirects=False, data=request) as response:
            if response.status == 204 and self.config.on_error == "ignore":
                return Identity(connect.user_name or connect.client_id)  # EMQX: allowed, nothing to add
            if response.status != 200:
                raise ValueError(f"HTTP status {response.status}")
            if response.content_type != "application/json":
                raise ValueError(f"content type {response.content_type!r}")
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > self.config.response_bytes_maximum:
                    raise ValueError(f"an answer of more than {self.config.response_bytes_maximum} bytes")
        name = connect.user_name or connect.client_id
        return parse_answer(bytes(body), name, rules_maximum=self.config.rules_maximum)

    def _filled(self, client: ClientView, connect: Connect) -> dict[str, str]:
        address = client.address
        values = {
            "${username}": connect.user_name or "",
            "${password}": (connect.password or b"").decode("utf-8", "replace"),
            "${clientid}": connect.client_id,
            "${peerhost}": str(address[0]) if isinstance(address, tuple) else "",
            "${listener}": client.listener or "",
        }
        return {name: values.get(text, text) for name, text in self.config.fields.items()}

    def _digest(self, connect: Connect) -> bytes:
        parts = (connect.client_id.encode(), (connect.user_name or "").encode(), connect.password or b"")
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._cache_key, text + bytes([connect.user_name is None]), hashlib.sha256)

    def _remember(self, digest: bytes, identity: Identity) -> None:
        if not self.config.cache_s:
            return
        lasts_s = self.config.cache_s
        if identity.expires_at_s is not None:
            lasts_s = min(lasts_s, identity.expires_at_s - time.time())
        self._cache.pop(digest, None)
        self._cache[digest] = time.monotonic() + lasts_s, identity
        while len(self._cache) > self.config.cache_maximum:
            self._cache.popitem(last=False)

    def _tell(self) -> None:
        if self._broker is None:
            return
        if self._breaker.is_open:
            self._broker.raise_alarm("http_auth", f"{self.config.url} does not answer: not asked for a while")
        else:
            self._broker.clear_alarm("http_auth")
