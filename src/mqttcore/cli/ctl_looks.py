"""`mqttcore ctl`, closer: listeners, plugins, filters, and the messages of a client one by one."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from mqttcore.cli.api_client import ApiClient
from mqttcore.cli.printing import show, show_one

__all__ = ["in_flight", "listeners", "plugins", "queue", "topics"]

_PAGE = 1000
_PAGE_WITH_PAYLOADS = 50  # the broker gives a page so many bytes of payloads, and no more
_MESSAGE = ("topic", "qos", "retain", "payload_size_bytes", "expires_in_s", "publisher")
_LIMIT = click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="At most so many.")
_PAYLOADS = click.option("--payloads", is_flag=True, help="With payloads, in Base64; large ones are left out.")


@click.group()
def listeners() -> None:
    """Look at listeners, stop and start them."""


@listeners.command("list")
@click.pass_obj
def list_listeners(api: ApiClient) -> None:
    """List listeners."""
    show(api.ask("GET", "/listeners")["listeners"])


@listeners.command("show")
@click.argument("name")
@click.pass_obj
def show_listener(api: ApiClient, name: str) -> None:
    """Show a listener."""
    show_one(api.ask("GET", "/listeners/{}", name))


@listeners.command("stop")
@click.argument("name")
@click.option("--close-connections", is_flag=True, help="Disconnect its clients, too; else they stay.")
@click.pass_obj
def stop_listener(api: ApiClient, name: str, close_connections: bool) -> None:
    """Have a listener accept no more."""
    found = api.ask("POST", "/listeners/{}/stop", name, body={"close_connections": close_connections})
    show_one({**found["listener"], "disconnected": found["disconnected"]})


@listeners.command("start")
@click.argument("name")
@click.pass_obj
def start_listener(api: ApiClient, name: str) -> None:
    """Have a listener accept again, at the address it had."""
    show_one(api.ask("POST", "/listeners/{}/start", name))


@click.group()
def plugins() -> None:
    """Look at plugins, and have them take their settings again."""


@plugins.command("list")
@click.option("--installed", is_flag=True, help="Those that are not enabled, too.")
@click.pass_obj
def list_plugins(api: ApiClient, installed: bool) -> None:
    """List plugins."""
    columns = ("name", "distribution", "is_enabled", "hooks", "failures", "is_failing", "can_reload", "reload_failed")
    show(api.ask("GET", "/plugins", query={"installed": str(installed).lower()})["plugins"], columns)


@plugins.command("show")
@click.argument("name")
@click.pass_obj
def show_plugin(api: ApiClient, name: str) -> None:
    """Show a plugin, with what it counts."""
    show_one(api.ask("GET", "/plugins/{}", name))


@plugins.command("reload")
@click.argument("name")
@click.pass_obj
def reload_plugin(api: ApiClient, name: str) -> None:
    """Give a plugin its settings once more, files that these name are read anew; or make it anew, if it can be."""
    show_one(api.ask("POST", "/plugins/{}/reload", name))


@click.command()
@click.option("--prefix", default="", help="Filters that begin so.")
@click.pass_obj
def topics(api: ApiClient, prefix: str) -> None:
    """List filters that are subscribed to, with how many subscribe."""
    query = {"prefix": prefix, "limit": str(_PAGE)}
    columns = ("topic_filter", "subscribers", "share_groups", "shared_subscribers")
    show(list(api.pages("/topics", name="topics", query=query)), columns)


def _messages(api: ApiClient, path: str, client_id: str, limit: int, payloads: bool) -> list[dict[str, Any]]:
    page = min(limit, _PAGE_WITH_PAYLOADS if payloads else _PAGE)
    query = {"limit": str(page), "payloads": str(payloads).lower()}
    return list(islice(api.pages(path, client_id, name="messages", query=query), limit))


@click.command()
@click.argument("client_id")
@_LIMIT
@_PAYLOADS
@click.pass_obj
def queue(api: ApiClient, client_id: str, limit: int, payloads: bool) -> None:
    """List the messages that wait for a client, oldest first."""
    found = _messages(api, "/clients/{}/queue", client_id, limit, payloads)
    columns = (*_MESSAGE, "queued_for_s", "is_in_memory", "is_kept_back")
    show(found, (*columns, "payload_base64") if payloads else columns)


@click.command("in-flight")
@click.argument("client_id")
@_LIMIT
@_PAYLOADS
@click.pass_obj
def in_flight(api: ApiClient, client_id: str, limit: int, payloads: bool) -> None:
    """List the messages that were sent to a client and are not acknowledged."""
    found = _messages(api, "/clients/{}/in-flight", client_id, limit, payloads)
    columns = ("packet_id", "awaits", *_MESSAGE)
    show(found, (*columns, "payload_base64") if payloads else columns)
