"""Tokens: what they say, and the text that carries it, signed, so that any node with the key can read it.

    Base64( version 1 | key id 4 | msgpack of Token | HMAC-SHA256 of all before, 32 )

Standard Base64, so a token has no `|`, which parts tokens in a password.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
from typing import TYPE_CHECKING

import msgspec

from .matching import covers

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TOKEN_TYPES", "Token", "TokenCodec", "TokenFault", "TokenRefused", "may_be_of_type", "parse_token_password"]

TOKEN_TYPES = ("R", "W", "RW")

_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_MAC_BYTES = 32
_TEXT_MAXIMUM = 40_000  # 100 resources of 128 characters come to less than half


class TokenFault:
    """Why a token is no good: the codes of the token service's answers and of `$SYS/tokenInvalidNotice`."""

    FORGED = 1
    EXPIRED = 2
    REVOKED = 3
    RESOURCE = 4
    ACTION = 5
    SIGNATURE = 8
    NOT_PERMITTED = -1


class TokenRefused(Exception):
    """A token that is no good. code: of `TokenFault`. The text says nothing of the token."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Token(msgspec.Struct, frozen=True, array_like=True):
    """What a token says. actions: `R`, `W` or `RW`; resources: Topic Filters; times in ms since 1970."""

    token_id: bytes
    instance_id: str
    access_key_id: str
    actions: str
    resources: tuple[str, ...]
    issued_ms: int
    expires_ms: int

    @property
    def may_read(self) -> bool:
        """Whether its holder may subscribe."""
        return "R" in self.actions

    @property
    def may_write(self) -> bool:
        """Whether its holder may publish."""
        return "W" in self.actions

    def covers(self, topic_filter: str) -> bool:
        """Say whether all of *topic_filter* lies in one of its resources."""
        return any(covers(resource, topic_filter) for resource in self.resources)


class TokenCodec:
    """Token to text and back. keys: at least 16 bytes each; the first signs, all of them verify."""

    __slots__ = ("_decoder", "_keys", "_signing")

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) < 16 for key in keys):
            raise ValueError("token keys: at least one, of at least 16 bytes each")
        self._keys = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: key for key in keys}
        self._signing = next(iter(self._keys))
        self._decoder = msgspec.msgpack.Decoder(Token)

    def issue(
        self,
        *,
        instance_id: str,
        access_key_id: str,
        actions: str,
        resources: Sequence[str],
        issued_ms: int,
        expires_ms: int,
    ) -> str:
        """Return the text of a new token."""
        token = Token(os.urandom(12), instance_id, access_key_id, actions, tuple(resources), issued_ms, expires_ms)
        signed = _VERSION + self._signing + msgspec.msgpack.encode(token)
        mac = hmac.digest(self._keys[self._signing], signed, "sha256")
        return binascii.b2a_base64(signed + mac, newline=False).decode()

    def read(self, text: str) -> Token:
        """Return the token; TokenRefused(FORGED) when we did not make this text. It may have expired."""
        if len(text) > _TEXT_MAXIMUM:
            raise TokenRefused(TokenFault.FORGED, "longer than any token")
        try:
            data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
        except ValueError as error:  # binascii.Error and UnicodeEncodeError are
            raise TokenRefused(TokenFault.FORGED, "not Base64") from error
        signed, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        key = self._keys.get(signed[1 : 1 + _KEY_ID_BYTES])
        if key is None or signed[:1] != _VERSION:
            raise TokenRefused(TokenFault.FORGED, "not made with a key of ours")
        if not hmac.compare_digest(hmac.digest(key, signed, "sha256"), mac):
            raise TokenRefused(TokenFault.FORGED, "altered")
        try:
            return self._decoder.decode(signed[1 + _KEY_ID_BYTES :])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise TokenRefused(TokenFault.FORGED, "signed by us, in a form that we do not know") from error


def may_be_of_type(token: Token, token_type: str) -> bool:
    """Say whether *token* gives all that its declared type, `R`, `W` or `RW`, promises."""
    return set(token_type) <= set(token.actions)


def parse_token_password(password: str) -> dict[str, str]:
    """Return type -> token text of a password `type|token|type|token`, in any order.

    Raises TokenRefused: an odd number of parts, an unknown type, or one given twice.
    """
    parts = password.split("|")
    if len(parts) % 2 or len(parts) > 2 * len(TOKEN_TYPES):
        raise TokenRefused(TokenFault.FORGED, "the password is not made of pairs of type and token")
    tokens: dict[str, str] = {}
    for token_type, text in zip(parts[::2], parts[1::2], strict=True):
        if token_type not in TOKEN_TYPES or token_type in tokens or not text:
            raise TokenRefused(TokenFault.FORGED, "a token's type is unknown, or given twice, or the token is empty")
        tokens[token_type] = text
    return tokens
