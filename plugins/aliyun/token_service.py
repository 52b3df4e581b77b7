"""The token service's work: give, look at and revoke tokens. Who asks has been authenticated before.

The HTTP service of 2019 and OpenAPI's ApplyToken, QueryToken and RevokeToken are two faces of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .names import is_resource, parent_of
from .table import RegistryError
from .tokens import TokenFault, TokenRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .gate import TokenChecker
    from .records import AccessKey
    from .registry import Registry
    from .settings import TokenConfig

__all__ = [
    "BAD_PARAMETER",
    "CREATION_FAILED",
    "OK",
    "REVOCATION_FAILED",
    "SIGNATURE_ERROR",
    "ServiceError",
    "TokenService",
]

OK, BAD_PARAMETER, SIGNATURE_ERROR, CREATION_FAILED, REVOCATION_FAILED = 200, 400, 407, 409, 410

_TOPIC_MAXIMUM = 128
_RIGHT_FOR = {"R": ("full", "subscribe"), "W": ("full", "publish")}


class ServiceError(Exception):
    """The service says no. code: one of the constants above, or of `TokenFault`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class TokenService:
    """Tokens of one registry; every method takes the access key on whose behalf it is done."""

    def __init__(self, registry: Registry, checker: TokenChecker, config: TokenConfig) -> None:
        self._registry = registry
        self._checker = checker
        self._config = config

    def apply(
        self, key: AccessKey, *, instance_id: str, resources: Sequence[str], actions: str, expires_ms: int
    ) -> str:
        """Return a new token's text (ApplyToken).

        actions: `R`, `W` or both with a comma. expires_ms: since 1970; a time beyond the longest life is cut to it.
        """
        config, now_ms = self._config, self._registry.now_ms()
        wanted = set(actions.split(","))
        if not wanted or not wanted <= {"R", "W"}:
            raise ServiceError(BAD_PARAMETER, "actions: R, W or R,W")
        unique = list(dict.fromkeys(resources))
        if not unique or len(unique) > config.resources_maximum:
            raise ServiceError(BAD_PARAMETER, f"resources: 1 to {config.resources_maximum}")
        for resource in unique:
            if not is_resource(resource, length_maximum=_TOPIC_MAXIMUM, any_character=True) or "," in resource:
                raise ServiceError(BAD_PARAMETER, "resources: one of them is no topic or filter below a parent topic")
        if expires_ms < now_ms + config.lifetime_minimum_s * 1000:
            raise ServiceError(BAD_PARAMETER, f"expireTime: less than {config.lifetime_minimum_s:g} s from now")
        if not self._registry.has_instance(instance_id) or not key.may_use(instance_id):
            raise ServiceError(CREATION_FAILED, "the access key is not good for this instance")
        if any(key.rights not in _RIGHT_FOR[action] for action in wanted):
            raise ServiceError(CREATION_FAILED, "the access key has no right to one of the actions")
        for resource in unique:
            parent = parent_of(resource)
            if not key.owns_topic(parent) or not self._registry.take_topic(instance_id, parent):
                raise ServiceError(CREATION_FAILED, "the access key has no right to one of the resources")
        return self._checker.codec.issue(
            instance_id=instance_id,
            access_key_id=key.access_key_id,
            actions="".join(sorted(wanted)),
            resources=unique,
            issued_ms=now_ms,
            expires_ms=min(expires_ms, now_ms + round(config.lifetime_maximum_s * 1000)),
        )

    def query(self, key: AccessKey, text: str, *, instance_id: str | None = None) -> None:
        """Return when a token is good (QueryToken), of *instance_id* if given. ServiceError says why it is not."""
        try:
            token, _ = self._checker.check(text)
        except TokenRefused as refused:
            raise ServiceError(refused.code, str(refused)) from refused
        if token.access_key_id != key.access_key_id:
            raise ServiceError(BAD_PARAMETER, "the token was given to another access key")
        if instance_id not in (None, token.instance_id):
            raise ServiceError(BAD_PARAMETER, "the token was given for another instance")

    async def revoke(self, key: AccessKey, text: str, *, instance_id: str | None = None) -> None:
        """Revoke a token and return when that is safe (RevokeToken); its clients are cut off. Twice does no harm.

        instance_id: of which the token must be, if one is named.
        """
        try:
            token = self._checker.codec.read(text)
        except TokenRefused as refused:
            raise ServiceError(refused.code, str(refused)) from refused
        if token.access_key_id != key.access_key_id:
            raise ServiceError(REVOCATION_FAILED, "the token was given to another access key")
        if instance_id not in (None, token.instance_id):
            raise ServiceError(REVOCATION_FAILED, "the token was given for another instance")
        if token.expires_ms <= self._registry.now_ms():
            raise ServiceError(TokenFault.EXPIRED, "the token has expired")
        try:
            self._registry.revocations.add(token.token_id, token.expires_ms)
        except RegistryError as error:
            raise ServiceError(REVOCATION_FAILED, str(error)) from error
        await self._registry.saved()
