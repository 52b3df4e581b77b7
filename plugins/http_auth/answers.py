"""What the service answers: ALIYUN.md §2.5 and EMQX's convention, which hardly differ."""

import math
from typing import Any

import orjson

from mqttcore import Identity, ReasonCode, Refusal, parse_permissions

__all__ = ["parse_answer"]

_SUPERUSER_KEYS = ("is_superuser", "isSuperuser")
_EXPIRY_KEYS = ("expireAt", "expire_at")


def parse_answer(body: bytes, name: str, *, rules_maximum: int) -> Identity | Refusal | None:
    """Return the identity or refusal in a JSON body; None: `ignore`, the next plugin's turn. Raises ValueError.

    Only the word `allow` allows. expireAt: seconds or milliseconds since 1970. Without `acl` everything is allowed.
    """
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    result = document.get("result")
    if result == "ignore":
        return None
    if result == "deny":
        return Refusal(ReasonCode.NOT_AUTHORIZED)
    if result != "allow":
        raise ValueError("`result` is not allow, deny or ignore")
    rules = document.get("acl")
    is_superuser = any(document.get(key) is True for key in _SUPERUSER_KEYS)
    permissions = None if rules is None or is_superuser else parse_permissions(rules, rules_maximum=rules_maximum)
    return Identity(name, permissions, expires_at_s=_expiry(document))


def _expiry(document: dict[str, Any]) -> float | None:
    for key in _EXPIRY_KEYS:
        value = document.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"`{key}` is not a time")
        return value / 1000 if value > 1e11 else float(value)  # 1e11 s is the year 5138
    return None
