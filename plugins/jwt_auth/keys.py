"""Where the keys come from that tokens are verified with: a secret, a PEM file, or a JWK Set (RFC 7517)."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FixedKey", "JwkSet", "UnknownKey", "is_symmetric"]

_log = logging.getLogger("mqttcore.plugins.jwt_auth")

_SET_BYTES_MAXIMUM = 1_000_000
_KEYS_MAXIMUM = 1000


class UnknownKey(Exception):
    """No key of ours is the one that the token names."""


def is_symmetric(algorithm: str) -> bool:
    """Say whether the key of an algorithm is a shared secret (RFC 7518 §3.2)."""
    return algorithm.startswith("HS")


class FixedKey:
    """One key for every token."""

    def __init__(self, key: Any) -> None:
        self._key = key

    async def find(self, key_id: str | None) -> Any:
        """Return the key."""
        return self._key


class JwkSet:
    """The keys behind a URL, fetched again every *refresh_s*, and sooner when a token names a key that is not among
    them.

    Once fetched, keys stay in force while the URL cannot be had: a service that is down must not lock everybody out.
    """

    def __init__(self, url: str, *, refresh_s: float, again_s: float = 10.0, timeout_s: float = 5.0) -> None:
        self.url = url
        self.refresh_s = refresh_s
        self.again_s = again_s  # the least time between two fetches that unknown keys ask for
        self.fetches = 0
        self.failures = 0
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._keys: dict[str | None, Any] = {}
        self._fetched_s = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._fetching = asyncio.Lock()

    async def start(self, when_failed: Callable[[str], object], when_fetched: Callable[[], object]) -> None:
        """Fetch the keys, and from now on again and again; a first fetch that fails is no error."""
        self._when_failed, self._when_fetched = when_failed, when_fetched
        await self._fetch()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def find(self, key_id: str | None) -> Any:
        """Return the key of that id; without an id, the only one there is. Raises UnknownKey."""
        key = self._found(key_id)
        if key is None and time.monotonic() - self._fetched_s >= self.again_s:
            async with self._fetching:  # whoever waited looks at what the first one fetched
                key = self._found(key_id)
                if key is None and time.monotonic() - self._fetched_s >= self.again_s:
                    await self._fetch()
            key = self._found(key_id)
        if key is None:
            raise UnknownKey
        return key

    def _found(self, key_id: str | None) -> Any:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.refresh_s)
            async with self._fetching:
                await self._fetch()

    async def _fetch(self) -> None:
        self._fetched_s = time.monotonic()
        self.fetches += 1
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.get(self.url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise ValueError(f"HTTP status {response.status}")
                body = bytearray()
                async for part in response.content.iter_any():
                    body += part
                    if len(body) > _SET_BYTES_MAXIMUM:
                        raise ValueError(f"more than {_SET_BYTES_MAXIMUM} bytes")
            self._keys = _parsed(bytes(body))
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            self.failures += 1
            _log.error("keys at %s: %s: %s; the former ones stay", self.url, type(error).__name__, error)
            self._when_failed(f"keys at {self.url} cannot be had: {error}")
        else:
            self._when_fetched()


def _parsed(body: bytes) -> dict[str | None, Any]:
    document = orjson.loads(body)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("no JWK Set")
    if len(document["keys"]) > _KEYS_MAXIMUM:
        raise ValueError(f"more than {_KEYS_MAXIMUM} keys")
    found: dict[str | None, Any] = {}
    for key in jwt.PyJWKSet.from_dict(document).keys:
        if key.public_key_use in (None, "sig"):
            found[key.key_id] = key
    return found
