"""The plugin: verifies the token of a CONNECT and makes an identity of its claims."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jwt
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Meta

from mqttcore import ConfigError, Identity, ReasonCode, Refusal, Secret, hookimpl, parse_permissions

from .keys import FixedKey, JwkSet, UnknownKey, is_symmetric

if TYPE_CHECKING:
    from mqttcore import Broker, ClientView, Connect, Permission

__all__ = ["JwtAuth"]

_log = logging.getLogger("mqttcore.plugins.jwt_auth")

_Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
_TOKEN_BYTES_MAXIMUM = 16_384


class JwtAuthConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugins.jwt_auth]`; one of `secret`, `public_key_file` and `jwks_url` says what signatures are checked
    with.
    """

    algorithms: Annotated[
        list[_Algorithm], Meta(min_length=1, description="Algorithms taken; all of secrets or all of public keys.")
    ]
    secret: Annotated[Secret | None, Meta(description="The shared secret (HS…), as long as the hash.")] = None
    public_key_file: Annotated[str, Meta(description="PEM file with the public key (RS…, PS…, ES…, EdDSA).")] = ""
    jwks_url: Annotated[str, Meta(pattern=r"^($|https?://)", description="URL of a JWK Set.")] = ""
    jwks_refresh_s: Annotated[float, Meta(ge=1, le=86_400, description="Time between two fetches of the set.")] = 300.0
    token_in: Annotated[Literal["password", "user_name"], Meta(description="Where clients put the token.")] = "password"  # noqa: S105 -- the name of a field
    issuer: Annotated[str, Meta(description="`iss` that tokens must have; empty: any.")] = ""
    audience: Annotated[str, Meta(description="`aud` that tokens must have; empty: any.")] = ""
    leeway_s: Annotated[float, Meta(ge=0, le=300, description="How far clocks may differ.")] = 0.0
    require_expiry: Annotated[bool, Meta(description="Refuse tokens without `exp`.")] = True
    name_claim: Annotated[str, Meta(min_length=1, description="Claim that names the identity.")] = "sub"
    client_id_claim: Annotated[str, Meta(description="Claim that must equal the client id; empty: none.")] = ""
    user_name_claim: Annotated[str, Meta(description="Claim that must equal the user name; empty: none.")] = ""
    acl_claim: Annotated[
        str, Meta(description="Claim with the rules, see `mqttcore.parse_permissions`; empty: tokens have none.")
    ] = "acl"
    without_acl: Annotated[
        Literal["allow", "deny"], Meta(description="What a token without rules may do: everything, or nothing.")
    ] = "deny"


class JwtAuth:
    """Authenticates by signed tokens; what is no token is left to other plugins."""

    Config = JwtAuthConfig

    def __init__(self, config: JwtAuthConfig) -> None:
        self.config = config
        self._keys = _key_source(config)

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        """Fetch the keys, where they come from a URL."""
        if isinstance(self._keys, JwkSet):
            await self._keys.start(
                lambda text: broker.raise_alarm("jwt_auth_keys", text), lambda: broker.clear_alarm("jwt_auth_keys")
            )

    @hookimpl
    async def shutdown(self, broker: Broker) -> None:
        """Fetch no more."""
        if isinstance(self._keys, JwkSet):
            await self._keys.stop()

    @hookimpl
    async def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal | None:
        """Verify the token."""
        token = _token(connect, self.config.token_in)
        if token is None:
            return None
        try:
            claims = await self._verified(token)
            self._check_names(claims, connect)
            return self._identity(claims)
        except UnknownKey:
            _log.info("client %s: token with an unknown key", connect.client_id)
        except jwt.PyJWTError as error:
            _log.info("client %s: token refused: %s", connect.client_id, type(error).__name__)
        except ValueError as error:
            _log.info("client %s: token refused: %s", connect.client_id, error)
        return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)

    async def _verified(self, token: str) -> dict[str, Any]:
        config = self.config
        header = jwt.get_unverified_header(token)
        key = await self._keys.find(header.get("kid"))
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(config.algorithms),  # never what the token's header asks for
            issuer=config.issuer or None,
            audience=config.audience or None,
            leeway=config.leeway_s,
            options={
                "require": ["exp"] if config.require_expiry else [],
                "verify_aud": bool(config.audience),
                "verify_iss": bool(config.issuer),
            },
        )
        return claims

    def _check_names(self, claims: dict[str, Any], connect: Connect) -> None:
        for claim, given in (
            (self.config.client_id_claim, connect.client_id),
            (self.config.user_name_claim, connect.user_name),
        ):
            if claim and (given is None or claims.get(claim) != given):
                raise ValueError(f"claim {claim!r} is not the client's")

    def _identity(self, claims: dict[str, Any]) -> Identity:
        name = claims.get(self.config.name_claim)
        if not isinstance(name, str) or not name:
            raise ValueError(f"no claim {self.config.name_claim!r}")
        rules = claims.get(self.config.acl_claim) if self.config.acl_claim else None
        permissions: tuple[Permission, ...] | None = ()
        if rules is not None:
            permissions = parse_permissions(rules)
        elif self.config.without_acl == "allow":
            permissions = None
        expires = claims.get("exp")
        return Identity(
            name,
            permissions,
            expires_at_s=None if expires is None else float(expires) + self.config.leeway_s,
            # A token is not for others to see: not in events, the API, the store.
            user_name=None if self.config.token_in == "password" else name,  # noqa: S105 -- the name of a field
        )


def _token(connect: Connect, place: str) -> str | None:
    given = connect.password if place == "password" else (connect.user_name or "").encode()
    if not given or len(given) > _TOKEN_BYTES_MAXIMUM or given.count(b".") != 2:
        return None
    try:
        return given.decode("ascii")
    except UnicodeDecodeError:
        return None


def _key_source(config: JwtAuthConfig) -> FixedKey | JwkSet:
    """Return what finds keys. Raises ConfigError; a public key never serves as a shared secret, nor the other way
    round.
    """
    given = [name for name in ("secret", "public_key_file", "jwks_url") if getattr(config, name)]
    if len(given) != 1:
        raise ConfigError("", "needs one of `secret`, `public_key_file` and `jwks_url`")
    if any(is_symmetric(algorithm) != (given[0] == "secret") for algorithm in config.algorithms):
        raise ConfigError("algorithms", f"not all are for `{given[0]}`")
    if config.secret is not None:
        return FixedKey(_long_enough(config.secret.reveal().encode(), config.algorithms))
    if config.jwks_url:
        return JwkSet(config.jwks_url, refresh_s=config.jwks_refresh_s)
    try:
        return FixedKey(load_pem_public_key(Path(config.public_key_file).read_bytes()))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no PEM file with a public key"
        raise ConfigError("public_key_file", f"{config.public_key_file}: {reason}") from None


def _long_enough(secret: bytes, algorithms: list[_Algorithm]) -> bytes:
    needed = max(int(algorithm[2:]) // 8 for algorithm in algorithms)  # RFC 7518 §3.2
    if len(secret) < needed:
        raise ConfigError("secret", f"has {len(secret)} bytes, at least {needed} are needed")
    return secret
