"""What is verified for names that nobody has, so that an answer takes as long as for names that somebody has."""

import hashlib
import secrets

from .book import Book

__all__ = ["Decoys"]

# PBKDF2 of random bytes: no password fits.
_NOBODYS_HASH = "$7$210000$bm9ib2R5IGhhcyB0aGlz$" + "A" * 86 + "=="


class Decoys:
    """The users' own hashes. Kinds and costs differ, so one of another kind would tell which names there are."""

    def __init__(self, book: Book) -> None:
        self._hashes = [user.password_hash for user in book.users.values()] or [_NOBODYS_HASH]
        self._secret = secrets.token_bytes(32)

    def hash_for(self, user_name: str) -> str:
        """Return the hash for a name that nobody has: always the same, which nobody foresees."""
        digest = hashlib.blake2b(user_name.encode(), key=self._secret, digest_size=8).digest()
        return self._hashes[int.from_bytes(digest) % len(self._hashes)]
