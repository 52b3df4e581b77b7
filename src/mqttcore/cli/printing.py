"""What `mqttcore ctl` prints: tables, or JSON where `--json` stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import orjson

from mqttcore.cli.table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["show", "show_one", "wants_json"]


def wants_json() -> bool:
    """Say whether `ctl --json` was given."""
    return bool(click.get_current_context().meta["as_json"])


def show(rows: list[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Print rows. columns: which of them, in a table; without, all of the first row."""
    if wants_json():
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        click.echo(table(rows, columns), nl=False)


def show_one(row: dict[str, Any]) -> None:
    """Print one thing, a line for each of its values."""
    if wants_json():
        click.echo(orjson.dumps(row, option=orjson.OPT_INDENT_2))
    else:
        click.echo(table([{"name": name, "value": value} for name, value in row.items()]), nl=False)
