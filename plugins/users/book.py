"""The users of all files together, as the plugin asks for them."""

from dataclasses import dataclass

from mqttcore import Permission

__all__ = ["Book", "User"]


@dataclass(frozen=True, slots=True)
class User:
    """One user. password_hash: as in passwords.py. client_id: the only one it may use, or None. permissions: of its
    own.
    """

    name: str
    password_hash: str
    client_id: str | None = None
    is_superuser: bool = False
    permissions: tuple[Permission, ...] | None = None

    def __repr__(self) -> str:
        """Without the hash."""
        return f"User({self.name!r})"


@dataclass(frozen=True, slots=True)
class Book:
    """users by name; general: rules for everybody, after a user's own; anonymous: for clients without a user name,
    or None.
    """

    users: dict[str, User]
    general: tuple[Permission, ...] | None = None
    anonymous: tuple[Permission, ...] | None = None

    def permissions(self, user: User) -> tuple[Permission, ...] | None:
        """Return the rules of a user in order; None: everything, as no file has rules for it."""
        if user.is_superuser or (user.permissions is None and self.general is None):
            return None
        return (user.permissions or ()) + (self.general or ())

    def merged(self, other: "Book") -> "Book":
        """Return both together. Raises ValueError, naming the user, when one is in both."""
        twice = self.users.keys() & other.users.keys()
        if twice:
            raise ValueError(f"user {min(twice)!r} is in two files")
        return Book(
            self.users | other.users,
            _joined(self.general, other.general),
            _joined(self.anonymous, other.anonymous),
        )


def _joined(
    first: tuple[Permission, ...] | None, second: tuple[Permission, ...] | None
) -> tuple[Permission, ...] | None:
    return None if first is None and second is None else (first or ()) + (second or ())
