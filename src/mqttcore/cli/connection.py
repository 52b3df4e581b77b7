"""What `mqttcore pub` and `mqttcore sub` share: options that describe the connection, exit codes, the way to run."""

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from mqttcore.cli.tls_options import client_context, tls_options
from mqttcore.client import Client, open_client
from mqttcore.codec import Connect, Will
from mqttcore.constants import PropertyId, ProtocolVersion
from mqttcore.errors import ConnectionRefused, MqttCoreError

__all__ = ["EPILOG", "Connection", "connection_options", "run"]

EPILOG = (
    "Exit codes: 0 done; 1 failed; 2 wrong usage; 27 timed out (sub -W). If the server refuses the connection, "
    "its reason is printed and the exit code is that reason's number in MQTT 5, 128 to 162."
)

_VERSIONS = {
    "31": ProtocolVersion.MQTT_3_1,
    "mqttv31": ProtocolVersion.MQTT_3_1,
    "311": ProtocolVersion.MQTT_3_1_1,
    "mqttv311": ProtocolVersion.MQTT_3_1_1,
    "5": ProtocolVersion.MQTT_5,
    "mqttv5": ProtocolVersion.MQTT_5,
}
_NEVER = 0xFFFFFFFF

_OPTIONS = [
    click.option("-h", "--host", default="localhost", show_default=True, help="Server."),
    click.option(
        "-p",
        "--port",
        type=click.IntRange(1, 65535),
        help="Its port.  [default: 1883, with TLS 8883; of ws:// 80, wss:// 443]",
    ),
    click.option("--unix", "unix_path", metavar="PATH", help="Unix socket, instead of host and port."),
    click.option(
        "-L",
        "--url",
        metavar="URL",
        help="mqtt://[user[:password]@]host[:port]/topic, mqtts://…, ws://host[:port]/path, wss://…, or unix:///path.",
    ),
    click.option(
        "--websocket",
        "websocket_path",
        metavar="[PATH]",
        is_flag=False,
        flag_value="/mqtt",
        help="MQTT in WebSocket, at PATH; without one at /mqtt. ws:// and wss:// imply it.",
    ),
    click.option("-A", "--bind", "local_host", metavar="ADDRESS", help="Local address to connect from."),
    click.option("-i", "--id", "client_id", help="Client identifier; by default a random one."),
    click.option("-I", "--id-prefix", help="Client identifier: this and the process id."),
    click.option("-u", "--username", envvar="MQTT_USERNAME", show_envvar=True, help="User name."),
    click.option("-P", "--pw", "password", envvar="MQTT_PASSWORD", show_envvar=True, help="Password."),
    click.option(
        "-V",
        "--protocol-version",
        type=click.Choice(list(_VERSIONS)),
        help="MQTT version; by default 311, or 5 where an option needs it.",
    ),
    click.option(
        "-k",
        "--keepalive",
        "keep_alive_s",
        type=click.IntRange(0, 65535),
        default=60,
        show_default=True,
        help="Seconds.",
    ),
    click.option(
        "-c", "--disable-clean-session", is_flag=True, help="Keep the session after disconnecting; needs -i or -I."
    ),
    click.option(
        "-x",
        "--session-expiry-interval",
        "session_expiry",
        metavar="SECONDS",
        help="MQTT 5: how long the session is kept; -1 for ever. By default 0, with -c for ever.",
    ),
    click.option("--will-topic", help="Topic of the will."),
    click.option("--will-payload", help="Payload of the will."),
    click.option("--will-qos", type=click.IntRange(0, 2), default=0, help="QoS of the will."),
    click.option("--will-retain", is_flag=True, help="Retain the will."),
    click.option("-d", "--debug", is_flag=True, help="Print packets on standard error."),
    click.option("--quiet", is_flag=True, help="Print no errors."),
]


