"""Texts in which a client's id or user name is put: permissions and mount points.

What a client calls itself is the client's choice, so a value that would change the shape of the text is not put in.
"""

import re
from collections.abc import Mapping

__all__ = ["Unfit", "fill"]


class Unfit(ValueError):
    """A client has nothing to stand in a place, or what it has must not. place: as it is written in the text."""

    def __init__(self, place: str, fault: str) -> None:
        super().__init__(f"{fault} what stands for {place}")
        self.place = place


def fill(text: str, places: re.Pattern[str], values: Mapping[str, str | None]) -> str:
    """Return *text* with what *values* has for each of its places.

    places: a pattern with one group around it all. Raises Unfit for a value that is empty, has `+`, `#`, `/` or NUL, or
    would begin the text with `$`.
    """
    parts = places.split(text)
    for i in range(1, len(parts), 2):
        value = values[parts[i]]
        if not value:
            raise Unfit(parts[i], "the client has none of")
        if any(one in value for one in "+#/\0"):
            raise Unfit(parts[i], "+, #, / or NUL in")
        if value[0] == "$" and i == 1 and not parts[0]:
            raise Unfit(parts[i], "$ at the beginning of")
        parts[i] = value
    return "".join(parts)
