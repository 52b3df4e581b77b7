"""Login: from a CONNECT to who it is, or why not (ALIYUN: signature, token, device credential, custom, of 2017)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqttcore import Permission, ReasonCode, Refusal

from .names import UserName, group_of, is_client_id, parse_user_name
from .records import AccessKey, CustomIdentity, IdentityType
from .signatures import is_signed
from .tokens import Token, TokenCodec, TokenFault, TokenRefused, may_be_of_type, parse_token_password

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .registry import Registry
    from .rights import RightsOf
    from .settings import AuthConfig

__all__ = ["Gate", "Login", "TokenChecker"]

_BAD_CLIENT_ID = ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
_BAD_PASSWORD = ReasonCode.BAD_USER_NAME_OR_PASSWORD
_NOT_AUTHORIZED = ReasonCode.NOT_AUTHORIZED


@dataclass(slots=True)
class Login:
    """A client that is let in. mode: first part of its user name, `Custom`, `Legacy` or `LegacyToken`.

    access_key_id: of the key that vouches for it, empty when there is none. tokens: type -> token, of a client that
    logged in by token. custom: kind and name of its custom identity. awaits_token_until_ms: it may do nothing until it
    uploads a token, and has to by then.
    """

    client_id: str
    connection_id: str
    instance_id: str
    mode: str
    access_key_id: str = ""
    group_id: str | None = None
    tokens: dict[str, Token] = field(default_factory=dict)
    custom: tuple[IdentityType, str] | None = None
    permissions: tuple[Permission, ...] = ()
    awaits_token_until_ms: int | None = None

    @property
    def name(self) -> str:
        """What the client's identity is called; the owner of its session, so it must outlast a change of keys."""
        if self.mode == "LegacyToken":
            return f"LegacyToken/{self.client_id}"  # its instance is known only when it has uploaded a token
        return f"{self.instance_id}/{self.custom[1] if self.custom is not None else self.client_id}"


class TokenChecker:
    """Says whether a token is good now: ours, not expired, not revoked, of a key that still counts."""

    def __init__(self, registry: Registry, codec: TokenCodec) -> None:
        self._registry = registry
        self.codec = codec

    def check(self, text: str, token_type: str | None = None) -> tuple[Token, AccessKey]:
        """Return the token and its access key. Raises TokenRefused; token_type: what it is declared to be."""
        token = self.codec.read(text)
        if token.expires_ms <= self._registry.now_ms():
            raise TokenRefused(TokenFault.EXPIRED, "the token has expired")
        if token.token_id in self._registry.revocations:
            raise TokenRefused(TokenFault.REVOKED, "the token was revoked")
        key = self._registry.access_key(token.access_key_id, token.instance_id)
        if key is None or not self._registry.has_instance(token.instance_id):
            raise TokenRefused(TokenFault.NOT_PERMITTED, "the token's access key is no longer good for its instance")
        if token_type is not None and not may_be_of_type(token, token_type):
            raise TokenRefused(TokenFault.ACTION, "the token does not allow what its type says")
        return token, key