class Connection:
    """The connection options of one call, checked."""

    def __init__(
        self,
        *,
        host: str,
        port: int | None,
        unix_path: str | None,
        url: str | None,
        websocket_path: str | None,
        local_host: str | None,
        client_id: str | None,
        id_prefix: str | None,
        username: str | None,
        password: str | None,
        protocol_version: str | None,
        keep_alive_s: int,
        disable_clean_session: bool,
        session_expiry: str | None,
        will_topic: str | None,
        will_payload: str | None,
        will_qos: int,
        will_retain: bool,
        debug: bool,
        quiet: bool,
        is_tls: bool,
        cafile: str | None,
        certificate: str | None,
        key: str | None,
        insecure: bool,
        properties: dict[str, dict[int, Any]],
        needs_v5: bool = False,
    ) -> None:
        self.url_topic = None
        if url is not None and url.startswith("unix://"):
            unix_path = _unix_path(url)
        elif url is not None:
            is_tls = is_tls or url.startswith(("mqtts://", "wss://"))
            host, port, username, password, rest = _split_url(url, username, password)
            if url.startswith(("ws://", "wss://")):
                port = port or (443 if is_tls else 80)
                websocket_path = f"/{rest}" if rest else websocket_path or "/mqtt"
            else:
                self.url_topic = unquote(rest) or None
        self.tls = client_context(is_tls=is_tls, cafile=cafile, certificate=certificate, key=key, insecure=insecure)
        if websocket_path is not None:
            if not websocket_path.startswith("/"):
                raise click.UsageError("--websocket: a path begins with /")
            if self.tls is not None:
                self.tls.set_alpn_protocols(["http/1.1"])
        self.websocket_path = websocket_path
        self.host = host
        self.port = port or (1883 if self.tls is None else 8883)
        self.unix_path = unix_path
        self.local_host = local_host
        self.is_debug = debug
        self.is_quiet = quiet
        self.disconnect_properties = properties["disconnect"]
        needs_v5 = needs_v5 or session_expiry is not None or any(properties.values())
        self.version = _version(protocol_version, needs_v5)
        if client_id is not None and id_prefix is not None:
            raise click.UsageError("-i and -I exclude each other")
        if disable_clean_session and not client_id and not id_prefix:
            raise click.UsageError("-c needs -i or -I: nobody finds the session of a random identifier again")
        if password is not None and username is None and self.version < ProtocolVersion.MQTT_5:
            raise click.UsageError("before MQTT 5 a password needs a user name")  # v3 [MQTT-3.1.2-22]
        if will_topic is None and (will_payload is not None or will_qos or will_retain or properties["will"]):
            raise click.UsageError("a will needs --will-topic")
        connect_properties = dict(properties["connect"])
        expiry_s = _session_expiry_s(session_expiry, is_kept=disable_clean_session)
        if self.version >= ProtocolVersion.MQTT_5 and (expiry_s or session_expiry is not None):
            connect_properties[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
        will = None
        if will_topic is not None:
            will = Will(
                will_topic,
                (will_payload or "").encode(errors="surrogateescape"),
                qos=will_qos,
                retain=will_retain,
                properties=properties["will"],
            )
        self.connect = Connect(
            _client_id(client_id, id_prefix),
            protocol_version=self.version,
            clean_start=not disable_clean_session,
            keep_alive_s=keep_alive_s,
            user_name=username,
            password=None if password is None else password.encode(),
            will=will,
            properties=connect_properties,
        )

    async def open(self, *, in_flight_maximum: int = 20) -> Client:
        """Connect; raises ClientError."""
        return await open_client(
            self.connect,
            host=self.host,
            port=self.port,
            unix_path=self.unix_path,
            local_host=self.local_host,
            tls=self.tls,
            websocket_path=self.websocket_path,
            in_flight_maximum=in_flight_maximum,
        )

    async def close(self, client: Client) -> None:
        """Disconnect with the properties given for it."""
        await client.close(properties=self.disconnect_properties)

    def complain(self, text: str) -> None:
        """Print an error, unless told to be quiet."""
        if not self.is_quiet:
            click.echo(text, err=True)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `Connection` takes, all but `properties`."""
    command = tls_options(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run(connection: Connection, work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run *work* and exit with the code it returns, or that of its error.

    SIGINT and SIGTERM cancel it; then the exit code is 0.
    """
    if connection.is_debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(message)s")
        logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        sys.exit(asyncio.run(_until_stopped(work)))
    except KeyboardInterrupt:
        sys.exit(0)
    except ConnectionRefused as error:
        connection.complain(f"mqttcore: {error}")
        sys.exit(error.reason_code)
    except (MqttCoreError, ValueError) as error:  # ValueError: what the codec says of values that fit no packet
        connection.complain(f"mqttcore: {error}")
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone; nothing is left to be flushed to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


async def _until_stopped(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    task = asyncio.ensure_future(work())
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        is_stopped = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            asyncio.get_running_loop().add_signal_handler(number, stop)
        except NotImplementedError:  # Windows: Ctrl-C arrives as KeyboardInterrupt
            break
    try:
        return await task
    except asyncio.CancelledError:
        if is_stopped:
            return 0
        raise


def _version(given: str | None, needs_v5: bool) -> ProtocolVersion:
    if given is None:
        return ProtocolVersion.MQTT_5 if needs_v5 else ProtocolVersion.MQTT_3_1_1
    version = _VERSIONS[given]
    if needs_v5 and version < ProtocolVersion.MQTT_5:
        raise click.UsageError(f"-V {given}: properties, -x and subscription options need MQTT 5")
    return version


def _client_id(client_id: str | None, id_prefix: str | None) -> str:
    if id_prefix is not None:
        return f"{id_prefix}{os.getpid()}"
    return client_id if client_id is not None else f"mqttcore-{secrets.token_hex(6)}"


def _session_expiry_s(given: str | None, *, is_kept: bool) -> int:
    if given is None:
        return _NEVER if is_kept else 0
    if given in ("-1", "∞"):
        return _NEVER
    if not given.isdecimal() or int(given) > _NEVER:
        raise click.UsageError(f"-x {given}: neither seconds nor -1")
    return int(given)


def _unix_path(url: str) -> str:
    path = unquote(url.removeprefix("unix://"))
    if not path.startswith("/"):
        raise click.UsageError("-L: not like unix:///run/mqttcore.sock")
    return path


def _split_url(
    url: str, username: str | None, password: str | None
) -> tuple[str, int | None, str | None, str | None, str]:
    """Return host, port, user name, password, and what follows the host's slash as it is written."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise click.UsageError(f"-L: {error}") from error
    if parts.scheme not in ("mqtt", "mqtts", "ws", "wss") or not parts.hostname:
        raise click.UsageError("-L: not like mqtt://host/topic, mqtts://…, ws://…, wss://… or unix:///path")
    if parts.username is not None:
        username = unquote(parts.username)
    if parts.password is not None:
        password = unquote(parts.password)
    # `#` and `?` are topic characters here, not a URL's fragment and query.
    after_host = url.split("://", 1)[1].partition("/")[2]
    return parts.hostname, port, username, password, after_host
