"""One operation of the management API: what it takes and gives, as types, and the function that does it.

Requests are checked against the types, and the OpenAPI document is made of them: they cannot disagree.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from mqttcore.http.keys import Role

__all__ = [
    "CURSOR_PATTERN",
    "ApiError",
    "Call",
    "Cursor",
    "Done",
    "Limit",
    "Operation",
    "Page",
    "decode_cursor",
    "encode_cursor",
]

CURSOR_PATTERN = r"^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$"

Limit = Annotated[int, Meta(ge=1, le=1000, description="Most items of an answer.")]
Cursor = Annotated[
    str,
    Meta(
        max_length=100_000,
        pattern=CURSOR_PATTERN,
        description="`next_cursor` of the answer before; empty: from the beginning.",
    ),
]


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part of a list."""

    limit: Limit = 100
    cursor: Cursor = ""


class Done(msgspec.Struct, frozen=True):
    """How many things were changed."""

    count: int


class ApiError(Exception):
    """An answer that is an error, with its HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked. path: the parameters in it. query, body: of the operation's types, or None.

    role: of who asks, the operation's at least; an admin's where no key is needed.
    """

    path: dict[str, str]
    query: Any = None
    body: Any = None
    role: Role = Role.VIEWER


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. path: below `/api/v1`. answer: type of the JSON; None: there is none (204).

    errors: statuses besides those that every operation may have. media_type: of the answer; where it is not JSON, the
    function returns an HTTP response.
    """

    method: str
    path: str
    role: Role
    summary: str
    function: Callable[[Call], Awaitable[Any]]
    answer: Any = None
    query: Any = None
    body: Any = None
    errors: tuple[int, ...] = ()
    media_type: str = "application/json"

    @property
    def name(self) -> str:
        """Its `operationId`."""
        return self.function.__name__


def encode_cursor(last: str) -> str:
    """Return the cursor of a page that ends with *last*."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def decode_cursor(cursor: str) -> str | None:
    """Return what the page before ended with, None for the first page. Raises ApiError."""
    if not cursor:
        return None
    try:
        return base64.urlsafe_b64decode(cursor).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ApiError(404, "there is no such page") from None
