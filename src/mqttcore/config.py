"""Configuration: strict TOML into frozen structs; a mistake is a ConfigError that names the key.

The constructors do not check what they are given (msgspec checks what it converts): for values from outside use
`load` or `from_mapping`. Every range and every line of documentation stands in the field's `Meta`;
`config_reference.py` makes docs/config.md of them.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mqttcore.errors import ConfigError
from mqttcore.settings import HIDDEN, convert

__all__ = ["Config", "Limits", "Listener", "LogLevel", "check_exposure", "from_mapping", "is_loopback", "load"]

LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_COUNT_MAXIMUM = 2**31 - 1
_BYTES_MAXIMUM = 2**53 - 1


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One address that accepts connections; a `[[listeners]]` table."""

    name: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name in logs, metrics and plugins; no two alike."),
    ] = "default"
    host: Annotated[
        str,
        Meta(min_length=1, max_length=255, description="Address or host name; `0.0.0.0` and `::` are all addresses."),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 lets the system choose.")] = 1883
    backlog: Annotated[
        int, Meta(ge=1, le=65535, description="Connections that may wait in the kernel to be accepted.")
    ] = 4096
    max_connections: Annotated[
        int,
        Meta(ge=0, le=_COUNT_MAXIMUM, description="Connections at a time on this listener; 0: no limit of its own."),
    ] = 0
    accept_per_turn: Annotated[
        int, Meta(ge=1, le=65535, description="Connections accepted in one turn of the event loop.")
    ] = 64
    protocol: Annotated[Literal["mqtt"], Meta(description="What is spoken on the connection.")] = "mqtt"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of connections, sessions and stored messages; the `[limits]` table."""

    connect_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time a new connection has until its CONNECT is complete.")
    ] = 10.0
    maximum_packet_size_bytes: Annotated[
        int, Meta(ge=16, le=268_435_460, description="Largest packet taken from a client, fixed header included.")
    ] = 2_000_000
    receive_maximum: Annotated[
        int, Meta(ge=1, le=65535, description="Unacknowledged QoS 1 and 2 messages a client may have under way to us.")
    ] = 1024
    enforce_receive_maximum: Annotated[
        bool, Meta(description="Disconnect a client that exceeds `receive_maximum` (MQTT 5: reason code 0x93).")
    ] = True
    topic_alias_maximum: Annotated[
        int, Meta(ge=0, le=65535, description="Topic aliases a client may set; 0: none.")
    ] = 32
    topic_alias_maximum_out: Annotated[
        int,
        Meta(ge=0, le=65535, description="Topic aliases we set per client, besides the client's own maximum; 0: none."),
    ] = 32
    maximum_qos: Annotated[int, Meta(ge=0, le=2, description="Highest QoS that is taken and granted.")] = 2
    retain_available: Annotated[bool, Meta(description="Whether messages may be retained.")] = True
    wildcard_subscription_available: Annotated[bool, Meta(description="Whether topic filters may have wildcards.")] = (
        True
    )
    subscription_identifier_available: Annotated[
        bool, Meta(description="Whether subscriptions may have identifiers.")
    ] = True
    shared_subscription_available: Annotated[bool, Meta(description="Whether `$share/…` filters are taken.")] = True
    session_expiry_maximum_s: Annotated[
        int,
        Meta(ge=0, le=0xFFFFFFFF, description="Longest life of a session without connection; 4294967295: for ever."),
    ] = 604_800
    keep_alive_maximum_s: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="Longest keep alive, set by Server Keep Alive in MQTT 5; 0: the client's choice.",
        ),
    ] = 0
    in_flight_maximum: Annotated[
        int, Meta(ge=1, le=65535, description="Unacknowledged messages to one client, besides its own Receive Maximum.")
    ] = 1024
    in_flight_bytes_maximum: Annotated[
        int,
        Meta(ge=1, le=_BYTES_MAXIMUM, description="Bytes unacknowledged by one client from which on no more are sent."),
    ] = 16_777_216
    queued_messages_maximum: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="Messages queued per session beyond those in flight.")
    ] = 1000
    queued_bytes_maximum: Annotated[
        int, Meta(ge=0, le=_BYTES_MAXIMUM, description="Bytes queued per session beyond those in flight.")
    ] = 16_777_216
    queued_age_maximum_s: Annotated[
        int, Meta(ge=0, le=0xFFFFFFFF, description="Longest time a message stays queued for a session; 0: no limit.")
    ] = 604_800
    queue_drop: Annotated[
        Literal["newest", "oldest"], Meta(description="Which message a full queue drops, after those of QoS 0.")
    ] = "oldest"
    queue_qos0_offline: Annotated[bool, Meta(description="Queue QoS 0 messages for sessions without connection.")] = (
        False
    )
    queued_total_bytes_maximum: Annotated[
        int, Meta(ge=0, le=_BYTES_MAXIMUM, description="Bytes queued in all sessions together.")
    ] = 1_073_741_824
    output_high_water_bytes: Annotated[
        int,
        Meta(
            ge=1024, le=_COUNT_MAXIMUM, description="Unsent bytes of a connection from which its messages are queued."
        ),
    ] = 262_144
    topic_levels_maximum: Annotated[int, Meta(ge=1, le=65535, description="Levels of a topic name or filter.")] = 128
    topic_bytes_maximum: Annotated[int, Meta(ge=1, le=65535, description="Bytes of a topic name or filter.")] = 65_535
    client_id_bytes_maximum: Annotated[
        int, Meta(ge=23, le=65535, description="Bytes of a client identifier; 23 must be taken [MQTT-3.1.3-5].")
    ] = 65_535
    subscriptions_per_session_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Subscriptions of one session.")
    ] = 10_000
    connections_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Connections at a time, on all listeners.")
    ] = 1_000_000
    sessions_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Sessions, with and without connection.")
    ] = 1_000_000
    retained_messages_maximum: Annotated[int, Meta(ge=0, le=_COUNT_MAXIMUM, description="Retained messages.")] = (
        1_000_000
    )
    retained_bytes_maximum: Annotated[
        int, Meta(ge=0, le=_BYTES_MAXIMUM, description="Bytes of all retained messages.")
    ] = 1_073_741_824
    share_strategy: Annotated[
        Literal["round_robin", "sticky", "hash"],
        Meta(description="How a shared subscription picks its member: in turn, the same while it lives, or by topic."),
    ] = "round_robin"
    publisher_pause_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="How long a publisher is held back at a time because of a full queue.")
    ] = 200
    routes_cached_maximum: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="Topics whose matching subscriptions are remembered.")
    ] = 65_536
    response_information: Annotated[
        str,
        Meta(max_length=1024, description="Prefix of response topics, given to clients that ask for it; empty: none."),
    ] = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole configuration; the top of the document."""

    listeners: Annotated[
        list[Listener], Meta(min_length=1, max_length=1024, description="Where connections are accepted.")
    ] = msgspec.field(default_factory=lambda: [Listener()])
    allow_anonymous: Annotated[
        bool | None,
        Meta(
            description="Clients without authentication; "
            "not set: on loopback addresses only, and nowhere once a plugin authenticates."
        ),
    ] = None
    sys_for_anonymous: Annotated[
        bool, Meta(description="Whether clients without authentication may subscribe to `$SYS/`.")
    ] = False
    limits: Annotated[Limits, Meta(description="Bounds of connections, sessions and stored messages.")] = Limits()
    plugins: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="`[plugins.NAME]` enables a plugin, in call order; its keys are the plugin's own."),
    ] = {}
    authentication_timeout_s: Annotated[
        float,
        Meta(
            ge=0.01,
            le=3600,
            description="Time that plugins have to answer a CONNECT, AUTH or SUBSCRIBE; late is refused (0x88, 0x83).",
        ),
    ] = 5.0
    authentications_maximum: Annotated[
        int,
        Meta(
            ge=1,
            le=_COUNT_MAXIMUM,
            description="Clients that wait for a plugin's answer at a time; more are refused (0x89, 0x97).",
        ),
    ] = 1000
    plugin_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time that a plugin has to start, to stop, or to take over a reload.")
    ] = 30.0
    events_queued_maximum: Annotated[
        int,
        Meta(ge=1, le=_COUNT_MAXIMUM, description="Events that wait for one plugin that observes; more are dropped."),
    ] = 10_000
    sys_interval_s: Annotated[
        int, Meta(ge=0, le=86_400, description="Time between two rounds of `$SYS` messages; 0: none.")
    ] = 10
    log_level: Annotated[
        LogLevel,
        Meta(description="Least severe records that are logged."),
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="Lines for people, or one JSON object a line.")] = (
        "text"
    )
    shutdown_timeout_s: Annotated[
        float, Meta(ge=0, le=3600, description="Time that connections have to drain when the broker stops.")
    ] = 5.0
    gather_us: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Under load, how long packets gather before all sockets are served at once (Linux); 0: not.",
        ),
    ] = 150
    loop: Annotated[
        Literal["auto", "uvloop", "asyncio"], Meta(description="Event loop; auto: uvloop when it can be imported.")
    ] = "auto"

    def __repr__(self) -> str:
        """Show everything but what plugins are told: it may be secret."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["plugins"] = dict.fromkeys(self.plugins, HIDDEN)
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def load(path: str | os.PathLike[str]) -> Config:
    """Return the configuration in the TOML file *path*.

    Raises ConfigError: file unreadable, blank (a truncated file must not mean "all defaults"), no TOML (the reason has
    line and column), or as `from_mapping` does.
    """
    source = os.fspath(path)
    try:
        text = Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("", f"cannot be read: {error.strerror or error}", source) from error
    except UnicodeDecodeError as error:
        raise ConfigError("", f"is not UTF-8: {error.reason} at byte {error.start}", source) from error
    if not text.strip():
        raise ConfigError("", "is blank; a file that wants every default needs at least a comment", source)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("", f"is not TOML: {error}", source) from error
    return from_mapping(document, source)


def from_mapping(mapping: Mapping[str, Any], source: str | None = None) -> Config:
    """Return the configuration that *mapping*, shaped like the TOML document, describes.

    source: the file's name for errors. Raises ConfigError: unknown key, wrong type, value out of range, two listeners
    of one name or on one address.
    """
    _check_plugin_tables(mapping, source)
    config = convert(mapping, Config, "", source)
    _check_listeners(config, source)
    return config


def is_loopback(host: str) -> bool:
    """Say whether *host* can only be reached from this machine; names other than `localhost` count as no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(config: Config, has_authentication: bool, source: str | None = None) -> None:
    """Refuse a listener that would let strangers in by mistake.

    Raises ConfigError for a listener beyond loopback when no plugin authenticates and `allow_anonymous` is not true.
    """
    if has_authentication or config.allow_anonymous:
        return
    for index, listener in enumerate(config.listeners):
        if not is_loopback(listener.host):
            reason = (
                f"{listener.host} can be reached by others, and no plugin authenticates clients: "
                "enable one, listen on 127.0.0.1, or write allow_anonymous = true"
            )
            raise ConfigError(f"listeners[{index}].host", reason, source)


def _check_plugin_tables(mapping: Mapping[str, Any], source: str | None) -> None:
    # msgspec says `plugins[...]`; only we can say which one.
    plugins = mapping.get("plugins")
    if not isinstance(plugins, dict):
        return
    for name, table in plugins.items():
        if not isinstance(table, dict):
            raise ConfigError(f"plugins.{name}", f"Expected a table, got `{type(table).__name__}`", source)


def _check_listeners(config: Config, source: str | None) -> None:
    names: dict[str, int] = {}
    addresses: dict[tuple[str, int], int] = {}
    for index, listener in enumerate(config.listeners):
        first = names.setdefault(listener.name, index)
        if first != index:
            raise ConfigError(f"listeners[{index}].name", f"`{listener.name}` is listeners[{first}] already", source)
        first = addresses.setdefault((listener.host, listener.port), index)
        if listener.port and first != index:
            raise ConfigError(
                f"listeners[{index}].port", f"{listener.host}:{listener.port} is listeners[{first}] already", source
            )
