"""Configuration: strict TOML into frozen structs; a mistake is a ConfigError that names the key.

The constructors do not check what they are given (msgspec checks what it converts): for values from outside use
`load` or `from_mapping`. Every range and every line of documentation stands in the field's `Meta`;
`config_reference.py` makes docs/config.md of them.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, inspect

from mqttcore.errors import ConfigError

__all__ = ["Config", "Limits", "Listener", "LogLevel", "StoreSettings", "check_exposure", "from_mapping", "is_loopback", "load"]

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
        Literal["newest", "oldest", "refuse"],
        Meta(
            description="Which message a full queue drops, after those of QoS 0; refuse: the new one is not taken from "
            "its publisher (reason code 0x97; before MQTT 5, its connection is closed)."
        ),
    ] = "oldest"
    queue_qos0_offline: Annotated[bool, Meta(description="Queue QoS 0 messages for sessions without connection.")] = (
        False
    )
    queued_total_bytes_maximum: Annotated[
        int, Meta(ge=0, le=_BYTES_MAXIMUM, description="Bytes queued in all sessions together; the oldest are dropped.")
    ] = 1_073_741_824
    queued_resident_messages: Annotated[
        int,
        Meta(
            ge=1,
            le=_COUNT_MAXIMUM,
            description="Queued messages per durable session that are kept in memory; the others in the store alone.",
        ),
    ] = 1000
    queued_resident_bytes: Annotated[
        int, Meta(ge=1, le=_BYTES_MAXIMUM, description="Bytes queued per durable session that are kept in memory.")
    ] = 1_048_576
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


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the broker uses its store, where it has one; the `[store]` table. Where it is, a plugin's table says."""

    retained: Annotated[bool, Meta(description="Whether retained messages are kept in the store.")] = True
    gather_ms: Annotated[
        float,
        Meta(ge=0, le=1000, description="Shortest time between the beginnings of two commits; one sync serves many."),
    ] = 2.0
    pending_bytes_maximum: Annotated[
        int,
        Meta(
            ge=65_536,
            le=_BYTES_MAXIMUM,
            description="Bytes on their way to the store from which on publishers of durable messages are not read.",
        ),
    ] = 16_777_216
    retry_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time after which a commit that failed is tried again.")
    ] = 1.0


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole configuration; the top of the document."""

    listeners: Annotated[
        list[Listener], Meta(min_length=1, max_length=1024, description="Where connections are accepted.")
    ] = msgspec.field(default_factory=lambda: [Listener()])
    allow_anonymous: Annotated[
        bool | None, Meta(description="Clients without authentication; not set: on loopback addresses only.")
    ] = None
    sys_for_anonymous: Annotated[
        bool, Meta(description="Whether clients without authentication may subscribe to `$SYS/`.")
    ] = False
    limits: Annotated[Limits, Meta(description="Bounds of connections, sessions and stored messages.")] = Limits()
    store: Annotated[StoreSettings, Meta(description="How the store is used.")] = StoreSettings()
    plugins: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="`[plugins.NAME]` enables a plugin, in call order; its keys are the plugin's own."),
    ] = {}
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
    try:
        config = msgspec.convert(mapping, Config)
    except msgspec.ValidationError as error:
        path, reason = _locate(str(error))
        raise ConfigError(path, reason, source) from error
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


_AT = re.compile(r"^(?P<reason>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"^Object (?P<what>contains unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)


def _locate(message: str) -> tuple[str, str]:
    """Split msgspec's message into our key path and the reason; an unknown key is part of the path."""
    at = _AT.match(message)
    assert at is not None  # every part of the pattern is optional
    path, reason = at["path"] or "", at["reason"]
    if field := _FIELD.match(reason):
        path = f"{path}.{field['field']}" if path else field["field"]
        reason = "unknown key" if field["what"] == "contains unknown" else "missing"
    elif reason.startswith("Invalid enum value"):
        reason += f", not one of {', '.join(_choices(path))}"
    return path, reason.replace("`object`", "a table")  # TOML's word


def _choices(path: str) -> list[str]:
    """Return the words that the key at *path* may have."""
    described: inspect.Type = inspect.type_info(Config)
    for name in re.sub(r"\[\d+\]", "", path).split("."):
        assert isinstance(described, inspect.StructType)  # msgspec found its way here, too
        described = next(field.type for field in described.fields if field.name == name)
        while isinstance(described, inspect.Metadata | inspect.ListType):
            described = described.type if isinstance(described, inspect.Metadata) else described.item_type
    assert isinstance(described, inspect.LiteralType)
    return [str(value) for value in described.values]