class Gate:
    """Decides about CONNECT packets. Everything here answers at once and changes nothing but groups made by use."""

    def __init__(self, registry: Registry, checker: TokenChecker, rights: RightsOf, config: AuthConfig) -> None:
        self._registry = registry
        self._checker = checker
        self._rights = rights
        self._config = config

    def judge(
        self,
        *,
        client_id: str,
        connection_id: str,
        listener: str | None,
        user_name: str | None,
        password: bytes | None,
    ) -> Login | Refusal | None:
        """Return who it is, a Refusal, or None when the user name is none of ours.

        Refusals: 0x85 for a client id that cannot be (2 below MQTT 5), 0x86 for a bad signature or token (4), 0x87 for
        what is signed well and yet not allowed (5). Nothing about groups and instances is said before the signature.
        """
        if user_name is None:
            if self._config.legacy_token and password is None:
                return self._judge_without_name(client_id, connection_id)
            return self._unknown()
        parts = parse_user_name(user_name)
        if parts is None:
            found = self._judge_custom(client_id, connection_id, listener, user_name, password)
            if found is None and self._config.legacy_signature:
                found = self._judge_legacy(client_id, connection_id, listener, user_name, password)
            return found if found is not None else self._unknown()
        if not self._is_client_id(client_id):
            return Refusal(_BAD_CLIENT_ID, "the client id is not made of a group and a device")
        if parts.mode == "Token":
            return self._judge_token(client_id, connection_id, listener, parts, password)
        if parts.mode == "DeviceCredential":
            return self._judge_device(client_id, connection_id, listener, parts, password)
        key = self._registry.access_keys.find(parts.access_key_id)
        if not is_signed(key.secret if key is not None else "", client_id, password) or key is None:
            return Refusal(_BAD_PASSWORD, "unknown access key, or bad signature")
        return self._let_in(client_id, connection_id, listener, parts, key)

    def _judge_token(
        self, client_id: str, connection_id: str, listener: str | None, parts: UserName, password: bytes | None
    ) -> Login | Refusal:
        tokens: dict[str, Token] = {}
        try:
            given = parse_token_password((password or b"").decode("ascii", errors="replace"))
            for token_type, text in given.items():
                token, key = self._checker.check(text, token_type)
                if (token.access_key_id, token.instance_id) != (parts.access_key_id, parts.instance_id):
                    raise TokenRefused(TokenFault.NOT_PERMITTED, "the token was given to another access key")
                tokens[token_type] = token
        except TokenRefused as refused:  # one that is no good makes all of them so
            return Refusal(_BAD_PASSWORD, f"token {refused.code}: {refused}")
        login = self._let_in(client_id, connection_id, listener, parts, key)
        if isinstance(login, Login):
            login.tokens = tokens
            login.permissions = self._rights.of_tokens(tokens.items(), key)
        return login

    def _judge_device(
        self, client_id: str, connection_id: str, listener: str | None, parts: UserName, password: bytes | None
    ) -> Login | Refusal:
        credential = self._registry.devices.by_access_key(parts.access_key_id)
        secret = credential.device_access_key_secret if credential is not None else ""
        if (
            not is_signed(secret, client_id, password)
            or credential is None
            or (credential.client_id, credential.instance_id) != (client_id, parts.instance_id)
        ):
            return Refusal(_BAD_PASSWORD, "unknown device credential, or bad signature")
        key = AccessKey(access_key_id=parts.access_key_id, secret="", rights="full")
        return self._let_in(client_id, connection_id, listener, parts, key)

    def _judge_legacy(
        self, client_id: str, connection_id: str, listener: str | None, user_name: str, password: bytes | None
    ) -> Login | Refusal | None:
        key = self._registry.access_keys.find(user_name)
        if key is None:
            return None
        if not self._is_client_id(client_id):
            return Refusal(_BAD_CLIENT_ID, "the client id is not made of a group and a device")
        if not is_signed(key.secret, group_of(client_id) or "", password):
            return Refusal(_BAD_PASSWORD, "bad signature")
        instance_id = self._only_instance(listener)
        if instance_id is None:
            return Refusal(_NOT_AUTHORIZED, "a login without instance needs `custom_instance`")
        return self._let_in(client_id, connection_id, listener, UserName("Legacy", user_name, instance_id), key)

    def _judge_without_name(self, client_id: str, connection_id: str) -> Login | Refusal:
        if not self._is_client_id(client_id):
            return Refusal(_BAD_CLIENT_ID, "the client id is not made of a group and a device")
        until_ms = self._registry.now_ms() + round(self._config.legacy_token_timeout_s * 1000)
        return Login(
            client_id, connection_id, "", "LegacyToken", group_id=group_of(client_id), awaits_token_until_ms=until_ms
        )

    def _judge_custom(
        self, client_id: str, connection_id: str, listener: str | None, user_name: str, password: bytes | None
    ) -> Login | Refusal | None:
        instance_id = self._only_instance(listener)
        if instance_id is None:
            return None
        custom = self._registry.custom
        identity = custom.identity(instance_id, "CLIENT", client_id)
        if identity is None or identity.user_name != user_name:
            identity = custom.identity(instance_id, "USER", user_name)
        if identity is None:
            return None
        if not _is_free_client_id(client_id, self._config.client_id_length_maximum):
            return Refusal(_BAD_CLIENT_ID, "the client id is empty, too long, or has wildcards")
        if not _is_custom_password(identity, client_id, password):
            return Refusal(_BAD_PASSWORD, "bad password")
        if custom.is_blocked(instance_id, client_id):
            return Refusal(ReasonCode.BANNED, "the client may not connect")
        login = Login(client_id, connection_id, instance_id, "Custom", group_id=group_of(client_id))
        login.custom = (identity.identity_type, identity.identity)
        login.permissions = self._rights.of_custom(custom.permissions(instance_id, *login.custom), instance_id)
        return login

    def _let_in(
        self, client_id: str, connection_id: str, listener: str | None, parts: UserName, key: AccessKey
    ) -> Login | Refusal:
        """Ask what is left when the client has proved who it is."""
        instance_id, group_id = parts.instance_id, group_of(client_id) or ""
        bound_to: Mapping[str, str] = self._config.listener_instances
        if not self._registry.has_instance(instance_id) or not key.may_use(instance_id):
            return Refusal(_NOT_AUTHORIZED, "the access key is not good for this instance")
        if listener is not None and bound_to.get(listener, instance_id) != instance_id:
            return Refusal(_NOT_AUTHORIZED, "the instance is not served here")
        if self._registry.custom.is_blocked(instance_id, client_id):
            return Refusal(ReasonCode.BANNED, "the client may not connect")
        if not key.owns_group(group_id) or not self._registry.take_group(instance_id, group_id):
            return Refusal(_NOT_AUTHORIZED, "there is no such group, or it is not the access key's")
        login = Login(client_id, connection_id, instance_id, parts.mode, parts.access_key_id, group_id)
        login.permissions = self._rights.of_key(key, instance_id)
        return login

    def _is_client_id(self, client_id: str) -> bool:
        return is_client_id(
            client_id,
            length_maximum=self._config.client_id_length_maximum,
            needs_prefix=self._config.needs_group_prefix,
        )

    def _only_instance(self, listener: str | None) -> str | None:
        bound = self._config.listener_instances.get(listener or "") or self._config.custom_instance
        if bound:
            return bound
        instances = self._registry.instances
        return next(iter(instances)).instance_id if len(instances) == 1 else None

    def _unknown(self) -> Refusal | None:
        if self._config.refuses_unknown:
            return Refusal(_BAD_PASSWORD, "the user name is of no known form")
        return None


def _is_free_client_id(client_id: str, length_maximum: int) -> bool:
    return 0 < len(client_id) <= length_maximum and client_id.isprintable() and not set("+#") & set(client_id)


def _is_custom_password(identity: CustomIdentity, client_id: str, password: bytes | None) -> bool:
    if identity.sign_mode == "SIGNED":
        return is_signed(identity.secret, client_id, password)
    return password is not None and hmac.compare_digest(identity.secret.encode(), password)
