"""The signatures of Alibaba's service: standard Base64 of HMAC-SHA1, compared in constant time."""

from __future__ import annotations

import binascii
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_signed", "is_signed_request", "sign", "string_to_sign"]


def sign(secret: str, text: str) -> str:
    """Return the signature of *text*: 28 characters, with padding, without line break.

    What a client sends as password is its signature of the client id; only that is signed, so it never changes.
    """
    digest = hmac.digest(secret.encode(), text.encode(), "sha1")
    return binascii.b2a_base64(digest, newline=False).decode()


def is_signed(secret: str, text: str, signature: bytes | str | None) -> bool:
    """Say whether *signature* is that of *text*. In constant time as to what it is; None is no signature."""
    if signature is None:
        return False
    given = signature if isinstance(signature, bytes) else signature.encode(errors="replace")
    return hmac.compare_digest(sign(secret, text).encode(), given)


def string_to_sign(parameters: Mapping[str, str], *, sorts_values: bool = False) -> str:
    """Return the string that is signed for an HTTP request: `key=value` by key, joined with `&`, nothing URL-encoded.

    sorts_values: put the parts of values that hold commas in order, too.
    """
    parts = []
    for key in sorted(parameters):
        value = parameters[key]
        if sorts_values and "," in value:
            value = ",".join(sorted(value.split(",")))
        parts.append(f"{key}={value}")
    return "&".join(parts)


def is_signed_request(secret: str, parameters: Mapping[str, str], signature: str | None) -> bool:
    """Say whether *signature* is that of *parameters*, values as they were sent or with their parts in order.

    The documentation sorts the parts; clients sign what they send.
    """
    as_sent, in_order = string_to_sign(parameters), string_to_sign(parameters, sorts_values=True)
    is_good = is_signed(secret, as_sent, signature)
    if in_order != as_sent:  # depends on the request alone, so nothing of the secret shows in the time
        is_good |= is_signed(secret, in_order, signature)
    return is_good
