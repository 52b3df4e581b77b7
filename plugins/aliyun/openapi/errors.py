"""What goes wrong with a call, in OpenAPI's words."""

from __future__ import annotations

__all__ = ["ApiError"]


class ApiError(Exception):
    """A call that is refused. code: OpenAPI's name of the error; the text has no secrets."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
