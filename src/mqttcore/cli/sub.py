"""`mqttcore sub`: subscribe and print messages, with mosquitto_sub's options."""

import asyncio
import random
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import click

from mqttcore.cli.connection import EPILOG, Connection, connection_options, run
from mqttcore.cli.message_format import Arrival, FormatError, Message, compile_format
from mqttcore.cli.properties import (
    CONNECT,
    DISCONNECT,
    SUBSCRIBE,
    UNSUBSCRIBE,
    WILL,
    PropertyCommand,
    property_option,
)
from mqttcore.cli.topic_match import covers
from mqttcore.client import Client, reason_text
from mqttcore.codec import Publish, Subscription
from mqttcore.constants import PropertyId, ReasonCode, RetainHandling
from mqttcore.errors import ClientError, ConnectionRefused

__all__ = ["sub"]

_TABLE = {
    "connect": CONNECT,
    "subscribe": SUBSCRIBE,
    "unsubscribe": UNSUBSCRIBE,
    "disconnect": DISCONNECT,
    "will": WILL,
}
_TIMED_OUT = 27  # as mosquitto_sub
_DELAY_MAXIMUM_S = 30
_RETAIN_HANDLING = {
    "always": RetainHandling.SEND,
    "new": RetainHandling.SEND_IF_NEW,
    "never": RetainHandling.DO_NOT_SEND,
}


@click.command(cls=PropertyCommand, epilog=EPILOG)
@connection_options
@property_option(_TABLE)
@click.option("-t", "--topic", "topic_filters", multiple=True, help="Topic filter; repeatable.")
@click.option("-U", "--unsubscribe", "unsubscribed", multiple=True, help="Topic filter to unsubscribe; repeatable.")
@click.option("-T", "--filter-out", "filtered_out", multiple=True, help="Filter of topics not to print; repeatable.")
@click.option("-q", "--qos", type=click.IntRange(0, 2), default=0, show_default=True, help="Quality of service.")
@click.option("-C", "--count", type=click.IntRange(min=1), metavar="N", help="Exit after N printed messages.")
@click.option(
    "-W", "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), help="Exit after so many seconds."
)
@click.option("-E", "--exit-after-suback", is_flag=True, help="Exit once all subscriptions are acknowledged.")
@click.option("--reconnect", is_flag=True, help="Connect again, ever later, when that fails or the connection is lost.")
@click.option("-R", "--no-retained", is_flag=True, help="Do not print retained messages.")
@click.option("--retained-only", is_flag=True, help="Print retained messages and exit at the first other one.")
@click.option("--remove-retained", is_flag=True, help="Clear each retained message that comes, but for those of -T.")
@click.option("--retain-as-published", is_flag=True, help="MQTT 5: see the retain flag as the publisher set it.")
@click.option(
    "--retain-handling", type=click.Choice(list(_RETAIN_HANDLING)), help="MQTT 5: when retained messages are sent."
)
@click.option("--no-local", is_flag=True, help="MQTT 5: do not receive what this client publishes.")
@click.option(
    "--subscription-id",
    type=click.IntRange(1, 268_435_455),
    metavar="NUMBER",
    help="MQTT 5: identifier of the subscriptions, shown by %S.",
)
@click.option(
    "--random-filter",
    "percentage",
    type=click.FloatRange(0.1, 100),
    default=100.0,
    help="Print only so many of a hundred messages.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print topic and payload.")
@click.option("-N", "--no-newline", is_flag=True, help="Print no end of line after messages.")
@click.option(
    "-F", "--format", "format_text", help="Print in this format: %t %p %q %r %l %m %j %J %x %X %I %U @H \\n …"
)
@click.option("--pretty", is_flag=True, help="Indent the JSON of %j and %J.")
def sub(
    topic_filters: tuple[str, ...],
    unsubscribed: tuple[str, ...],
    filtered_out: tuple[str, ...],
    qos: int,
    count: int | None,
    timeout_s: float | None,
    exit_after_suback: bool,
    reconnect: bool,
    no_retained: bool,
    retained_only: bool,
    remove_retained: bool,
    retain_as_published: bool,
    retain_handling: str | None,
    no_local: bool,
    subscription_id: int | None,
    percentage: float,
    verbose: bool,
    no_newline: bool,
    format_text: str | None,
    pretty: bool,
    properties: dict[str, dict[int, Any]],
    **connection_values: Any,
) -> None:
    """Subscribe to topics and print the messages."""
    if no_retained and retained_only:
        raise click.UsageError("-R and --retained-only exclude each other")
    if subscription_id is not None:
        properties["subscribe"][PropertyId.SUBSCRIPTION_IDENTIFIER] = subscription_id
    has_options = retain_as_published or no_local or retain_handling is not None
    connection = Connection(properties=properties, needs_v5=has_options, **connection_values)
    if connection.url_topic is not None:
        topic_filters += (connection.url_topic,)
    if not topic_filters and not unsubscribed:
        raise click.UsageError("-t is needed")
    handling = _RETAIN_HANDLING[retain_handling or "always"]
    subscriber = _Subscriber(
        connection,
        [
            Subscription(one, qos, no_local=no_local, retain_as_published=retain_as_published, retain_handling=handling)
            for one in topic_filters
        ],
        unsubscribed,
        properties,
        _Output(_shower(format_text, verbose, pretty), b"" if no_newline else b"\n", connection.complain),
        filtered_out=filtered_out,
        count=count,
        timeout_s=timeout_s,
        exits_after_suback=exit_after_suback,
        reconnects=reconnect,
        skips_retained=no_retained,
        retained_only=retained_only,
        removes_retained=remove_retained,
        share_printed=percentage / 100,
    )
    run(connection, subscriber.run)


