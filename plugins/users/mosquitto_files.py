"""mosquitto's password and ACL files.

Password file: `name:hash` a line. ACL file: `user NAME` opens the rules of a user, those before the first are for
clients
without a user name; `topic [read|write|readwrite|deny] FILTER`; `pattern …` the same for everybody, with `%c` and `%u`.
What is not allowed is denied, and a denial goes before every permission, wherever it stands. In mosquitto `read` is
about what is delivered, here about what may be subscribed to: a client that subscribes to more is refused the filter
(or gets what it may read, with the broker's `subscribe_check = "at_delivery"`).
"""

from collections.abc import Iterator

from mqttcore import Action, Permission, ProtocolError, require_topic_filter

from .book import Book, User
from .passwords import check_form

__all__ = ["parse_acl", "parse_passwords"]

_ACCESS = {
    "read": (Action.SUBSCRIBE, True),
    "write": (Action.PUBLISH, True),
    "readwrite": (Action.ALL, True),
    "deny": (Action.ALL, False),
}


def parse_passwords(data: bytes) -> dict[str, User]:
    """Return the users of a password file, without rules. Raises ValueError with the line's number, without hashes."""
    users: dict[str, User] = {}
    for number, line in _lines(data):
        name, colon, stored = line.partition(":")
        if not colon or not name:
            raise ValueError(f"line {number}: not `name:hash`")
        if name in users:
            raise ValueError(f"line {number}: user {name!r} is there already")
        try:
            check_form(stored)
        except ValueError as error:
            raise ValueError(f"line {number}, user {name!r}: {error}") from None
        users[name] = User(name, stored)
    return users


def parse_acl(data: bytes, users: dict[str, User]) -> Book:
    """Return *users* with the rules of an ACL file. Raises ValueError with the line's number.

    Rules for a name that has no password are kept out: nobody can come under it.
    """
    own: dict[str | None, list[Permission]] = {None: []}
    general: list[Permission] = []
    current: str | None = None
    for number, line in _lines(data):
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "user" and rest:
            current = rest
            own.setdefault(current, [])
        elif word in ("topic", "pattern") and rest:
            permission = _permission(rest, number, is_pattern=word == "pattern")
            (general if word == "pattern" else own[current]).append(permission)
        else:
            raise ValueError(f"line {number}: not `user NAME`, `topic …` or `pattern …`")
    with_rules = {
        name: User(name, user.password_hash, permissions=_in_order(own.get(name, []) + general))
        for name, user in users.items()
    }
    return Book(with_rules, None, _in_order(own[None] + general))


def _in_order(rules: list[Permission]) -> tuple[Permission, ...]:
    return tuple(sorted(rules, key=lambda rule: rule.is_allowed))  # stable: denials first


def _permission(text: str, number: int, *, is_pattern: bool) -> Permission:
    access, _, topic_filter = text.partition(" ")
    if access not in _ACCESS or not topic_filter.strip():
        access, topic_filter = "readwrite", text
    topic_filter = topic_filter.strip()
    try:
        require_topic_filter(topic_filter)
    except ProtocolError as error:
        raise ValueError(f"line {number}: {topic_filter!r}: {error.text}") from None
    if not is_pattern and ("%c" in topic_filter or "%u" in topic_filter):
        raise ValueError(f"line {number}: %c and %u need `pattern`, not `topic`")
    action, is_allowed = _ACCESS[access]
    return Permission(action, topic_filter, is_allowed)


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, line
