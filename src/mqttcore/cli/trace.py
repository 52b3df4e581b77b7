"""`mqttcore ctl trace`: watch a client, an address or a topic of a running broker, as it happens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from mqttcore.cli.api_client import ApiClient, ApiFailed
from mqttcore.cli.printing import show, show_one, wants_json
from mqttcore.cli.trace_lines import line_of
from mqttcore.cli.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["trace"]

_PAGE = 1000
_WAIT_S = 5.0  # for the next entry, of one request

_COLUMNS = ("name", "subject", "value", "is_running", "duration_s", "entries", "dropped", "skipped", "end_reason")


@click.group()
def trace() -> None:
    """Watch what happens to a client, an address or a topic."""


def _begins(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--for", "duration_s", type=float, default=600.0, show_default=True, help="Seconds it lasts."),
        click.option("--payload-bytes", type=click.IntRange(min=0), default=0, help="Of each payload to show."),
        click.option("--name", help="To find it under; without, one is made up."),
        click.option("--keep", is_flag=True, help="Leave the trace in the broker when it has ended, or on Ctrl-C."),
        click.option("--detach", is_flag=True, help="Begin it and return at once."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@trace.command()
@click.argument("client_id")
@_begins
@click.pass_obj
def client(api: ApiClient, /, client_id: str, **given: Any) -> None:
    """Watch the connections and packets of a client."""
    _begin(api, "client_id", client_id, **given)


@trace.command()
@click.argument("value", metavar="ADDRESS")
@_begins
@click.pass_obj
def address(api: ApiClient, /, value: str, **given: Any) -> None:
    """Watch all clients of an address or a network; `unix`: those of Unix sockets."""
    _begin(api, "address", value, **given)


@trace.command()
@click.argument("topic_filter")
@_begins
@click.pass_obj
def topic(api: ApiClient, /, topic_filter: str, **given: Any) -> None:
    """Watch messages that match a Topic Filter: whose they are and who gets them."""
    _begin(api, "topic_filter", topic_filter, **given)


@trace.command("list")
@click.pass_obj
def list_traces(api: ApiClient) -> None:
    """List traces, running and ended."""
    show(api.ask("GET", "/traces")["traces"], _COLUMNS)


@trace.command("show")
@click.argument("name")
@click.option("--follow", is_flag=True, help="Go on with what comes, until it ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def show_trace(api: ApiClient, name: str, follow: bool, as_json: bool) -> None:
    """Print the entries of a trace."""
    _print_entries(api, name, as_json=as_json or wants_json(), follow=follow)


@trace.command()
@click.argument("name")
@click.pass_obj
def stop(api: ApiClient, name: str) -> None:
    """End a trace and keep its entries."""
    show_one(api.ask("POST", "/traces/{}/stop", name))


@trace.command()
@click.argument("name")
@click.pass_obj
def delete(api: ApiClient, name: str) -> None:
    """End a trace and forget its entries."""
    api.ask("DELETE", "/traces/{}", name)


@trace.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, writable=True), default="-")
@click.pass_obj
def download(api: ApiClient, name: str, file: str) -> None:
    """Write the entries of a trace to a file, one JSON object a line; `-`: to standard output."""
    data = api.fetch("/traces/{}/download", name)
    if file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        Path(file).write_bytes(data)


def _print_entries(api: ApiClient, name: str, *, as_json: bool, follow: bool) -> None:
    number, is_running = 0, True
    while True:
        query = {"start": str(number), "limit": str(_PAGE), "wait_s": str(_WAIT_S if follow else 0)}
        page = api.ask("GET", "/traces/{}/entries", name, query=query)
        if page["first_number"] > number:
            click.echo(f"... {page['first_number'] - number} entries made room for newer ones", err=True)
        for entry in page["entries"]:
            click.echo(orjson.dumps(entry) if as_json else line_of(entry))
        number, is_running = page["next_number"], page["is_running"]
        if not page["entries"] and not (follow and is_running):
            return


def _begin(
    api: ApiClient,
    subject: str,
    value: str,
    *,
    duration_s: float,
    payload_bytes: int,
    name: str | None,
    keep: bool,
    detach: bool,
    as_json: bool,
) -> None:
    body = {
        "subject": subject,
        "value": value,
        "duration_s": duration_s,
        "payload_bytes": payload_bytes,
        "name": name,
    }
    begun = api.ask("POST", "/traces", body=body)
    if detach:
        show_one(begun)
        return
    as_json = as_json or wants_json()
    if not as_json:
        click.echo(
            f"trace {begun['name']} of {subject} {visible(value)}, for {duration_s:g} s; Ctrl-C ends it", err=True
        )
    try:
        _print_entries(api, begun["name"], as_json=as_json, follow=True)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    finally:
        try:
            ended = api.ask("POST", "/traces/{}/stop", begun["name"])
            if not keep:
                api.ask("DELETE", "/traces/{}", begun["name"])
            click.echo(_summary(ended), err=True)
        except ApiFailed as error:  # the broker is gone, and the trace with it; or somebody deleted it
            click.echo(f"mqttcore: {error}", err=True)


def _summary(ended: dict[str, Any]) -> str:
    told = [ended["end_reason"], f"{ended['next_number']} entries"]
    told += [f"{ended[name]} {name}" for name in ("dropped", "skipped") if ended[name]]
    return f"trace {ended['name']} ended: {', '.join(told)}"
