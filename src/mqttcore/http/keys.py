"""API keys: who may ask the management API for what. A file of lines `NAME ROLE SHA256`, readable by its owner alone.

A key is `NAME.SECRET`, the secret 256 random bits: nobody guesses it, so a plain hash of it is enough.
"""

import enum
import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from mqttcore.errors import ConfigError
from mqttcore.private_file import write_private_file

__all__ = ["Key", "Keys", "Role", "make_key", "read_keys", "write_keys"]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LINE = re.compile(rf"(?P<name>{NAME.pattern}) (?P<role>[a-z]+) (?P<digest>[0-9a-f]{{64}})")
_FILE_BYTES_MAXIMUM = 1024 * 1024
_NOBODY = b"\0" * 32


class Role(enum.IntEnum):
    """What a key is good for; each may do what those below it may."""

    VIEWER = 1  # looks
    OPERATOR = 2  # acts upon clients, messages and bans
    ADMIN = 3  # sees the configuration and changes the broker


@dataclass(frozen=True, slots=True)
class Key:
    """One key. digest: SHA-256 of its secret."""

    name: str
    role: Role
    digest: bytes


def make_key(name: str, role: Role) -> tuple[Key, str]:
    """Return a new key and its text, which nobody can make out later. Raises ValueError for what is no name."""
    if NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no name of a key: letters, digits, _ and -, 64 at most")
    secret = secrets.token_urlsafe(32)
    return Key(name, role, hashlib.sha256(secret.encode()).digest()), f"{name}.{secret}"


def read_keys(path: str) -> dict[str, Key]:
    """Return the keys of a file by name, none where there is no file. Raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077 and os.name == "posix":
                raise ConfigError("http_api.keys_file", f"{path} can be read by others: chmod 600 it")
            data = file.read(_FILE_BYTES_MAXIMUM + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError("http_api.keys_file", f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > _FILE_BYTES_MAXIMUM:
        raise ConfigError("http_api.keys_file", f"{path} is larger than {_FILE_BYTES_MAXIMUM} bytes")
    found: dict[str, Key] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match["role"].upper() not in Role.__members__ or match["name"] in found:
            raise ConfigError("http_api.keys_file", f"{path}, line {number} is no key, or one that is there already")
        found[match["name"]] = Key(match["name"], Role[match["role"].upper()], bytes.fromhex(match["digest"]))
    return found


def write_keys(path: str, keys: dict[str, Key]) -> None:
    """Replace a file of keys, all or nothing, readable by its owner alone. Raises OSError."""
    lines = [f"{key.name} {key.role.name.lower()} {key.digest.hex()}\n" for key in keys.values()]
    write_private_file(path, "".join(lines).encode())


class Keys:
    """The keys of one file, read again when it changes. A file that cannot be used has no good key in it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._had_keys = False

    def __contains__(self, name: str) -> bool:
        """Say whether there is a key of this name."""
        return name in self._keys

    def look(self) -> bool:
        """Read the file if it changed; say whether it has keys. Raises ConfigError when it cannot be used.

        Nor can one without any key, or one that is gone and had some: torn or lost, it must not open the door.
        """
        if not self._path:
            return False
        try:
            found = os.stat(self._path)  # noqa: PTH116  one call per request
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            if self._had_keys:
                raise ConfigError("http_api.keys_file", f"{self._path} is gone") from None
            return False
        except OSError as error:
            raise ConfigError("http_api.keys_file", f"cannot be looked at: {error.strerror or error}") from error
        seen = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)
        if seen != self._seen:
            self._seen, self._keys = None, {}
            self._keys = read_keys(self._path)
            self._seen = seen
        if not self._keys:
            raise ConfigError("http_api.keys_file", f"{self._path} has no key in it; add one, or remove the file")
        self._had_keys = True
        return True

    def find(self, text: str) -> Key | None:
        """Return the key whose text this is, or None; takes as long either way."""
        name, _, secret = text.partition(".")
        key = self._keys.get(name)
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        is_good = hmac.compare_digest(digest, _NOBODY if key is None else key.digest)
        return key if is_good else None
