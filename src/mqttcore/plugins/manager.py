"""The plugins of one broker, from load to shutdown."""

from __future__ import annotations

import asyncio
import inspect
import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pluggy

from mqttcore.engine.hooks import HookTable
from mqttcore.errors import ConfigError, MqttCoreError, PluginError
from mqttcore.plugins.decisions import Decisions
from mqttcore.plugins.failures import Failures
from mqttcore.plugins.hooks import HOOKS, Implementation, hook_manager, implementations
from mqttcore.plugins.loading import check_class, enabled, make, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mqttcore.broker import Broker
    from mqttcore.config import Config

__all__ = ["Plugins"]

log = logging.getLogger("mqttcore.plugins")


class Plugins:
    """Loaded plugins in their order: those of the configuration's tables, then those given as objects.

    Raises ConfigError and PluginError as `loading.enabled` and `make` do.
    """

    def __init__(self, config: Config, given: Iterable[object] = ()) -> None:
        self._enabled = {plugin.name: plugin for plugin in enabled(config)}
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
            for hook, implementation in implementations(name, plugin).items():
                self._hooks[hook].append(implementation)
            try:
                self._manager.register(plugin, name)
            except (ValueError, pluggy.PluginValidationError) as error:
                raise PluginError(name, "", str(error)) from error
        self._manager.check_pending()
        self.by_name: Mapping[str, object] = MappingProxyType(loaded)
        self.failures = Failures()
        self.decisions = Decisions(
            self._hooks,
            self.failures,
            timeout_s=config.authentication_timeout_s,
            waiting_maximum=config.authentications_maximum,
            narrowed=_narrowed(config),
        )
        self._timeout_s = config.plugin_timeout_s
        self._started: list[str] = []

    def implementations(self, hook: str) -> Sequence[Implementation]:
        """Return who implements a hook, in order."""
        return self._hooks[hook]

    @property
    def authenticates(self) -> bool:
        """Whether a plugin says who clients are."""
        return bool(self._hooks["authenticate"])

    def hook_table(self) -> HookTable:
        """Return what the engine calls, frozen."""
        frozen: dict[str, Callable[..., Any]] = {}
        if self.authenticates:
            frozen["authenticate"] = self.decisions.authenticate
        if self._hooks["continue_authentication"]:
            frozen["continue_authentication"] = self.decisions.continue_authentication
        return HookTable(**frozen)

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, broker: Broker) -> None:
        """Start all, one after another; when one fails, those before are shut down. Raises PluginError."""
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
            await self._within_time(implementation.call(broker=broker))
        except TimeoutError as error:
            text = f"did not start within {self._timeout_s:g} s"
            raise PluginError(implementation.plugin, "startup", text) from error
        except MqttCoreError as error:
            raise PluginError(implementation.plugin, "startup", str(error)) from error
        except Exception as error:
            raise PluginError(implementation.plugin, "startup", f"{type(error).__name__}: {error}") from error

    async def stop(self, broker: Broker) -> None:
        """Shut down what was started, last first, whatever happens."""
        await self.decisions.stop()
        stopping = {implementation.plugin: implementation for implementation in self._hooks["shutdown"]}
        while self._started:
            name = self._started.pop()
            if (implementation := stopping.get(name)) is None:
                continue
            try:
                await self._within_time(implementation.call(broker=broker))
            except TimeoutError:
                self.failures.record(name, "shutdown", f"did not stop within {self._timeout_s:g} s")
            except Exception as error:
                self.failures.record(name, "shutdown", error)

    async def _within_time(self, result: Any) -> None:
        if not inspect.isawaitable(result):
            return
        task = asyncio.ensure_future(result)
        try:
            await asyncio.wait({task}, timeout=self._timeout_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            task.cancel()  # it may not listen: nobody waits for it any more
            task.add_done_callback(_forget)
            raise TimeoutError
        if task.cancelled():
            raise RuntimeError("was cancelled")
        task.result()

    def look(self) -> None:
        """Do what is due; to be called some times a second."""
        self.decisions.look()
        self.failures.look()

    # --- reload -----------------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> list[str]:
        """Give changed tables to plugins that can take them; returns the paths that need a restart.

        All or nothing: raises ConfigError or PluginError with the former settings in force.
        """
        wanted = {plugin.name: plugin for plugin in enabled(config)}  # every table is checked before one is applied
        need_restart = [f"plugins.{name}" for name in sorted({*self._enabled} ^ {*wanted})]
        if not need_restart and [*wanted] != [*self._enabled]:
            need_restart.append("plugins")  # in another order
        changed = [
            name for name in self._enabled if name in wanted and wanted[name].settings != self._enabled[name].settings
        ]
        done: list[str] = []
        for name in changed:
            if not callable(getattr(self.by_name[name], "reload", None)):
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
        self.decisions.timeout_s = config.authentication_timeout_s
        self.decisions.waiting_maximum = config.authentications_maximum
        return need_restart

    async def _reload(self, name: str, settings: Any) -> None:
        plugin: Any = self.by_name[name]
        try:
            await self._within_time(plugin.reload(settings))
        except ConfigError as error:
            path = ".".join(part for part in ("plugins", name, error.path) if part)
            raise ConfigError(path, error.reason, error.source) from error
        except TimeoutError as error:
            raise PluginError(name, "", f"did not reload within {self._timeout_s:g} s") from error
        except Exception as error:
            raise PluginError(name, "", f"cannot be reloaded: {type(error).__name__}: {error}") from error

    async def _take_back(self, done: list[str]) -> None:
        for name in reversed(done):
            try:
                await self._reload(name, self._enabled[name].settings)
            except MqttCoreError as error:
                self.failures.record(name, "reload", error)

    # --- what can be seen -------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges."""
        values = {
            "authentications_waiting": self.decisions.waiting,
            "authentications_timed_out": self.decisions.timed_out,
            "authentications_refused_busy": self.decisions.refused_busy,
        }
        values |= {f"plugin_{name}_errors": self.failures.count(name) for name in self.by_name}
        return values


def _narrowed(config: Config) -> dict[str, list[str]]:
    # Not every listener type can narrow.
    found = {listener.name: getattr(listener, "plugins", None) for listener in config.listeners}
    return {name: plugins for name, plugins in found.items() if plugins is not None}


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("a plugin's call that was given up ended with %s: %s", type(error).__name__, error)
