"""The plugins of one broker, from load to shutdown.

A plugin that is replaced while the broker runs:

    make ── startup ── topic handlers ── │ seat │ ── what the former is being asked ends ── shutdown of the former
    ◀─────── fails: nothing changed ────▶│      │◀─────── fails: recorded, the new one stays ───────────────────▶

The seat changes hands in one step, with nothing awaited: each question goes to the former or to the new one, none to
nobody. The former, which is still served by its connections and files, answers what it has been asked already.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import logging
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pluggy

from mqttcore.constants import ReasonCode
from mqttcore.engine.compose import changed_message
from mqttcore.engine.hooks import HookTable
from mqttcore.errors import ConfigError, MqttCoreError, NotPossible, PluginError
from mqttcore.events import Event
from mqttcore.handlers import TopicHandler
from mqttcore.plugins.deadline import Late, within
from mqttcore.plugins.decisions import Decisions
from mqttcore.plugins.failures import Failures
from mqttcore.plugins.folding import Recorded, fold_admit, fold_authorize, fold_transform
from mqttcore.plugins.hooks import HOOKS, Implementation, hook_manager, implementations
from mqttcore.plugins.loading import check_class, enabled, is_replaceable, make, name_of, narrowed_listeners
from mqttcore.plugins.observing import GuardedObserver
from mqttcore.plugins.state import PluginState, Reload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiohttp.web import AbstractRouteDef

    from mqttcore.broker import Broker
    from mqttcore.config import Config
    from mqttcore.engine.handler import Handler
    from mqttcore.observers import Observer, Observers

__all__ = ["Plugins"]

log = logging.getLogger("mqttcore.plugins")

_HANDLERS_BITS = 16  # of the order of a topic handler: its number among those of its plugin


class Plugins:
    """Loaded plugins in their order: those of the configuration's tables, then those given as objects.

    instrument: changes what is called; for tests. Raises ConfigError, and PluginError as `loading.enabled` and `make`.
    """

    def __init__(
        self,
        config: Config,
        given: Iterable[object] = (),
        *,
        instrument: Callable[[Implementation], Implementation] | None = None,
    ) -> None:
        self._enabled = {plugin.name: plugin for plugin in enabled(config)}
        self._instrument = instrument
        loaded: dict[str, object] = {name: make(plugin) for name, plugin in self._enabled.items()}
        for plugin in given:
            name = name_of(plugin, [*loaded])
            if isinstance(plugin, type):
                raise PluginError(name, "", "is a class; give an object made of it")
            check_class(name, type(plugin))
            loaded[name] = plugin
        self._manager = hook_manager()
        self._hooks: dict[str, list[Implementation]] = {hook: [] for hook in HOOKS}
        for name, plugin in loaded.items():
            for hook, implementation in self._implementations(name, plugin).items():
                self._hooks[hook].append(implementation)
            try:
                self._manager.register(plugin, name)
            except (ValueError, pluggy.PluginValidationError) as error:
                raise PluginError(name, "", str(error)) from error
        self._manager.check_pending()
        self._loaded = loaded
        self.by_name: Mapping[str, object] = MappingProxyType(loaded)
        self.failures = Failures()
        self.decisions = Decisions(
            self._hooks,
            self.failures,
            timeout_s=config.authentication_timeout_s,
            waiting_maximum=config.authentications_maximum,
            narrowed=narrowed_listeners(config, loaded),
        )
        self._guards = [GuardedObserver(one, self.failures, config.plugin_timeout_s) for one in self._hooks["observe"]]
        self._observers: list[Observer] = []
        self.event_types = frozenset(self._all_of("event_types", _is_event_type, "a subclass of Event"))
        self._timeout_s = config.plugin_timeout_s
        self._started: list[str] = []
        self._handlers: dict[str, list[Handler]] = {}  # those that hang, by plugin
        self._reloads: dict[str, Reload] = {}  # the last of each plugin
        self._broker: Broker | None = None
        self._leaving: set[asyncio.Task[None]] = set()  # who is being replaced and has not shut down yet

    def _implementations(self, name: str, plugin: object) -> dict[str, Implementation]:
        found = implementations(name, plugin)
        if self._instrument is not None:
            found = {hook: self._instrument(one) for hook, one in found.items()}
        return found

    def implementations(self, hook: str) -> Sequence[Implementation]:
        """Return who implements a hook, in order."""
        return self._hooks[hook]

    @property
    def authenticates(self) -> bool:
        """Whether a plugin says who clients are."""
        return bool(self._hooks["authenticate"])

    def hook_table(self, *, admit_first: Callable[..., Any] | None = None) -> HookTable:
        """Return what the engine calls, frozen. admit_first: asked before the plugins that implement `admit`."""
        hooks = self._hooks
        frozen: dict[str, Callable[..., Any]] = {}
        admitting = list(hooks["admit"])
        if admit_first is not None:
            admitting.insert(0, Implementation("broker", "admit", admit_first, ("client", "connect")))
        if admitting:
            frozen["admit"] = fold_admit(admitting, self.failures)
        if hooks["authorize_subscribe"]:
            frozen["authorize_subscribe"] = self.decisions.authorize_subscribe
        if hooks["authorize_publish"]:
            failing = int(ReasonCode.UNSPECIFIED_ERROR)
            frozen["authorize_publish"] = fold_authorize(hooks["authorize_publish"], self.failures, failing)
        if hooks["authorize_deliver"]:
            frozen["authorize_deliver"] = fold_authorize(hooks["authorize_deliver"], self.failures, False)
        if hooks["transform_publish"]:
            frozen["transform_publish"] = fold_transform(hooks["transform_publish"], self.failures, changed_message)
        if self.authenticates:
            frozen["authenticate"] = self.decisions.authenticate
        if self._hooks["continue_authentication"]:
            frozen["continue_authentication"] = self.decisions.continue_authentication
        return HookTable(**frozen, on_failure=self._hook_failed)

    def _hook_failed(self, hook: str, error: Exception) -> None:
        # From the engine: a plugin that it calls by itself. Who failed in a fold was recorded there.
        if not isinstance(error, Recorded):
            # Identity.on_refused is of who authenticated.
            asked = self._hooks["authenticate" if hook == "on_refused" else hook]
            self.failures.record(", ".join(one.plugin for one in asked), hook, error)

    # --- wiring -----------------------------------------------------------------------------------------------------

    def hang_handlers(self, broker: Broker) -> None:
        """Hang the topic handlers of all plugins on the broker's tree, in order; raises PluginError."""
        for implementation in self._hooks["topic_handlers"]:
            self._handlers[implementation.plugin] = self._hang(implementation, broker)

    def _hang(self, implementation: Implementation, broker: Broker) -> list[Handler]:
        # All that the plugin gives, or none.
        name = implementation.plugin
        first = [*self.by_name].index(name) << _HANDLERS_BITS  # the order in which handlers are asked is the plugins'
        hung: list[Handler] = []
        try:
            for handler in _items(implementation, lambda one: isinstance(one, TopicHandler), "a TopicHandler", broker):
                if inspect.iscoroutinefunction(handler.function) or inspect.isgeneratorfunction(handler.function):
                    reason = f"the handler of {handler.topic_filter} must be a plain function"
                    raise PluginError(name, "topic_handlers", reason)
                on_failure = functools.partial(self.failures.record, name, "topic_handlers")
                try:
                    hung.append(broker.add_handler(handler, order=first + len(hung), owner=name, on_failure=on_failure))
                except ValueError as error:
                    raise PluginError(name, "topic_handlers", f"{handler.topic_filter!r}: {error}") from error
        except BaseException:
            for one in hung:
                broker.remove_handler(one)
            raise
        return hung

    def http_routes(self, broker: Broker) -> list[AbstractRouteDef]:
        """Return the routes of all plugins, no two alike; raises PluginError."""
        found: list[AbstractRouteDef] = []
        owners: dict[tuple[str, str], str] = {}
        for implementation in self._hooks["http_routes"]:
            for route in _items(implementation, lambda one: hasattr(one, "register"), "a route definition", broker):
                key = (getattr(route, "method", "*"), getattr(route, "path", repr(route)))
                if key in owners:
                    reason = f"{key[0]} {key[1]} is a route of {owners[key]} already"
                    raise PluginError(implementation.plugin, "http_routes", reason)
                owners[key] = implementation.plugin
                found.append(route)
        return found

    def open_store(self, broker: Broker) -> object | None:
        """Return the store that a plugin gives, None: none does. Raises PluginError when two do."""
        found: list[tuple[str, object]] = []
        for implementation in self._hooks["open_store"]:
            try:
                store = implementation.call(broker=broker)
            except Exception as error:
                raise _error_of(implementation, error) from error
            if store is not None:
                found.append((implementation.plugin, store))
        if len(found) > 1:
            raise PluginError(found[1][0], "open_store", f"{found[0][0]} gives a store already")
        return found[0][1] if found else None

    def observe(self, observers: Observers) -> None:
        """Let plugins see events from now on, until `stop`."""
        self._observers = [observers.add(guard, name=guard.implementation.plugin) for guard in self._guards]

    def stop_pausing(self) -> None:
        """Let observers that are paused for their failures see what waits."""
        for guard in self._guards:
            guard.stop_pausing()

    def _all_of(self, hook: str, is_one: Callable[[Any], bool], what: str) -> list[Any]:
        return [item for implementation in self._hooks[hook] for item in _items(implementation, is_one, what)]

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, broker: Broker) -> None:
        """Start all, one after another; when one fails, those before are shut down. Raises PluginError."""
        self._broker = broker
        starting = {implementation.plugin: implementation for implementation in self._hooks["startup"]}
        try:
            for name in self.by_name:
                if (implementation := starting.get(name)) is not None:
                    await self._start(implementation, broker)
                self._started.append(name)
        except BaseException:
            await self.stop(broker)
            raise

    async def _start(self, implementation: Implementation, broker: Broker) -> None:
        try:
            await within(implementation.call(broker=broker), self._timeout_s)
        except Late as error:
            text = f"did not start within {self._timeout_s:g} s"
            raise PluginError(implementation.plugin, "startup", text) from error
        except Exception as error:
            raise _error_of(implementation, error) from error

    async def stop(self, broker: Broker) -> None:
        """Shut down what was started, last first, whatever happens."""
        await self.decisions.stop()
        for observer in self._observers:
            observer.close()
        if self._leaving:
            await asyncio.wait(self._leaving)
        stopping = {implementation.plugin: implementation for implementation in self._hooks["shutdown"]}
        while self._started:
            await self._shut_down(stopping.get(self._started.pop()), broker)
        self._broker = None

    async def _shut_down(self, implementation: Implementation | None, broker: Broker) -> None:
        if implementation is None:
            return
        try:
            await within(implementation.call(broker=broker), self._timeout_s)
        except Late:
            self.failures.record(implementation.plugin, "shutdown", f"did not stop within {self._timeout_s:g} s")
        except Exception as error:
            self.failures.record(implementation.plugin, "shutdown", error)

    def look(self) -> None:
        """Do what is due; to be called some times a second."""
        self.decisions.look()
        self.failures.look()

    # --- reload -----------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> list[str]:
        """Give their tables to plugins that can take them, changed or not; returns the paths that need a restart.

        What is as it was may name what is not: a file of users, say. A plugin that takes none, but can be replaced, is,
        when its table changed. All or nothing: raises ConfigError or PluginError with the former settings in force.
        """
        wanted = {plugin.name: plugin for plugin in enabled(config)}  # every table is checked before one is applied
        narrowed = narrowed_listeners(config, self.by_name)
        need_restart = [f"plugins.{name}" for name in sorted({*self._enabled} ^ {*wanted})]
        if not need_restart and [*wanted] != [*self._enabled]:
            need_restart.append("plugins")  # in another order
        done: list[str] = []
        for name in self._enabled:
            if name not in wanted:
                continue
            is_changed = wanted[name].settings != self._enabled[name].settings
            if not self._takes_settings(name) and not (is_changed and self._can_reload(name)):
                if is_changed:
                    need_restart.append(f"plugins.{name}")
                continue
            try:
                await self._reload(name, wanted[name].settings)
            except BaseException:
                await self._take_back(done)
                raise
            done.append(name)
        for name in done:
            self._enabled[name] = wanted[name]
        self._timeout_s = config.plugin_timeout_s
        for guard in self._guards:
            guard.timeout_s = config.plugin_timeout_s
        self.decisions.narrowed = narrowed
        self.decisions.timeout_s = config.authentication_timeout_s
        self.decisions.waiting_maximum = config.authentications_maximum
        return need_restart

    async def reload_again(self, name: str) -> None:
        """Give one plugin the settings in force once more, so that it reads anew what these name; or replace it.

        Raises MqttCoreError when there is none of this name, NotPossible for one that cannot take them, PluginError or
        ConfigError when it does not; it goes on as before then.
        """
        if name not in self.by_name:
            raise MqttCoreError(f"no plugin {name} is enabled")
        if name not in self._enabled:
            raise NotPossible(f"plugin {name} came as an object: it has no table to be reloaded from")
        if not self._can_reload(name):
            raise NotPossible(f"plugin {name} takes no settings while it runs, and cannot be replaced")
        try:
            await self._reload(name, self._enabled[name].settings)
        except MqttCoreError as error:
            log.error("plugin %s goes on as before: %s", name, error)
            raise
        log.info("plugin %s reloaded", name)

    def _takes_settings(self, name: str) -> bool:
        return name in self._enabled and callable(getattr(self.by_name[name], "reload", None))

    def _can_reload(self, name: str) -> bool:
        return self._takes_settings(name) or (name in self._enabled and is_replaceable(type(self.by_name[name])))

    async def _reload(self, name: str, settings: Any) -> None:
        error: str | None = "was cancelled"
        try:
            await self._give(name, settings)
            error = None
        except MqttCoreError as failed:
            error = str(failed)
            raise
        finally:
            self._reloads[name] = Reload(time.time(), error)

    async def _give(self, name: str, settings: Any) -> None:
        if not self._takes_settings(name):
            await self._replace(name, settings)
            return
        plugin: Any = self.by_name[name]
        try:
            await within(plugin.reload(settings), self._timeout_s)
        except ConfigError as error:
            path = ".".join(part for part in ("plugins", name, error.path) if part)
            raise ConfigError(path, error.reason, error.source) from error
        except Late as error:
            raise PluginError(name, "", f"did not reload within {self._timeout_s:g} s") from error
        except Exception as error:
            raise PluginError(name, "", f"cannot be reloaded: {type(error).__name__}: {error}") from error

    # --- replacing --------------------------------------------------------------------------------------------------

    async def _replace(self, name: str, settings: Any) -> None:
        broker = self._broker
        if broker is None:
            raise PluginError(name, "", "is replaced while the broker runs, not before or after")
        plugin = make(dataclasses.replace(self._enabled[name], settings=settings))
        hooks = self._implementations(name, plugin)
        former = {hook: one for hook, found in self._hooks.items() for one in found if one.plugin == name}
        if (startup := hooks.get("startup")) is not None:
            await self._start(startup, broker)
        try:
            self._seat(name, plugin, hooks, broker)
        except BaseException:
            await self._shut_down(hooks.get("shutdown"), broker)
            raise
        task = asyncio.get_running_loop().create_task(self._let_go(name, former, broker))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.shield(task)  # whoever asked may go; the former is shut down all the same

    def _seat(self, name: str, plugin: object, hooks: Mapping[str, Implementation], broker: Broker) -> None:
        # Nothing is awaited here, and only the first step can fail. The class is the same, so the hooks are.
        handlers = hooks.get("topic_handlers")
        hung = [] if handlers is None else self._hang(handlers, broker)
        for handler in self._handlers.get(name, ()):
            broker.remove_handler(handler)
        self._handlers[name] = hung
        for hook, found in self._hooks.items():
            found[:] = [hooks[hook] if one.plugin == name else one for one in found]
        for guard in self._guards:
            if guard.implementation.plugin == name:
                guard.implementation = hooks["observe"]
        self._loaded[name] = plugin
        self._manager.unregister(name=name)
        self._manager.register(plugin, name)
        broker.take_hooks(self)

    async def _let_go(self, name: str, former: Mapping[str, Implementation], broker: Broker) -> None:
        await self.decisions.answered(name)
        for guard in self._guards:
            if guard.implementation.plugin == name:
                await guard.settled()
        await self._shut_down(former.get("shutdown"), broker)

    async def _take_back(self, done: list[str]) -> None:
        for name in reversed(done):
            try:
                await self._reload(name, self._enabled[name].settings)
            except MqttCoreError as error:
                self.failures.record(name, "reload", error)

    # --- what can be seen -------------------------------------------------------------------------------------------

    @property
    def states(self) -> list[PluginState]:
        """What can be said of each, in order."""
        paused = {guard.implementation.plugin: guard.paused_for_s for guard in self._guards}
        return [
            PluginState(
                name=name,
                place=f"{type(plugin).__module__}:{type(plugin).__qualname__}",
                distribution=self._enabled[name].distribution if name in self._enabled else None,
                has_table=name in self._enabled,
                hooks=tuple(hook for hook, found in self._hooks.items() if any(one.plugin == name for one in found)),
                failures=self.failures.by_hook(name),
                is_failing=self.failures.is_failing(name),
                last_failure_s=self.failures.last_s(name),
                observing_paused_for_s=paused.get(name),
                can_reload=self._can_reload(name),
                last_reload=self._reloads.get(name),
            )
            for name, plugin in self.by_name.items()
        ]

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges."""
        values = {
            "authentications_waiting": self.decisions.waiting,
            "authentications_timed_out": self.decisions.timed_out,
            "authentications_refused_busy": self.decisions.refused_busy,
        }
        for name, of_one in self.metrics_by_name().items():
            values |= {f"plugin_{name}_{key}": value for key, value in of_one.items()}
        return values

    def metrics_by_name(self) -> dict[str, dict[str, int]]:
        """Return those of single plugins: name -> key -> value."""
        values = {name: {"errors": self.failures.count(name)} for name in self.by_name}
        for observer in self._observers:
            values[observer.name] |= {"events_queued": observer.queued, "events_dropped": observer.dropped}
        return values


def _items(implementation: Implementation, is_one: Callable[[Any], bool], what: str, broker: Any = None) -> list[Any]:
    """Return what a wiring hook gives, each checked; raises PluginError."""
    try:
        items = list(implementation.call(broker=broker) or ())
    except Exception as error:
        raise _error_of(implementation, error) from error
    for item in items:
        if not is_one(item):
            raise PluginError(implementation.plugin, implementation.hook, f"gives {item!r}, which is not {what}")
    return items


def _is_event_type(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, Event)


def _error_of(implementation: Implementation, error: Exception) -> PluginError:
    reason = str(error) if isinstance(error, MqttCoreError) else f"{type(error).__name__}: {error}"
    return PluginError(implementation.plugin, implementation.hook, reason)
