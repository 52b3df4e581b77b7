"""The plugin: one POST a batch; what the receiver does not take is sent again, in order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Annotated

import aiohttp
import msgspec
import orjson
from msgspec import Meta

from mqttcore import ConfigError, Secret, Sink, SinkConfig, SinkRejected, as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqttcore import SinkRecord

__all__ = ["Webhook"]

_AGAIN = {408, 425, 429}  # client errors that time may heal (RFC 9110 §15.5.9, RFC 8470, RFC 6585)
_RETRY_AFTER_MAXIMUM_S = 60.0


class WebhookConfig(SinkConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugins.webhook]`; what is sent is said by `events` and `topic_filters`."""

    url: Annotated[str, Meta(pattern=r"^https?://", description="Gets a POST with a JSON array for each batch.")]
    headers: Annotated[dict[str, Secret], Meta(description="Headers of the request; shown to nobody.")] = msgspec.field(
        default_factory=dict
    )
    secret: Annotated[
        Secret | None,
        Meta(
            description="Key: requests then carry `X-Mqttcore-Timestamp`, seconds, and `X-Mqttcore-Signature`, the "
            "hexadecimal HMAC-SHA256 of timestamp, a dot and the body; not set: none."
        ),
    ] = None
    connections_maximum: Annotated[int, Meta(ge=1, le=1000, description="Connections to the receiver.")] = 8


class Webhook(Sink):
    """POSTs batches; 2xx takes them, client errors but 408, 425 and 429 reject them, anything else means again."""

    Config = WebhookConfig
    name = "webhook"

    def __init__(self, config: WebhookConfig) -> None:
        super().__init__(config)
        self._secret = _key(config.secret)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the pool of connections."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.config.connections_maximum),
            headers={name: value.reveal() for name, value in self.config.headers.items()},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def send(self, records: Sequence[SinkRecord]) -> None:
        """POST the batch."""
        assert self._session is not None
        body = orjson.dumps([as_json(record) for record in records])
        headers = {"Content-Type": "application/json"}
        if self._secret:
            timestamp = str(int(time.time()))
            signed = hmac.digest(self._secret, timestamp.encode() + b"." + body, hashlib.sha256)
            headers |= {"X-Mqttcore-Timestamp": timestamp, "X-Mqttcore-Signature": signed.hex()}
        async with self._session.post(self.config.url, data=body, headers=headers, allow_redirects=False) as response:
            if 200 <= response.status < 300:
                return
            if 400 <= response.status < 500 and response.status not in _AGAIN:
                raise SinkRejected(f"HTTP status {response.status}")
            await asyncio.sleep(_retry_after_s(response.headers.get("Retry-After", "")))
            raise aiohttp.ClientError(f"HTTP status {response.status}")

    async def close(self) -> None:
        """Close the pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _retry_after_s(text: str) -> float:
    return min(float(text), _RETRY_AFTER_MAXIMUM_S) if text.isdecimal() else 0.0


def _key(secret: Secret | None) -> bytes:
    key = b"" if secret is None else secret.reveal().encode()
    if secret is not None and len(key) < 16:
        raise ConfigError("secret", "the key is shorter than 16 bytes")
    return key
