"""The management API as tests ask it."""

from typing import Any

import aiohttp
import msgspec

from mqttcore import Broker, Config, Listener
from mqttcore.config import HttpApi

from .clients import address_of
from .conftest import quiet_config

WEB = Listener(name="web", port=0, protocol="http")


def api_config(**settings: Any) -> Config:
    """Return a configuration with an HTTP listener, one for MQTT behind it, and this `[http_api]`."""
    config = quiet_config(WEB, Listener(name="tcp", port=0))
    return msgspec.structs.replace(config, http_api=HttpApi(**settings))


class Api:
    """Asks one broker; `async with`."""

    def __init__(self, broker: Broker, key: str | None = None) -> None:
        host, port = address_of(broker)
        self.url = f"http://{host}:{port}"
        self._headers = {"authorization": f"Bearer {key}"} if key is not None else {}

    async def __aenter__(self) -> "Api":
        self._session = aiohttp.ClientSession(headers=self._headers)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def status(self, method: str, path: str, **given: Any) -> int:
        """Return the status of the answer, whatever it is."""
        async with self._session.request(method, f"{self.url}/api/v1{path}", **given) as answer:
            return answer.status

    async def ask(self, method: str, path: str, *, expect: int = 200, headers=None, **given: Any) -> Any:
        """Return the JSON of the answer, None when it has none; *expect* is its status."""
        async with self._session.request(method, f"{self.url}/api/v1{path}", headers=headers, **given) as answer:
            assert answer.status == expect, await answer.text()
            body = await answer.read()
            if answer.status >= 400:
                assert answer.content_type == "application/problem+json"
                assert (await answer.json(content_type=None))["status"] == expect
            return await answer.json(content_type=None) if body else None
