"""`mqttcore ctl`: what the management API of a running broker shows and does; and the file of its keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson

from mqttcore.cli.api_client import ApiClient, ApiFailed
from mqttcore.cli.ctl_looks import in_flight, listeners, plugins, queue, topics
from mqttcore.cli.ctl_messages import publish, publish_many, retained
from mqttcore.cli.printing import show, show_one
from mqttcore.cli.tls_options import client_context
from mqttcore.cli.trace import trace
from mqttcore.errors import ConfigError
from mqttcore.http.keys import Role, make_key, read_keys, write_keys

__all__ = ["ctl"]

_KEYS_FILE = click.option(
    "--keys-file", required=True, type=click.Path(dir_okay=False), help="The broker's `http_api.keys_file`."
)
_KIND = click.Choice(["client_id", "user_name", "address"])
_PAGE = 1000
_REFUSED = 0x80  # reason codes from here on
_SUBSCRIPTION = (
    "client_id",
    "topic_filter",
    "qos",
    "no_local",
    "retain_as_published",
    "retain_handling",
    "subscription_id",
)


class _Group(click.Group):
    """Says what the broker said, instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ApiFailed, ConfigError, OSError) as error:
            click.echo(f"mqttcore: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Group)
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="An HTTP listener of the broker; unix:///PATH for a Unix socket.",
)
@click.option(
    "--key-file", type=click.Path(exists=True, dir_okay=False), help="File with an API key; else MQTTCORE_API_KEY."
)
@click.option("--cafile", type=click.Path(exists=True, dir_okay=False), help="Certificates that its own comes from.")
@click.option("--cert", "certificate", type=click.Path(exists=True, dir_okay=False), help="Own certificate, PEM.")
@click.option("--key", type=click.Path(exists=True, dir_okay=False), help="Its private key, PEM.")
@click.option("--insecure", is_flag=True, help="Take any certificate of any server: anybody can read along.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def ctl(
    ctx: click.Context,
    url: str,
    key_file: str | None,
    cafile: str | None,
    certificate: str | None,
    key: str | None,
    insecure: bool,
    as_json: bool,
) -> None:
    """Ask a running broker and tell it what to do."""
    tls = client_context(
        is_tls=url.startswith("https:"),
        cafile=cafile,
        certificate=certificate,
        key=key,
        insecure=insecure,
        alpn="http/1.1",
    )
    ctx.obj = ApiClient(url, key_file=key_file, tls=tls)
    ctx.meta["as_json"] = as_json


for command in (in_flight, listeners, plugins, publish, publish_many, queue, retained, topics, trace):
    ctl.add_command(command)


@ctl.command()
@click.option("--prefix", "client_id_prefix", help="Ids that begin so.")
@click.option("--user-name")
@click.option("--host", help="Address of the client.")
@click.option("--connected/--disconnected", "is_connected", default=None)
@click.pass_obj
def clients(api: ApiClient, /, is_connected: bool | None, **given: str | None) -> None:
    """List clients."""
    wanted = {name: value for name, value in given.items() if value is not None}
    if is_connected is not None:
        wanted["is_connected"] = str(is_connected).lower()
    columns = ("client_id", "is_connected", "user_name", "address", "subscriptions", "in_flight", "queued", "dropped")
    show(list(api.pages("/clients", name="clients", query=wanted | {"limit": str(_PAGE)})), columns)


@ctl.command()
@click.argument("client_id")
@click.pass_obj
def client(api: ApiClient, client_id: str) -> None:
    """Show a client."""
    show_one(api.ask("GET", "/clients/{}", client_id))


@ctl.command()
@click.argument("client_ids", nargs=-1, required=True)
@click.option("--reason")
@click.pass_obj
def kick(api: ApiClient, client_ids: tuple[str, ...], reason: str | None) -> None:
    """Close the connections of clients; the exit code is 1 when one had none."""
    found = api.ask("POST", "/kick", body={"client_ids": client_ids, "reason": reason})
    show_one(found)
    if found["missing"]:
        sys.exit(1)


@ctl.command()
@click.argument("client_id")
@click.pass_obj
def discard(api: ApiClient, client_id: str) -> None:
    """End a session with everything it holds."""
    api.ask("DELETE", "/sessions/{}", client_id)


@ctl.command()
@click.argument("client_id")
@click.pass_obj
def subscriptions(api: ApiClient, client_id: str) -> None:
    """List the subscriptions of a client."""
    query = {"limit": str(_PAGE)}
    found = list(api.pages("/clients/{}/subscriptions", client_id, name="subscriptions", query=query))
    show(found, _SUBSCRIPTION)


@ctl.command()
@click.argument("topic_filter")
@click.pass_obj
def subscribers(api: ApiClient, topic_filter: str) -> None:
    """List who subscribes to exactly this filter."""
    query = {"topic_filter": topic_filter, "limit": str(_PAGE)}
    show(list(api.pages("/subscriptions", name="subscriptions", query=query)), _SUBSCRIPTION)