_Shower = Callable[[Message, Arrival], bytes | None]


def _shower(format_text: str | None, is_verbose: bool, is_pretty: bool) -> _Shower:
    """Return what shows a message; None means that nothing is printed, not even the end of the line."""
    if format_text is not None:
        try:
            return compile_format(format_text, is_pretty=is_pretty)
        except FormatError as error:
            raise click.UsageError(f"-F: {error}") from error
    if is_verbose:
        return lambda message, arrival: message.topic.encode() + b" " + (message.payload or b"(null)")
    return lambda message, arrival: message.payload or None


class _Output:
    """Standard output, flushed when nothing more is there to be printed."""

    def __init__(self, shower: _Shower, line_end: bytes, complain: Callable[[str], None]) -> None:
        self._shower = shower
        self._line_end = line_end
        self._complain = complain
        self._stream: BinaryIO = sys.stdout.buffer

    def print(self, message: Message) -> None:
        try:
            shown = self._shower(message, Arrival.at(time.time_ns()))
        except FormatError as error:
            self._complain(f"mqttcore: {error}")
            return
        if shown is not None:
            self._stream.write(shown + self._line_end)

    def flush(self) -> None:
        self._stream.flush()


class _Subscriber:
    def __init__(
        self,
        connection: Connection,
        subscriptions: Sequence[Subscription],
        unsubscribed: Sequence[str],
        properties: dict[str, dict[int, Any]],
        output: _Output,
        *,
        filtered_out: Sequence[str],
        count: int | None,
        timeout_s: float | None,
        exits_after_suback: bool,
        reconnects: bool,
        skips_retained: bool,
        retained_only: bool,
        removes_retained: bool,
        share_printed: float,
    ) -> None:
        self._connection = connection
        self._subscriptions = subscriptions
        self._unsubscribed = unsubscribed
        self._properties = properties
        self._output = output
        self._filtered_out = filtered_out
        self._count = count
        self._timeout_s = timeout_s
        self._exits_after_suback = exits_after_suback
        self._reconnects = reconnects
        self._delay_s = 1  # before the next connection
        self._printed = 0
        self._skips_retained = skips_retained
        self._retained_only = retained_only
        self._removes_retained = removes_retained
        self._share_printed = share_printed

    async def run(self) -> int:
        """Subscribe, print, and return the exit code."""
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await self._run_connection()
                    except ConnectionRefused:
                        raise
                    except ClientError as error:
                        if not self._reconnects:
                            raise
                        self._connection.complain(f"mqttcore: {error}; trying again in {self._delay_s} s")
                    await asyncio.sleep(self._delay_s)
                    self._delay_s = min(2 * self._delay_s, _DELAY_MAXIMUM_S)
        except TimeoutError:
            self._connection.complain("mqttcore: timed out")
            return _TIMED_OUT

    async def _run_connection(self) -> int:
        """Connect, subscribe, print until there is enough, and return the exit code; raises ClientError."""
        client = await self._connection.open()
        self._delay_s = 1
        try:
            if not await self._subscribe(client):
                return 1
            if not self._exits_after_suback:
                await self._print_messages(client)
            return 0
        finally:
            try:
                self._output.flush()
            finally:
                await self._connection.close(client)

    async def _subscribe(self, client: Client) -> bool:
        """Subscribe, then unsubscribe; say whether there is something to wait for."""
        is_any_granted = not self._subscriptions
        if self._subscriptions:
            reason_codes = await client.subscribe(self._subscriptions, self._properties["subscribe"])
            for subscription, reason_code in zip(self._subscriptions, reason_codes, strict=True):
                if reason_code < ReasonCode.UNSPECIFIED_ERROR:
                    is_any_granted = True
                else:
                    reason = reason_text(reason_code)
                    self._connection.complain(f"mqttcore: {subscription.topic_filter}: subscription refused: {reason}")
        if self._unsubscribed:
            await client.unsubscribe(self._unsubscribed, self._properties["unsubscribe"])
        return is_any_granted

    async def _print_messages(self, client: Client) -> None:
        while self._count is None or self._printed < self._count:
            if not client.waiting:
                self._output.flush()
            message = await client.receive()
            if self._retained_only and not message.retain:
                return
            if any(covers(one, message.topic) for one in self._filtered_out):
                continue
            if self._removes_retained and message.retain and message.payload:
                # At QoS 0: other acknowledgements could not be read while we do not receive, and DISCONNECT, later on
                # the same connection, cannot overtake it.
                await client.send(message.topic, b"", retain=True)
            if self._is_printed(message):
                self._output.print(message)
                self._printed += 1

    def _is_printed(self, message: Publish) -> bool:
        if self._skips_retained and message.retain:
            return False
        return self._share_printed >= 1 or random.random() < self._share_printed  # noqa: S311
