"""Which hooks a plugin implements, and whether it does so in a way that can be called."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from mqttcore import hookspecs
from mqttcore.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HOOKS", "PACKET_PATH", "Implementation", "hook_manager", "implementations"]

_PROJECT = "mqttcore"

# Name -> the specification's arguments without self, in order.
HOOKS: dict[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(value).parameters)
    for name, value in vars(hookspecs).items()
    if hasattr(value, f"{_PROJECT}_spec")
}
# Called positionally by the engine, or by what stands before the plugins: names and order are the specification's.
_POSITIONAL = {
    "admit",
    "authenticate",
    "authorize_deliver",
    "authorize_publish",
    "authorize_subscribe",
    "continue_authentication",
    "transform_publish",
}
PACKET_PATH = {"admit", "authorize_deliver", "authorize_publish", "transform_publish"}
_ASYNC_ALLOWED = {"authenticate", "authorize_subscribe", "continue_authentication", "observe", "shutdown", "startup"}
_GENERATOR_ALLOWED = {"event_types", "http_routes", "topic_handlers"}


@dataclass(frozen=True, slots=True)
class Implementation:
    """One hook of one plugin. function: a bound method; arguments: those it takes, in its order."""

    plugin: str
    hook: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]

    def call(self, **given: Any) -> Any:
        """Call it with those of the arguments that it takes."""
        return self.function(*(given[name] for name in self.arguments))


def hook_manager() -> pluggy.PluginManager:
    """Return a plugin manager that knows our hooks."""
    manager = pluggy.PluginManager(_PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def implementations(name: str, plugin: object) -> dict[str, Implementation]:
    """Return the hooks that *plugin*, an instance or a class, implements.

    Raises PluginError for a hook that does not exist, is implemented twice, has the wrong arguments, is a wrapper or a
    coroutine where none can be, or lacks its mark.
    """
    found: dict[str, Implementation] = {}
    cls = plugin if isinstance(plugin, type) else type(plugin)
    for attribute in dir(cls):
        declared = inspect.getattr_static(cls, attribute)
        options = getattr(declared, f"{_PROJECT}_impl", None)
        if options is None:
            if attribute in HOOKS and callable(declared):
                raise PluginError(name, attribute, "has the name of a hook, but no @hookimpl")
            continue
        hook = options["specname"] or attribute
        if hook not in HOOKS:
            near = difflib.get_close_matches(hook, HOOKS, 1, 0.5)
            raise PluginError(name, hook, "there is no such hook" + (f"; did you mean {near[0]}?" if near else ""))
        if hook in found:
            raise PluginError(name, hook, "is implemented twice")
        found[hook] = Implementation(name, hook, getattr(plugin, attribute), _check(name, hook, declared, options))
    return found


def _check(name: str, hook: str, function: Any, options: Any) -> tuple[str, ...]:
    for option in ("wrapper", "hookwrapper"):
        if options[option]:
            raise PluginError(name, hook, "is a wrapper; hooks are called one after another and cannot be wrapped")
    for option in ("tryfirst", "trylast"):
        if options[option]:
            raise PluginError(name, hook, f"asks for {option}; the order is that of the configuration")
    if not inspect.isfunction(function):
        raise PluginError(name, hook, "is no plain method")
    is_coroutine = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if is_coroutine and (hook not in _ASYNC_ALLOWED or inspect.isasyncgenfunction(function)):
        where = "is on the packet path and " if hook in PACKET_PATH else ""
        raise PluginError(name, hook, f"{where}must be a plain function, not a coroutine")
    if inspect.isgeneratorfunction(function) and hook not in _GENERATOR_ALLOWED:
        raise PluginError(name, hook, "must be a plain function, not a generator")
    return _arguments(name, hook, function)


def _arguments(name: str, hook: str, function: Any) -> tuple[str, ...]:
    parameters = list(inspect.signature(function).parameters.values())
    given = tuple(parameter.name for parameter in parameters[1:])
    wanted = HOOKS[hook]
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    is_plain = bool(parameters) and all(one.kind in plain and one.default is one.empty for one in parameters)
    is_known = given == wanted if hook in _POSITIONAL else set(given) <= set(wanted)
    if not is_plain or not is_known:
        raise PluginError(name, hook, f"takes ({', '.join(given)}), must take ({', '.join(wanted)})")
    return given
