"""The whole document: strict TOML into frozen structs.

The constructors do not check what they are given (msgspec checks what it converts): for values from outside use
`load` or `from_mapping`.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mqttcore.config.bounds import BYTES_MAXIMUM, COUNT_MAXIMUM
from mqttcore.config.limits import Limits
from mqttcore.config.listener import Listener
from mqttcore.config.listener_checks import check_listeners
from mqttcore.config.sections import Authorization, Flapping, HttpApi, StoreSettings, Tracing
from mqttcore.errors import ConfigError
from mqttcore.settings import HIDDEN, convert

__all__ = ["Config", "LogLevel", "from_mapping", "load"]

LogLevel = Literal["debug", "info", "warning", "error", "critical"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole configuration; the top of the document."""

    listeners: Annotated[
        list[Listener], Meta(min_length=1, max_length=1024, description="Where connections are accepted.")
    ] = msgspec.field(default_factory=lambda: [Listener()])
    allow_anonymous: Annotated[
        bool | None,
        Meta(
            description="Clients without authentication; "
            "not set: on loopback addresses and Unix sockets without `proxy_protocol` only, and nowhere once a plugin "
            "authenticates."
        ),
    ] = None
    sys_for_anonymous: Annotated[
        bool, Meta(description="Whether clients without authentication may subscribe to `$SYS/`.")
    ] = False
    limits: Annotated[Limits, Meta(description="Bounds of connections, sessions and stored messages.")] = Limits()
    store: Annotated[StoreSettings, Meta(description="How the store is used.")] = StoreSettings()
    flapping: Annotated[Flapping, Meta(description="Clients that connect and disconnect all the time.")] = Flapping()
    authorization: Annotated[Authorization, Meta(description="What becomes of who wants more than it may.")] = (
        Authorization()
    )
    http_api: Annotated[HttpApi, Meta(description="Management over HTTP.")] = HttpApi()
    tracing: Annotated[Tracing, Meta(description="Traces of a client, an address or a topic.")] = Tracing()
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
            le=COUNT_MAXIMUM,
            description="Clients that wait for a plugin's answer at a time; more are refused (0x89, 0x97).",
        ),
    ] = 1000
    plugin_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time that a plugin has to start, to stop, or to take over a reload.")
    ] = 30.0
    events_queued_maximum: Annotated[
        int,
        Meta(ge=1, le=COUNT_MAXIMUM, description="Events that wait for one plugin that observes; more are dropped."),
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
    overload_lag_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="Lasting lag of the event loop from which on new clients hear Server busy; 0: never.",
        ),
    ] = 250
    memory_maximum_bytes: Annotated[
        Annotated[int, Meta(ge=0, le=BYTES_MAXIMUM)] | None,
        Meta(
            description="Resident memory of the process: over 90 % of it there are no new sessions (Server busy), over "
            "all of it queues, retained messages and subscriptions do not grow. 0: no maximum; not set: 80 % of what "
            "the machine or the control group has."
        ),
    ] = None
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
    check_listeners(config.listeners, source)
    return config


def _check_plugin_tables(mapping: Mapping[str, Any], source: str | None) -> None:
    # msgspec says `plugins[...]`; only we can say which one.
    plugins = mapping.get("plugins")
    if not isinstance(plugins, dict):
        return
    for name, table in plugins.items():
        if not isinstance(table, dict):
            raise ConfigError(f"plugins.{name}", f"Expected a table, got `{type(table).__name__}`", source)
