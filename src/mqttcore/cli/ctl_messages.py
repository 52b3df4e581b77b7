"""`mqttcore ctl` on messages: to publish them, one or many, and to keep them for their topics."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

import click
import orjson

from mqttcore.cli.api_client import ApiClient
from mqttcore.cli.printing import show, show_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["publish", "publish_many", "retained"]

_PAGE = 1000
# Of one request: what the API takes at once, and well below the body that a listener takes unless told otherwise.
_MESSAGES_AT_ONCE = 1000
_BYTES_AT_ONCE = 524_288


def _message_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--user-property", "user_properties", nargs=2, multiple=True, metavar="NAME VALUE"),
        click.option(
            "--expiry", "message_expiry_s", type=click.IntRange(0, 0xFFFFFFFF), help="Seconds it is good for."
        ),
        click.option("--correlation-data", help="In Base64."),
        click.option("--response-topic"),
        click.option("--content-type"),
        click.option("--base64", "is_base64", is_flag=True, help="PAYLOAD is Base64."),
        click.option("--qos", type=click.IntRange(0, 2), default=0, show_default=True),
    ):
        command = option(command)
    return command


def _body(payload: str, is_base64: bool, given: dict[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in given.items() if value is not None}
    return body | {"payload_base64" if is_base64 else "payload": payload}


@click.command()
@click.argument("topic")
@click.argument("payload", default="")
@_message_options
@click.option("--retain", is_flag=True)
@click.pass_obj
def publish(api: ApiClient, /, payload: str, is_base64: bool, **given: Any) -> None:
    """Publish a message; to how many subscribers it went."""
    found = api.ask("POST", "/publish", body=_body(payload, is_base64, given))
    show_one({"reached": found["reached"]})


@click.command("publish-many")
@click.argument("file", type=click.File("rb"))
@click.pass_obj
def publish_many(api: ApiClient, file: IO[bytes]) -> None:
    """Publish the messages of FILE, one JSON object a line; `-` is standard input.

    An object has `topic` and, if wanted, `payload` or `payload_base64`, `qos`, `retain` and what else the API takes.
    One that is not published does not keep the others back; the exit code is 1 then.
    """
    results: list[dict[str, Any]] = []
    for messages in _parts(file):
        found = api.ask("POST", "/publish/bulk", body={"messages": [message for _, message in messages]})["results"]
        results += [
            {"line": line, "topic": message.get("topic"), **result}
            for (line, message), result in zip(messages, found, strict=True)
        ]
    show(results, ("line", "topic", "reached", "error"))
    if any(result["error"] is not None for result in results):
        sys.exit(1)


def _parts(file: IO[bytes]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Yield numbered messages, as many as fit into a request."""
    part: list[tuple[int, dict[str, Any]]] = []
    size = 0
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise click.ClickException(f"{file.name}, line {number}: {error}") from error
        if not isinstance(message, dict):
            raise click.ClickException(f"{file.name}, line {number}: no JSON object")
        if part and (len(part) == _MESSAGES_AT_ONCE or size + len(line) > _BYTES_AT_ONCE):
            yield part
            part, size = [], 0
        part.append((number, message))
        size += len(line)
    if part:
        yield part


@click.group()
def retained() -> None:
    """Look at retained messages, set and remove them."""


@retained.command("list")
@click.argument("topic_filter", default="#")
@click.pass_obj
def list_retained(api: ApiClient, topic_filter: str) -> None:
    """List retained messages."""
    query = {"topic_filter": topic_filter, "limit": str(_PAGE)}
    show(list(api.pages("/retained", name="messages", query=query)), ("topic", "qos", "payload"))


@retained.command("show")
@click.argument("topic")
@click.pass_obj
def show_retained(api: ApiClient, topic: str) -> None:
    """Show the message of a topic."""
    show_one(api.ask("GET", "/retained/message", query={"topic": topic}))


@retained.command("set")
@click.argument("topic")
@click.argument("payload")
@_message_options
@click.pass_obj
def set_retained(api: ApiClient, /, topic: str, payload: str, is_base64: bool, **given: Any) -> None:
    """Keep a message without publishing it."""
    api.ask("PUT", "/retained/message", query={"topic": topic}, body=_body(payload, is_base64, given))


@retained.command("delete")
@click.argument("topic")
@click.pass_obj
def delete_retained(api: ApiClient, topic: str) -> None:
    """Remove the message of a topic."""
    api.ask("DELETE", "/retained/message", query={"topic": topic})
