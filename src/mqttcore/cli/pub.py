"""`mqttcore pub`: publish messages, with mosquitto_pub's options."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click

from mqttcore.cli.connection import EPILOG, Connection, connection_options, run
from mqttcore.cli.payloads import stdin_lines, stdin_whole
from mqttcore.cli.properties import CONNECT, DISCONNECT, PUBLISH, WILL, PropertyCommand, property_option
from mqttcore.client import Client, reason_text
from mqttcore.constants import PropertyId, ReasonCode

__all__ = ["pub"]

_TABLE = {"connect": CONNECT, "publish": PUBLISH, "disconnect": DISCONNECT, "will": WILL}


@click.command(cls=PropertyCommand, epilog=EPILOG)
@connection_options
@property_option(_TABLE)
@click.option("-t", "--topic", help="Topic to publish to.")
@click.option("-m", "--message", help="Payload.")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="File whose content is the payload.")
@click.option("-l", "--stdin-line", is_flag=True, help="Publish each line of standard input.")
@click.option("-s", "--stdin-file", is_flag=True, help="Publish the whole standard input.")
@click.option(
    "-n", "--null-message", is_flag=True, help="Publish an empty payload; with -r: clear the retained message."
)
@click.option("-q", "--qos", type=click.IntRange(0, 2), default=0, show_default=True, help="Quality of service.")
@click.option("-r", "--retain", is_flag=True, help="Retain the message.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, help="Publish so many times (-m, -f, -s, -n).")
@click.option(
    "--repeat-delay", "delay_s", type=click.FloatRange(min=0), default=0.0, help="Seconds between repetitions."
)
@click.option(
    "-M",
    "--max-inflight",
    "in_flight_maximum",
    type=click.IntRange(1, 65535),
    default=20,
    show_default=True,
    help="Messages of QoS 1 and 2 under way at a time.",
)
def pub(
    topic: str | None,
    message: str | None,
    file: Path | None,
    stdin_line: bool,
    stdin_file: bool,
    null_message: bool,
    qos: int,
    retain: bool,
    repeat: int,
    delay_s: float,
    in_flight_maximum: int,
    properties: dict[str, dict[int, Any]],
    **connection_values: Any,
) -> None:
    """Publish messages to a topic.

    Exactly one of -m, -f, -l, -s and -n says what.
    """
    if [message is not None, file is not None, stdin_line, stdin_file, null_message].count(True) != 1:
        raise click.UsageError("exactly one of -m, -f, -l, -s and -n is needed")
    connection = Connection(properties=properties, **connection_values)
    topic = topic if topic is not None else connection.url_topic
    if topic is None:
        raise click.UsageError("-t is needed")
    if PropertyId.TOPIC_ALIAS not in properties["publish"] and not topic:
        raise click.UsageError("-t: a topic has at least one character")
    payloads = stdin_lines() if stdin_line else _repeated(_payload(message, file, stdin_file), repeat, delay_s)
    publisher = _Publisher(connection, topic, qos, retain, properties["publish"])
    run(connection, lambda: publisher.run(payloads, in_flight_maximum))


def _payload(message: str | None, file: Path | None, is_stdin: bool) -> bytes:
    if message is not None:
        return message.encode(errors="surrogateescape")
    if is_stdin:
        return stdin_whole()
    if file is None:
        return b""
    try:
        return file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error


async def _repeated(payload: bytes, count: int, delay_s: float) -> AsyncIterator[bytes]:
    for number in range(count):
        if number and delay_s:
            await asyncio.sleep(delay_s)
        yield payload


class _Publisher:
    """Publishes payloads to one topic and notes whether the server took them."""

    def __init__(self, connection: Connection, topic: str, qos: int, retain: bool, properties: dict[int, Any]) -> None:
        self._connection = connection
        self._topic = topic
        self._qos = qos
        self._retain = retain
        self._properties = properties
        self._is_refused = False

    async def run(self, payloads: AsyncIterator[bytes], in_flight_maximum: int) -> int:
        """Publish all and return the exit code."""
        client = await self._connection.open(in_flight_maximum=in_flight_maximum)
        try:
            publishing = asyncio.ensure_future(self._publish_all(client, payloads))
            losing = asyncio.ensure_future(client.wait_closed())
            try:
                # Waiting for standard input must not hide that the connection is gone.
                await asyncio.wait({publishing, losing}, return_when=asyncio.FIRST_COMPLETED)
                if not publishing.done():
                    await losing
                await publishing
            finally:
                for task in (publishing, losing):
                    task.cancel()
                await asyncio.gather(publishing, losing, return_exceptions=True)
        finally:
            await self._connection.close(client)
        return 1 if self._is_refused else 0

    async def _publish_all(self, client: Client, payloads: AsyncIterator[bytes]) -> None:
        outcomes: set[asyncio.Future[int]] = set()
        async for payload in payloads:
            outcome = await client.send(
                self._topic, payload, qos=self._qos, retain=self._retain, properties=self._properties
            )
            if self._qos:
                outcomes.add(outcome)
                outcome.add_done_callback(outcomes.discard)
                outcome.add_done_callback(self._note)
        if outcomes:
            await asyncio.gather(*outcomes)

    def _note(self, outcome: "asyncio.Future[int]") -> None:
        if outcome.cancelled() or outcome.exception() is not None:
            return  # the connection ended, and `run` says so
        reason_code = outcome.result()
        if reason_code >= ReasonCode.UNSPECIFIED_ERROR:
            self._is_refused = True
            self._connection.complain(f"mqttcore: publish refused: {reason_text(reason_code)} ({reason_code})")