@ctl.command()
@click.argument("client_id")
@click.argument("topic_filter")
@click.option("--qos", type=click.IntRange(0, 2), default=2, show_default=True)
@click.option("--no-local", is_flag=True)
@click.option("--retain-as-published", is_flag=True)
@click.option("--retain-handling", type=click.IntRange(0, 2), default=0, show_default=True)
@click.option("--subscription-id", type=click.IntRange(0, 268_435_455), default=0, help="0: none.")
@click.pass_obj
def subscribe(api: ApiClient, /, client_id: str, **given: Any) -> None:
    """Subscribe on a client's behalf; the exit code is 1 when that is refused."""
    found = api.ask("POST", "/clients/{}/subscriptions", client_id, body=given)
    show_one(found)
    if found["reason_code"] >= _REFUSED:
        sys.exit(1)


@ctl.command()
@click.argument("client_id")
@click.argument("topic_filter")
@click.pass_obj
def unsubscribe(api: ApiClient, client_id: str, topic_filter: str) -> None:
    """Unsubscribe on a client's behalf."""
    api.ask("DELETE", "/clients/{}/subscriptions", client_id, query={"topic_filter": topic_filter})


@ctl.group()
def bans() -> None:
    """Look at bans, begin and lift them."""


@bans.command("list")
@click.pass_obj
def list_bans(api: ApiClient) -> None:
    """List bans in force."""
    show(api.ask("GET", "/bans")["bans"], ("kind", "value", "until_s", "reason"))


@bans.command("add")
@click.argument("kind", type=_KIND)
@click.argument("value")
@click.option("--for", "for_s", type=click.IntRange(min=1), help="Seconds; without it, until it is lifted.")
@click.option("--reason", default="")
@click.pass_obj
def add_ban(api: ApiClient, /, **given: Any) -> None:
    """Ban a client id, a user name, an address or a network, and end the connections it has."""
    found = api.ask("POST", "/bans", body=given)
    show_one({**found["ban"], "disconnected": found["disconnected"]})


@bans.command("remove")
@click.argument("kind", type=_KIND)
@click.argument("value")
@click.pass_obj
def remove_ban(api: ApiClient, kind: str, value: str) -> None:
    """Lift a ban."""
    api.ask("DELETE", "/bans", query={"kind": kind, "value": value})


@ctl.command()
@click.pass_obj
def broker(api: ApiClient) -> None:
    """Show version and readiness of the broker."""
    show_one(api.ask("GET", "/broker"))


@ctl.command()
@click.pass_obj
def metrics(api: ApiClient) -> None:
    """Show counters and gauges."""
    show_one(api.ask("GET", "/metrics")["metrics"])


@ctl.command()
@click.pass_obj
def alarms(api: ApiClient) -> None:
    """List alarms that are raised."""
    show(api.ask("GET", "/alarms")["alarms"], ("name", "text"))


@ctl.command()
@click.pass_obj
def config(api: ApiClient) -> None:
    """Print the configuration in force, without secrets, as JSON."""
    click.echo(orjson.dumps(api.ask("GET", "/configuration")["configuration"], option=orjson.OPT_INDENT_2))


@ctl.command()
@click.pass_obj
def reload(api: ApiClient) -> None:
    """Have the configuration file read again, as SIGHUP does; what changed and needs a restart."""
    found = api.ask("POST", "/configuration/reload")["needing_restart"]
    show([{"needs_restart": path} for path in found], ("needs_restart",))


@ctl.command("log-level")
@click.argument("level", required=False, type=click.Choice(["debug", "info", "warning", "error", "critical"]))
@click.pass_obj
def log_level(api: ApiClient, level: str | None) -> None:
    """Show the log level, or set it."""
    if level is not None:
        api.ask("PUT", "/log-level", body={"level": level})
    show_one(api.ask("GET", "/log-level"))


@ctl.group()
def keys() -> None:
    """Make and take away API keys, in the broker's file; it sees the change by itself."""


@keys.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice([role.name.lower() for role in Role]), default="viewer", show_default=True)
@_KEYS_FILE
def add_key(name: str, role: str, keys_file: str) -> None:
    """Make a key and print it; nobody can print it again."""
    there = read_keys(keys_file)
    if name in there:
        raise click.ClickException(f"there is a key {name} already")
    try:
        there[name], text = make_key(name, Role[role.upper()])
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    write_keys(keys_file, there)
    click.echo(text)


@keys.command("list")
@_KEYS_FILE
def list_keys(keys_file: str) -> None:
    """List names and roles."""
    show([{"name": key.name, "role": key.role.name.lower()} for key in read_keys(keys_file).values()], ("name", "role"))


@keys.command("remove")
@click.argument("name")
@_KEYS_FILE
def remove_key(name: str, keys_file: str) -> None:
    """Take a key away."""
    there = read_keys(keys_file)
    if there.pop(name, None) is None:
        raise click.ClickException(f"there is no key {name} in {Path(keys_file).name}")
    write_keys(keys_file, there)
