"""Our own users file, TOML or JSON.

[[users]]
name = "alice"
password = "$argon2id$…"
permissions = [{ action = "publish", filter = "room/%u/#" }, { action = "subscribe", filter = "room/#", qos = 1 }]

[[permissions]]             # for everybody, after a user's own
action = "subscribe"
filter = "news/#"
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mqttcore import Action, Permission, ProtocolError, require_topic_filter

from .book import Book, User
from .passwords import check_form

__all__ = ["parse_users"]

_ACTIONS = {"publish": Action.PUBLISH, "subscribe": Action.SUBSCRIBE, "all": Action.ALL}


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    action: Literal["publish", "subscribe", "all"]
    filter: str
    allow: bool = True
    qos: Annotated[int, Meta(ge=0, le=2)] = 2
    retain: bool = True


class _User(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1)]
    password: str
    client_id: str | None = None
    is_superuser: bool = False
    permissions: list[_Rule] | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    users: list[_User] = []
    permissions: list[_Rule] | None = None


def parse_users(data: bytes, path: Path) -> Book:
    """Return the users in a file's bytes. Raises ValueError that says where, without hashes."""
    if not data.strip():
        raise ValueError("is blank; a file without users needs at least `users = []`")
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
    try:
        found = decode(data, type=_File)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(str(error)) from None
    users: dict[str, User] = {}
    for index, entry in enumerate(found.users):
        where = f"users[{index}] ({entry.name!r})"
        if entry.name in users:
            raise ValueError(f"{where}: the name is there already")
        try:
            check_form(entry.password)
        except ValueError as error:
            raise ValueError(f"{where}.password: {error}") from None
        users[entry.name] = User(
            entry.name, entry.password, entry.client_id, entry.is_superuser, _permissions(entry.permissions, where)
        )
    return Book(users, _permissions(found.permissions, "the file"))


def _permissions(rules: list[_Rule] | None, where: str) -> tuple[Permission, ...] | None:
    if rules is None:
        return None
    for index, rule in enumerate(rules):
        try:
            require_topic_filter(rule.filter)
        except ProtocolError as error:
            raise ValueError(f"{where}: permissions[{index}].filter: {error.text}") from None
    return tuple(Permission(_ACTIONS[rule.action], rule.filter, rule.allow, rule.qos, rule.retain) for rule in rules)
