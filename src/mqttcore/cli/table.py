"""Rows for people."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import orjson

from mqttcore.cli.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["table"]

_COLUMN_WIDTH_MAXIMUM = 60  # a client id of 64 KiB must not be 64 KiB of blanks in every other line


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return a line of names and a line for each row. columns: which of them; without, all of the first row.

    What is longer than a column is wide stands there whole, and moves the rest of its line.
    """
    columns = columns or [*rows[0]] if rows else columns
    lines = [list(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [min(max(map(_width, column)), _COLUMN_WIDTH_MAXIMUM) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _width(text: str) -> int:
    """Return how many cells of a terminal *text* takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case dict() | list():
            text = orjson.dumps(value).decode()
        case _:
            text = str(value)
    return visible(text)
