"""`mqttcore store`: look at the file of a broker that does not run, mend and move what is in it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from mqttcore.errors import MqttCoreError, PluginError
from mqttcore.plugins.discovery import installed
from mqttcore.store import records
from mqttcore.store.transfer import export_lines, import_lines

__all__ = ["store"]

_T = TypeVar("_T")
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
_PLUGIN = "sqlite"


@click.group()
def store() -> None:
    """Look at the file of a stopped broker's store, mend and move what is in it.

    A file that a broker has open is left alone, and a damaged one where it is. Exit codes: 0 done, 1 could not be done,
    or `check` found something wrong, 2 wrong usage.
    """


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[Any]:
    found = installed().get(_PLUGIN)
    if not found:
        raise PluginError(_PLUGIN, "", "is not installed")
    plugin = found[0].load()
    opened = plugin(plugin.Config(path=str(path), when_damaged="refuse")).open_store(None)
    await opened.open(_alarm)
    try:
        yield opened
    finally:
        await opened.close()


def _alarm(name: str, is_raised: bool, text: str) -> None:
    click.echo(f"mqttcore: {name}{'' if is_raised else ' over'}: {text}", err=True)


def _run(path: Path, work: Callable[[Any], Awaitable[_T]]) -> _T:
    """Return what *work* does with the store in the file *path*; exits with 1 when it cannot be done."""

    async def run() -> _T:
        async with _opened(path) as opened:
            return await work(opened)

    try:
        return asyncio.run(run())
    except (MqttCoreError, OSError) as error:
        click.echo(f"mqttcore: {error}", err=True)
        sys.exit(1)


@store.command()
@click.argument("path", type=_EXISTING)
def info(path: Path) -> None:
    """Print what is in the file, one figure a line."""

    async def look(opened: Any) -> None:
        found = await opened.info()
        figures: dict[str, object] = {
            "place": found.place,
            "format_version": found.format_version,
            "records": found.records,
            "values": found.values,
            "used_bytes": found.used_bytes,
            "free_bytes": found.free_bytes,
            "last_key": opened.last_key,
        }
        for name in ("schema_version", "segments", "free_pages"):
            figures[name] = found.details[name]
        counts: dict[str, int] = {}
        async for kind, count in _kinds(opened):
            counts[kind] = counts.get(kind, 0) + count
        for name, value in (figures | {f"{kind}_records": count for kind, count in sorted(counts.items())}).items():
            click.echo(f"{name}: {value}")

    _run(path, look)


async def _kinds(opened: Any) -> AsyncIterator[tuple[str, int]]:
    names = {kind.KIND: str(kind.__struct_config__.tag) for kind in records.Record.__subclasses__()}
    async for chunk in opened.load():
        counts: dict[int, int] = {}
        for _, kind, _, _ in records.index(chunk):
            counts[kind] = counts.get(kind, 0) + 1
        for number, count in counts.items():
            yield names.get(number, f"kind_{number}"), count


@store.command()
@click.argument("path", type=_EXISTING)
def check(path: Path) -> None:
    """Look through everything in the file and print what is wrong."""

    async def look(opened: Any) -> list[str]:
        return list(await opened.check())

    found = _run(path, look)  # opening it has looked already; what is wrong then is the error
    for line in found:
        click.echo(line)
    if found:
        sys.exit(1)
    click.echo("nothing is wrong")


@store.command()
@click.argument("path", type=_EXISTING)
def gc(path: Path) -> None:
    """Give space back that nothing alive takes."""

    async def collect(opened: Any) -> int:
        return int(await opened.gc())

    click.echo(f"{_run(path, collect)} bytes given back")


@store.command("export")
@click.argument("path", type=_EXISTING)
@click.argument("output", type=click.File("wb"), default="-")
def export_store(path: Path, output: IO[bytes]) -> None:
    """Write everything in the file to OUTPUT, standard output by default, as lines of JSON.

    They hold messages and plugin data as they are: keep them as private as the file.
    """

    async def write(opened: Any) -> None:
        async for line in export_lines(opened, await opened.namespaces()):
            output.write(line + b"\n")

    _run(path, write)


@store.command("import")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("source", type=click.File("rb"), default="-")
def import_store(path: Path, source: IO[bytes]) -> None:
    """Make a file of lines of JSON from SOURCE, standard input by default. The file must be new, or empty."""

    async def read(opened: Any) -> int:
        return await import_lines(opened, (line for line in source if line.strip()))

    click.echo(f"{_run(path, read)} records and values")
