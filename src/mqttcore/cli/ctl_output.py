"""What `mqttcore ctl` prints: a table, or JSON where that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import orjson

from mqttcore.cli.table import table

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["show", "show_one"]


def show(rows: Iterable[dict[str, Any]], columns: tuple[str, ...] = ()) -> None:
    """Print rows. columns: of the table; without, all of the first row."""
    found = list(rows)
    if click.get_current_context().meta["as_json"]:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        click.echo(table(found, columns), nl=False)


def show_one(row: dict[str, Any]) -> None:
    """Print one thing, a line for each of its parts."""
    if click.get_current_context().meta["as_json"]:
        click.echo(orjson.dumps(row, option=orjson.OPT_INDENT_2))
    else:
        click.echo(table([{"name": name, "value": value} for name, value in row.items()]), nl=False)
