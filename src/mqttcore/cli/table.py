"""Rows for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from mqttcore.cli.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return a line of names and a line for each row. columns: which of them; without, all of the first row."""
    columns = columns or [*rows[0]] if rows else columns
    lines = [list(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


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
