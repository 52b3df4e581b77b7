"""Plugin `aliyun_token`: the token service over HTTP, `/token/apply`, `/token/query` and `/token/revoke`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from mqttcore import MqttCoreError, hookimpl

from .profile import Profile, profile_of
from .rates import Rates
from .settings import TokenConfig
from .signatures import is_signed_request
from .token_service import (
    BAD_PARAMETER,
    CREATION_FAILED,
    OK,
    REVOCATION_FAILED,
    SIGNATURE_ERROR,
    ServiceError,
    TokenService,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from mqttcore import Broker

    from .records import AccessKey

__all__ = ["AliyunToken"]

log = logging.getLogger("mqttcore.plugins.aliyun")

_SIGNED_FOR_APPLY = ("actions", "expireTime", "instanceId", "resources", "serviceName")
_SIGNED_FOR_TOKEN = ("token",)


class AliyunToken:
    """Serves the token service on the HTTP listeners, for the access keys of `aliyun_auth`.

    Answers are JSON with HTTP status 200, whatever they say: clients read the body of nothing else.
    """

    name = "aliyun_token"
    Config = TokenConfig

    def __init__(self, config: TokenConfig) -> None:
        self._config = config
        self._profile: Profile | None = None
        self._service: TokenService | None = None
        self._limits = {
            "apply": (Rates(config.applications_per_s), CREATION_FAILED),
            "query": (Rates(config.queries_per_s), BAD_PARAMETER),
            "revoke": (Rates(config.revocations_per_minute / 60), REVOCATION_FAILED),
        }

    @property
    def settings(self) -> TokenConfig:
        """What tokens may be asked for."""
        return self._config

    @property
    def service(self) -> TokenService:
        """The service itself, for other faces of it."""
        if self._service is None:
            raise MqttCoreError("aliyun_token has not started")
        return self._service

    @hookimpl
    def startup(self, broker: Broker) -> None:
        """Find the registry."""
        self._profile = profile_of(broker)
        self._service = TokenService(self._profile.registry, self._profile.tokens, self._config)

    @hookimpl
    def http_routes(self, broker: Broker) -> Iterable[web.AbstractRouteDef]:
        """Give the three paths, for GET and POST."""
        return [
            web.route(method, f"/token/{name}", handler)
            for name, handler in (("apply", self._apply), ("query", self._query), ("revoke", self._revoke))
            for method in ("GET", "POST")
        ]

    async def _apply(self, request: web.Request) -> web.Response:
        async def work(key: AccessKey, given: Mapping[str, str]) -> dict[str, Any]:
            if given["serviceName"] != "mq" or given.get("proxyType", "MQTT") != "MQTT":
                raise ServiceError(BAD_PARAMETER, "serviceName is mq, proxyType is MQTT")
            expires = given["expireTime"]
            if not (expires.isascii() and expires.isdecimal() and len(expires) <= 18):
                raise ServiceError(BAD_PARAMETER, "expireTime: no time in milliseconds")
            token = self.service.apply(
                key,
                instance_id=given["instanceId"],
                resources=given["resources"].split(","),
                actions=given["actions"],
                expires_ms=int(expires),
            )
            return {"tokenData": token}

        return await self._answer("apply", request, _SIGNED_FOR_APPLY, work)

    async def _query(self, request: web.Request) -> web.Response:
        async def work(key: AccessKey, given: Mapping[str, str]) -> dict[str, Any]:
            self.service.query(key, given["token"])
            return {}

        return await self._answer("query", request, _SIGNED_FOR_TOKEN, work)

    async def _revoke(self, request: web.Request) -> web.Response:
        async def work(key: AccessKey, given: Mapping[str, str]) -> dict[str, Any]:
            await self.service.revoke(key, given["token"])
            return {}

        return await self._answer("revoke", request, _SIGNED_FOR_TOKEN, work)

    async def _answer(
        self,
        name: str,
        request: web.Request,
        signed: tuple[str, ...],
        work: Callable[[AccessKey, Mapping[str, str]], Awaitable[dict[str, Any]]],
    ) -> web.Response:
        try:
            given = await _parameters(request, self._config.body_bytes_maximum)
            missing = [one for one in (*signed, "accessKey", "signature") if not given.get(one)]
            if missing:
                raise ServiceError(BAD_PARAMETER, f"missing: {', '.join(missing)}")
            key = self._signer(given, signed)
            rates, refusal = self._limits[name]
            if not rates.take(key.access_key_id):
                raise ServiceError(refusal, "too many requests, try again later")
            said: dict[str, Any] = {"success": True, "message": "operation success", "code": OK}
            said |= await work(key, given)
        except ServiceError as error:
            said = {"success": False, "message": str(error), "code": error.code}
        except MqttCoreError as error:  # not written
            log.error("token service, %s: %s", name, error)
            code = REVOCATION_FAILED if name == "revoke" else CREATION_FAILED
            said = {"success": False, "message": "internal error", "code": code}
        return web.json_response(said)

    def _signer(self, given: Mapping[str, str], signed: tuple[str, ...]) -> AccessKey:
        assert self._profile is not None
        key = self._profile.registry.access_keys.find(given["accessKey"])
        parameters = {name: given[name] for name in signed}
        is_good = is_signed_request(key.secret if key is not None else "", parameters, given["signature"])
        if key is None or not is_good or not key.is_enabled:
            raise ServiceError(SIGNATURE_ERROR, "unknown access key, or bad signature")
        return key


async def _parameters(request: web.Request, bytes_maximum: int) -> dict[str, str]:
    """Return the parameters of the query string and of a form in the body, urlencoded or multipart."""
    given: dict[str, str] = {}
    pairs: list[tuple[str, Any]] = list(request.query.items())
    if request.method == "POST" and request.can_read_body:
        if (request.content_length or 0) > bytes_maximum:
            raise ServiceError(BAD_PARAMETER, f"the body has more than {bytes_maximum} bytes")
        try:
            pairs += (await request.post()).items()
        except (ValueError, web.HTTPRequestEntityTooLarge) as error:
            raise ServiceError(BAD_PARAMETER, "the body is no form") from error
    for name, value in pairs:
        if not isinstance(value, str) or name in given:
            raise ServiceError(BAD_PARAMETER, "a parameter is a file, or given twice")
        given[name] = value
    return given
