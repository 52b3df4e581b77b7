"""From the tables of a configuration to plugins that were made: found, checked, configured, built."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqttcore.errors import ConfigError, PluginError
from mqttcore.plugins.discovery import installed
from mqttcore.plugins.hooks import HOOKS, implementations
from mqttcore.settings import convert, is_settings_type

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from mqttcore.config import Config
    from mqttcore.plugins.discovery import InstalledPlugin

__all__ = [
    "LASTING_HOOKS",
    "EnabledPlugin",
    "enabled",
    "is_replaceable",
    "load_class",
    "make",
    "name_of",
    "narrowed_listeners",
]

# What the first instance gives cannot be had from another one while the broker runs.
LASTING_HOOKS = {
    "continue_authentication": "exchanges of AUTH that one instance began another one does not know",
    "event_types": "observers have chosen among those that were there at the start",
    "http_routes": "aiohttp freezes them when the listener begins to accept",
    "open_store": "sessions and messages are in it",
}


@dataclass(frozen=True, slots=True)
class EnabledPlugin:
    """A plugin that a table enables. settings: an instance of its `Config`, None when it has none.

    distribution: name and version of what it came with.
    """

    name: str
    cls: type
    settings: Any
    distribution: str

    @property
    def hooks(self) -> frozenset[str]:
        """Names of the hooks it implements."""
        return frozenset(implementations(self.name, self.cls))


def enabled(config: Config, source: str | None = None) -> list[EnabledPlugin]:
    """Return the plugins of all `[plugins.NAME]` tables in their order, checked and configured but not made.

    Raises ConfigError for a table whose plugin is not installed or that is wrong, PluginError for a plugin that cannot
    be used.
    """
    if not config.plugins:
        return []
    available = installed()
    found = []
    for name, table in config.plugins.items():
        offered = _only(name, available, source)
        cls = load_class(offered)
        found.append(EnabledPlugin(name, cls, settings_of(name, cls, table, source), offered.distribution))
    return found


def narrowed_listeners(config: Config, loaded: Container[str]) -> dict[str, list[str]]:
    """Return listener -> plugins that are asked about its clients, for listeners that narrow.

    loaded: names of plugins. Raises ConfigError for one that is not among them.
    """
    for index, listener in enumerate(config.listeners):
        for number, name in enumerate(listener.plugins or ()):
            if name not in loaded:
                raise ConfigError(f"listeners[{index}].plugins[{number}]", f"no plugin {name} is enabled")
    return {listener.name: listener.plugins for listener in config.listeners if listener.plugins is not None}


def load_class(plugin: InstalledPlugin) -> type:
    """Import a plugin and check its class; raises PluginError."""
    cls = plugin.load()
    if not isinstance(cls, type):
        raise PluginError(plugin.name, "", f"{plugin.place} is no class")
    check_class(plugin.name, cls)
    return cls


def check_class(name: str, cls: type) -> None:
    """Raise PluginError unless *cls* can be a plugin."""
    if hasattr(cls, "Config") and not is_settings_type(cls.Config):
        raise PluginError(name, "", "its Config is neither a frozen dataclass nor a frozen msgspec struct")
    hooks = implementations(name, cls)
    if not hooks:
        raise PluginError(name, "", f"implements no hook; there are {', '.join(sorted(HOOKS))}")
    if is_replaceable(cls):
        for hook, reason in LASTING_HOOKS.items():
            if hook in hooks:
                raise PluginError(name, hook, f"a plugin that is_replaceable cannot have it: {reason}")


def is_replaceable(cls: type) -> bool:
    """Say whether a plugin's class declares that another instance may take its place while the broker runs."""
    return getattr(cls, "is_replaceable", False) is True


def settings_of(name: str, cls: type, table: Mapping[str, Any], source: str | None = None) -> Any:
    """Return the `Config` of a plugin made from its table; None for a plugin without. Raises ConfigError."""
    kind = getattr(cls, "Config", None)
    if kind is None:
        if table:
            raise ConfigError(f"plugins.{name}.{next(iter(table))}", "unknown key", source)
        return None
    try:
        return convert(table, kind, f"plugins.{name}", source)
    except (TypeError, NameError, NotImplementedError) as error:
        raise PluginError(name, "", f"its Config cannot be read: {error}") from error


def make(plugin: EnabledPlugin, source: str | None = None) -> object:
    """Build a plugin. Raises PluginError, or ConfigError when the plugin says so of its settings."""
    try:
        return plugin.cls() if plugin.settings is None else plugin.cls(plugin.settings)
    except ConfigError as error:
        path = ".".join(part for part in ("plugins", plugin.name, error.path) if part)
        raise ConfigError(path, error.reason, error.source or source) from error
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(plugin.name, "", f"cannot be made: {type(error).__name__}: {error}") from error


def name_of(plugin: object, taken: Sequence[str]) -> str:
    """Return the name of a plugin that came as an object: its `name`, else its class's with underscores."""
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not name:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(plugin).__name__).lower()
    if name in taken:
        raise PluginError(name, "", "there are two of this name")
    return name


def _only(name: str, available: Mapping[str, list[InstalledPlugin]], source: str | None) -> InstalledPlugin:
    candidates = available.get(name, [])
    if not candidates:
        near = difflib.get_close_matches(name, available, 1, 0.5)
        advice = f"; did you mean {near[0]}?" if near else "; `mqttcore plugins` lists what is installed"
        raise ConfigError(f"plugins.{name}", f"there is no such plugin{advice}", source)
    if len(candidates) > 1:
        places = ", ".join(f"{one.distribution} ({one.place})" for one in candidates)
        raise ConfigError(f"plugins.{name}", f"several packages offer it: {places}", source)
    return candidates[0]
