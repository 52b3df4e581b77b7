"""Names of Alibaba's service: client ids, groups, topics and user names, and the rules they follow."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

__all__ = [
    "SEPARATOR",
    "TOPIC_CHARACTERS",
    "UserName",
    "group_of",
    "is_client_id",
    "is_group_id",
    "is_name",
    "is_resource",
    "is_topic",
    "parent_of",
    "parse_user_name",
]

SEPARATOR = "@@@"  # between group and device in a client id
TOPIC_CHARACTERS = f"{string.ascii_letters}{string.digits}-_@"  # `@` is in topics to single clients, none else

_LEVEL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_GROUP = re.compile(r"(?:GID_|GID-)[A-Za-z0-9_-]{3,60}", re.ASCII)
_UNPREFIXED_GROUP = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_MODES = ("Signature", "Token", "DeviceCredential")


@dataclass(frozen=True, slots=True)
class UserName:
    """A user name of three parts. mode: `Signature`, `Token` or `DeviceCredential`."""

    mode: str
    access_key_id: str
    instance_id: str


def parse_user_name(user_name: str) -> UserName | None:
    """Return the parts of a user name, or None when it is not one of three parts with a known mode."""
    parts = user_name.split("|")
    if len(parts) != 3 or parts[0] not in _MODES or not parts[1] or not parts[2]:
        return None
    return UserName(*parts)


def group_of(client_id: str) -> str | None:
    """Return the group id in *client_id*, `<group>@@@<device>`; None when it is not made like that."""
    group_id, separator, device_id = client_id.partition(SEPARATOR)
    return group_id if separator and group_id and device_id else None


def is_name(text: str) -> bool:
    """Say whether *text* has the characters of a device id or topic level only: letters, digits, `-`, `_`."""
    return _LEVEL.fullmatch(text) is not None


def is_group_id(text: str, *, needs_prefix: bool = True) -> bool:
    """Say whether *text* may be a group's id: `GID_` or `GID-` and more, 7 to 64 characters."""
    pattern = _GROUP if needs_prefix else _UNPREFIXED_GROUP
    return pattern.fullmatch(text) is not None


def is_client_id(client_id: str, *, length_maximum: int, needs_prefix: bool = True) -> bool:
    """Say whether *client_id* is `<group>@@@<device>` in the characters that are allowed, and not too long."""
    if len(client_id) > length_maximum:
        return False
    group_id, separator, device_id = client_id.partition(SEPARATOR)
    return bool(separator) and is_group_id(group_id, needs_prefix=needs_prefix) and is_name(device_id)


def parent_of(topic: str) -> str:
    """Return the parent topic: the first level of a Topic Name or filter."""
    return topic.partition("/")[0]


def is_topic(topic: str, *, length_maximum: int) -> bool:
    """Say whether *topic* is a Topic Name in the characters that are allowed; a slash at its end is."""
    if not topic or len(topic) > length_maximum:
        return False
    levels = topic.split("/")
    if len(levels) > 1 and not levels[-1]:
        levels.pop()
    return all(is_name(level) for level in levels)


def is_resource(topic_filter: str, *, length_maximum: int, any_character: bool = False) -> bool:
    """Say whether *topic_filter* may be subscribed to or stand in a token: its parent topic is no wildcard.

    any_character: only the wildcards have to be in their places.
    """
    if not topic_filter or len(topic_filter) > length_maximum or "\0" in topic_filter:
        return False
    levels = topic_filter.split("/")
    if levels[0] in ("", "+", "#"):
        return False
    if levels[-1] == "#" or (len(levels) > 1 and not levels[-1]):
        levels.pop()
    for level in levels:
        if level == "+":
            continue
        if not any_character and not is_name(level):
            return False
        if "+" in level or "#" in level:
            return False
    return True
