"""Plugin `aliyun_openapi`: the RPC endpoint that Alibaba's SDKs call, for the access keys of `aliyun_auth`."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import hdrs, web

from mqttcore import MqttCoreError, hookimpl

from ..profile import profile_of
from ..rates import Rates
from ..settings import OpenApiConfig, TokenConfig
from ..table import RegistryError
from ..token_http import AliyunToken
from ..token_service import TokenService
from .actions import ACTIONS, VERSIONS
from .call import Call, Services
from .errors import ApiError
from .nonces import Nonces
from .signing import claim_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqttcore import Broker

    from ..records import AccessKey
    from .signing import Claim

__all__ = ["AliyunOpenApi"]

log = logging.getLogger("mqttcore.plugins.aliyun")

_JSON = {hdrs.CONTENT_TYPE: "application/json; charset=utf-8"}


class AliyunOpenApi:
    """Serves the actions of OnsMqtt, POST and GET, at one path of the HTTP listeners.

    Answers are JSON with `RequestId`; errors have HTTP status 400, `Code`, `Message` and `HostId`, and 500 when it is
    our fault. Nothing but the form of a request is looked at before its signature.
    """

    name = "aliyun_openapi"
    Config = OpenApiConfig

    def __init__(self, config: OpenApiConfig) -> None:
        self._config = config
        self._services: Services | None = None
        self._nonces = Nonces(config.nonces_maximum)
        self._window_ms = round(config.timestamp_window_s * 1000)
        self._rate = Rates(config.calls_per_s)
        self._rates = {name: _rates(config, action.rate) for name, action in ACTIONS.items()}
        self._calls = 0
        self._refused = 0
        self._throttled = 0

    @hookimpl
    def startup(self, broker: Broker) -> None:
        """Find the registry, and the token service where there is one."""
        profile = profile_of(broker)
        beside = next((one for one in broker.plugins.values() if isinstance(one, AliyunToken)), None)
        settings = beside.settings if beside is not None else TokenConfig()
        tokens = TokenService(profile.registry, profile.tokens, settings)
        self._services = Services(broker, profile.registry, tokens, self._config)
        section = broker.plugin_section(self.name)
        section.measure("calls", lambda: self._calls)
        section.measure("calls_refused", lambda: self._refused)
        section.measure("calls_throttled", lambda: self._throttled)
        section.measure("nonces", self._nonces.__len__)
        section.measure("nonces_largest_share", lambda: self._nonces.largest_share)

    @hookimpl
    def http_routes(self, broker: Broker) -> Iterable[web.AbstractRouteDef]:
        """Give the one path."""
        return [web.route(method, self._config.path, self._answer) for method in ("POST", "GET")]

    async def _answer(self, request: web.Request) -> web.Response:
        request_id = str(uuid.uuid4()).upper()
        self._calls += 1
        try:
            said, status = await self._run(request), 200
        except (ApiError, RegistryError) as error:
            said, status = {"Code": error.code, "Message": str(error)}, 400
        except MqttCoreError as error:  # not written
            log.error("aliyun_openapi: %s", error)
            said, status = {"Code": "InternalError", "Message": "internal error"}, 500
        if status != 200:
            self._refused += 1
            said["HostId"] = request.host.encode(errors="replace").decode()  # any bytes may have been sent
        return web.Response(body=orjson.dumps({"RequestId": request_id} | said), status=status, headers=_JSON)

    async def _run(self, request: web.Request) -> dict[str, Any]:
        assert self._services is not None
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise ApiError("ParameterCheckFailed", "the body is too large") from error
        path, _, query = request.raw_path.partition("?")
        claim = claim_of(method=request.method, path=path, query=query, headers=request.headers, body=body)
        key = self._signer(claim)
        if claim.version not in VERSIONS:
            raise ApiError("InvalidVersion", f"versions: {', '.join(VERSIONS)}")
        action = VERSIONS[claim.version].get(claim.action)
        if action is None:
            raise ApiError("InvalidAction.NotFound", "there is no such action here")
        if claim.parameters.get("Format", "JSON").upper() != "JSON":
            raise ApiError("InvalidParameter.Format", "answers are JSON")
        if not self._rates[claim.action].take(key.access_key_id):
            raise self._throttle("Throttling.User", "too many requests for this action, try again later")
        # Last: what is not done, throttled above all, may as well come again, and takes no room.
        self._nonces.take(key.access_key_id, claim.nonce, until_ms=claim.time_ms + self._window_ms)
        return await action.run(Call(key, claim.parameters, self._services))

    def _signer(self, claim: Claim) -> AccessKey:
        """Return the key that a request was signed with. ApiError, also for one that came before or has to wait."""
        assert self._services is not None
        registry = self._services.registry
        key = registry.access_keys.find(claim.access_key_id)
        is_good = claim.is_signed(key.secret if key is not None else "")
        if key is None or not is_good or not key.is_enabled:
            # The old core SDK looks for what stands behind a colon; were it the string to sign, secrets could be in it.
            raise ApiError("SignatureDoesNotMatch", "no match: unknown access key, or bad signature")
        now_ms = registry.now_ms()
        if abs(now_ms - claim.time_ms) > self._window_ms:
            raise ApiError("InvalidTimeStamp.Expired", "the request's time is too far from now")
        if self._nonces.was_seen(key.access_key_id, claim.nonce):
            raise ApiError("SignatureNonceUsed", "the nonce was used before")
        lacking = self._nonces.lacks_room(key.access_key_id, now_ms)
        if lacking == "all":
            raise self._throttle("Throttling", "too many requests of all access keys, try again later")
        if lacking == "key":
            said = "too many requests whose timestamps are still good, try again later"
            raise self._throttle("Throttling.User", said)
        if not self._rate.take(key.access_key_id):
            raise self._throttle("Throttling.User", "too many requests, try again later")
        return key

    def _throttle(self, code: str, text: str) -> ApiError:
        self._throttled += 1
        return ApiError(code, text)


def _rates(config: OpenApiConfig, setting: str) -> Rates:
    calls: float = getattr(config, setting)
    return Rates(calls / 60, burst=calls) if setting.endswith("_per_minute") else Rates(calls)
