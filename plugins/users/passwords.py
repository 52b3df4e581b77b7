"""Password hashes: argon2id for new ones, and what mosquitto_passwd writes.

`$argon2id$…` (RFC 9106), `$7$iterations$salt$hash` (PBKDF2, SHA-512) and `$6$salt$hash` (SHA-512 of password and
salt); salt and
hash in Base64. Nothing here keeps or shows a password.
"""

import base64
import binascii
import hashlib
import hmac
from types import ModuleType

__all__ = ["check_form", "hash_password", "verify_password"]

_ITERATIONS_MAXIMUM = 10_000_000  # a file must not be able to keep a thread busy for minutes


def hash_password(password: str) -> str:
    """Return a new argon2id hash. Raises ImportError, naming the extra, without argon2-cffi."""
    return str(_argon2().PasswordHasher().hash(password))


def check_form(stored: str) -> None:
    """Raise ValueError when *stored* is no hash that `verify_password` takes; the message does not repeat it."""
    if stored.startswith("$argon2id$"):
        try:
            _argon2().extract_parameters(stored)
        except _argon2().exceptions.InvalidHashError:
            raise ValueError("not a well-formed argon2id hash") from None
    elif stored.startswith("$7$"):
        _pbkdf2_parts(stored)
    elif stored.startswith("$6$"):
        _sha512_parts(stored)
    else:
        raise ValueError("not a hash of a known kind ($argon2id$, $7$ or $6$); passwords in clear are not taken")


def verify_password(stored: str, password: bytes) -> bool:
    """Say whether *password* is the one that *stored* was made of. Takes tens of milliseconds: not for the event loop.

    stored: passed `check_form`. Compares in constant time.
    """
    if stored.startswith("$argon2id$"):
        try:
            return bool(_argon2().PasswordHasher().verify(stored, password))
        except _argon2().exceptions.VerificationError:
            return False
    if stored.startswith("$7$"):
        iterations, salt, expected = _pbkdf2_parts(stored)
        return hmac.compare_digest(hashlib.pbkdf2_hmac("sha512", password, salt, iterations, len(expected)), expected)
    salt, expected = _sha512_parts(stored)
    return hmac.compare_digest(hashlib.sha512(password + salt).digest(), expected)


def _pbkdf2_parts(stored: str) -> tuple[int, bytes, bytes]:
    parts = stored.split("$")
    if len(parts) != 5 or not parts[2].isdecimal() or not 1 <= int(parts[2]) <= _ITERATIONS_MAXIMUM:
        raise ValueError(f"not $7$iterations$salt$hash with 1 to {_ITERATIONS_MAXIMUM} iterations")
    return int(parts[2]), _base64(parts[3]), _base64(parts[4])


def _sha512_parts(stored: str) -> tuple[bytes, bytes]:
    parts = stored.split("$")
    if len(parts) != 4:
        raise ValueError("not $6$salt$hash")
    expected = _base64(parts[3])
    if len(expected) != 64:
        raise ValueError("a $6$ hash has 64 bytes")
    return _base64(parts[2]), expected


def _base64(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("salt or hash is not Base64") from None
    if not found:
        raise ValueError("salt or hash is empty")
    return found


def _argon2() -> ModuleType:
    try:
        import argon2
    except ImportError as error:
        raise ImportError("argon2id hashes need argon2-cffi: pip install 'mqttcore[users]'") from error
    return argon2
