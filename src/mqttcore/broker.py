"""Broker: engine, sockets and configuration put together, and the services for who embeds it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from mqttcore import inspection
from mqttcore.bans import Bans
from mqttcore.config import Config, check_exposure
from mqttcore.connections import Connections
from mqttcore.engine.engine import Engine
from mqttcore.errors import MqttCoreError, NotPossible, QuotaExceeded, StoreError
from mqttcore.flapping import FlappingWatch
from mqttcore.limit_alarms import LimitAlarms
from mqttcore.listening import ListenerInfo, Listening
from mqttcore.memory_guard import MemoryGuard
from mqttcore.net.descriptors import DescriptorWatch
from mqttcore.net.listeners import listener_metrics
from mqttcore.net.overload import OverloadWatch
from mqttcore.persistence import Persistence, PluginData
from mqttcore.plugins.manager import Plugins
from mqttcore.store.contract import SessionStore
from mqttcore.store.memory import MemoryStore
from mqttcore.sys_topics import SysTopics
from mqttcore.tracing import Traces

if sys.platform.startswith("linux"):
    from mqttcore.net.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from types import TracebackType

    from mqttcore.codec import Connect
    from mqttcore.engine.client_view import ClientView
    from mqttcore.identity import Refusal
    from mqttcore.inspection import QueuedMessage
    from mqttcore.plugins.state import PluginState

__all__ = ["Broker", "ListenerInfo"]

log = logging.getLogger("mqttcore.broker")

_FIXED = ("loop", "gather_us", "store", "http_api", "sys_for_anonymous", "events_queued_maximum", "log_format")
_FIXED_LIMITS = (
    "topic_levels_maximum",
    "routes_cached_maximum",
    "share_strategy",
    "topic_alias_maximum",
    "verdicts_cached_maximum",
    "retained_messages_maximum",
    "retained_bytes_maximum",
)
_TICK_S = 0.1
_SWEEP_TICKS = 10
_LOOK_TICKS = 30  # how often certificate files are looked at


class Broker(Connections):
    """An MQTT broker in the running event loop.

        async with Broker() as broker:
            await broker.publish("greeting", b"hello", retain=True)

    config: a `Config`; without one it listens on 127.0.0.1:1883, in memory, anonymous. plugins: objects, asked after
    those of the configuration. store: opened and closed by the broker, before any that a plugin gives; without either,
    sessions live as long as the broker. Several brokers can run in one process and loop. Methods are to be called from
    the loop's thread. bans: who is refused. traces: what happens to a client, an address or a topic.
    """

    _uses_poller = sys.platform.startswith("linux")  # elsewhere, sockets go through the loop's transports

    def __init__(
        self, config: Config | None = None, *, plugins: Iterable[object] = (), store: SessionStore | None = None
    ) -> None:
        self.config = self._wanted = config if config is not None else Config()
        super().__init__(events_queued_maximum=self.config.events_queued_maximum)
        self.bans = Bans(self.config.http_api.bans_file)
        self._given_plugins = tuple(plugins)
        self._plugins: Plugins | None = None
        self._given_store = store
        self._store: SessionStore | None = None  # opened
        self._provided: dict[str, object] = {}
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listening = Listening(self, self._new_protocol)
        self._tick_handle: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._overload = OverloadWatch(self.config.overload_lag_ms, _TICK_S)
        self._memory = MemoryGuard(0, self)  # until it starts
        self._limit_alarms = LimitAlarms(self)
        self._descriptors = DescriptorWatch()
        self._flapping = FlappingWatch(self.config.flapping)
        self.traces = Traces(self.config.tracing)
        self._started_s = 0.0
        self._sys = SysTopics()
        self._sys_due_s = 0.0
        self._changing = asyncio.Lock()  # held while it starts, stops or reloads
        self._is_ready = False
        self._rereading: Callable[[], Awaitable[list[str]]] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """Open and load the store, start plugins and listen.

        Raises StoreError when the store cannot be used, ConfigError when the configuration is not safe or names a
        plugin that is not installed, PluginError for a plugin that cannot be used or does not start, OSError for an
        address that cannot be had.
        """
        async with self._changing:
            if self._engine is not None:
                raise MqttCoreError("the broker is running")
            await self._start()

    async def _start(self) -> None:
        self.config = self._wanted
        plugins = self._load_plugins()
        self._memory = MemoryGuard(self.config.memory_maximum_bytes, self)
        check_exposure(self.config, has_authentication=plugins.authenticates)
        engine = Engine(
            self.config.limits,
            plugins.hook_table(admit_first=self._admit_first),
            now_ms=time.monotonic_ns() // 1_000_000,
            sys_for_anonymous=self.config.sys_for_anonymous,
            authorization=self.config.authorization,
            node=secrets.randbits(32),
            epoch=int(time.time()),
        )
        plugins.decisions.serve(engine)
        self._engine, self._loop, self._plugins = engine, asyncio.get_running_loop(), plugins
        engine.set_wall_clock(time.time_ns() // 1_000_000)
        plugins.failures.tell = self
        self._observers.attach(engine, self._loop)
        self.traces.attach(engine)
        plugins.observe(self._observers)
        try:
            engine.set_wake(self._wake)
            await self._open_store(engine, plugins)
            await plugins.start(self)
            plugins.hang_handlers(self)
            await self._listen()
        except BaseException:
            self._listening.close()
            await self._listening.stop_http()
            await self._close(engine)
            raise
        self._started_s = time.monotonic()
        self._limit_alarms = LimitAlarms(self)
        self._overload = OverloadWatch(self.config.overload_lag_ms, _TICK_S)
        self._sys_due_s = self._started_s
        self._is_ready = True
        self._memory.start(engine, self._loop)
        self._tick()

    def _admit_first(self, client: ClientView, connect: Connect) -> Refusal | None:
        return self.bans.admit(client, connect) or self._flapping.admit(client, connect)

    async def _open_store(self, engine: Engine, plugins: Plugins) -> None:
        store = self._given_store if self._given_store is not None else plugins.open_store(self)
        if store is None:
            store = MemoryStore()
        if not isinstance(store, SessionStore):
            raise MqttCoreError(f"{store!r} is no SessionStore")
        await store.open(self._alarm)
        self._store = store
        self._persistence = Persistence(engine, store, self.config.store, flush=self._flush, alarm=self._alarm)
        await self._persistence.restore()
        self._persistence.begin()

    def take_hooks(self, plugins: Plugins) -> None:
        """Ask other instances of the same plugins from now on."""
        self._running().replace_hooks(plugins.hook_table(admit_first=self._admit_first))

    def _load_plugins(self) -> Plugins:
        return Plugins(self.config, self._given_plugins)

    async def _listen(self) -> None:
        assert self._plugins is not None
        assert self._loop is not None
        plugins = self._plugins
        self._listening.bind(self.config, has_authentication=plugins.authenticates)
        if self._uses_poller:
            try:
                self._poller = Poller(self._running(), self._loop, gather_us=self.config.gather_us)
            except NotImplementedError:
                log.info("the event loop watches no descriptors: sockets go through its transports")
            else:
                self._poller.set_drained(self._drained.set)
        speaks_http = any(settings.protocol == "http" for settings in self.config.listeners)
        await self._listening.accept(self._poller, plugins.http_routes(self) if speaks_http else [])

    async def stop(self) -> None:
        """Stop: no new connections, DISCONNECT 0x8B to all, at most `shutdown_timeout_s` for their last bytes."""
        async with self._changing:  # whoever calls it a second time waits for the first
            if self._engine is None:
                return
            self._is_ready = False
            try:
                await self._drain(self._engine)
            finally:
                await self._close(self._engine)

    async def _drain(self, engine: Engine) -> None:
        self._listening.close()
        if self._persistence is not None:  # who waits for an acknowledgement gets it
            await self._persistence.settle(self.config.shutdown_timeout_s)
        engine.shut_down()
        for connection in list(self._streams):
            if not connection.is_closed:  # no session yet: there is nothing to say to it
                connection.abort()
        self.traces.attach(None)  # whoever waits for more over HTTP must not keep us waiting
        self._flush()
        await asyncio.gather(self._await_last_bytes(), self._listening.stop_http())

    async def _await_last_bytes(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.shutdown_timeout_s):
                while self._streams or (self._poller is not None and self._poller.lingering_count):
                    self._drained.clear()
                    await self._drained.wait()

    async def _close(self, engine: Engine) -> None:
        engine.set_wake(None)  # what is cut from here on asks for no more flushes
        self._memory.stop()
        for handle in (self._tick_handle, self._flush_handle):
            if handle is not None:
                handle.cancel()
        self._tick_handle = self._flush_handle = None
        for stream in list(self._message_streams):
            stream.close()
        for connection in list(self._streams):
            connection.abort()
        if self._poller is not None:
            self._poller.close()
            self._poller = None
        while self._streams:  # aborted transports say so in one of the loop's next turns
            self._drained.clear()
            await self._drained.wait()
        if self._plugins is not None:
            self._plugins.stop_pausing()
        await self._observers.finish(self.config.plugin_timeout_s)
        try:
            if self._plugins is not None:
                await self._plugins.stop(self)
        finally:
            self._end_services()
            self.traces.attach(None)
            await self._listening.finish()
            await self._close_store()
            engine.close()
            self._provided.clear()
            self._engine = self._loop = self._plugins = None

    async def _close_store(self) -> None:
        if self._persistence is not None:
            await self._persistence.settle(self.config.shutdown_timeout_s)
            await self._persistence.close()
            self._persistence = None
        if self._store is not None:
            try:
                await self._store.close()
            except StoreError:
                log.exception("closing the store")
            self._store = None

    async def reload(self, config: Config) -> list[str]:
        """Take over what can change while running; returns the key paths that need a restart.

        Raises ConfigError, and changes nothing, when the new configuration is not safe; PluginError when a plugin does
        not take it.
        """
        async with self._changing:
            return await self._reload(config)

    def set_rereading(self, function: Callable[[], Awaitable[list[str]]]) -> None:
        """Say how the configuration is read again and taken over with `reload`; `mqttcore serve` does, with a file."""
        self._rereading = function

    async def reread(self) -> list[str]:
        """Read the configuration again, as SIGHUP does, and take it over; returns the key paths that need a restart.

        Raises as `reload`; NotPossible when nobody said how: the configuration came as an object.
        """
        if self._rereading is None:
            raise NotPossible("the configuration did not come from a file that could be read again")
        return await self._rereading()

    async def _reload(self, config: Config) -> list[str]:
        engine = self._running()
        assert self._plugins is not None
        check_exposure(config, has_authentication=self._plugins.authenticates)
        former = self.config
        need_restart = [path for path in _FIXED if getattr(config, path) != getattr(former, path)]
        need_restart += self._listening.needing_restart(config.listeners)
        need_restart += await self._plugins.reload(config)
        need_restart += [
            f"limits.{name}" for name in _FIXED_LIMITS if getattr(config.limits, name) != getattr(former.limits, name)
        ]
        limits = replace(config.limits, **{name: getattr(former.limits, name) for name in _FIXED_LIMITS})
        self._memory.watch.set_maximum(config.memory_maximum_bytes)
        engine.set_limits(limits)
        engine.set_authorization(config.authorization)
        self._listening.configure(config, has_authentication=self._plugins.authenticates)
        self._overload.lag_ms = config.overload_lag_ms
        self._flapping.settings = config.flapping
        self.traces.settings = config.tracing
        self._wanted = config
        self.config = replace(
            config,
            **{path: getattr(former, path) for path in _FIXED},
            listeners=self._listening.settings,
            limits=limits,
            plugins={
                name: table if f"plugins.{name}" in need_restart else config.plugins.get(name, table)
                for name, table in former.plugins.items()
            },
        )
        return need_restart

    # --- services ---------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._engine is not None

    @property
    def is_ready(self) -> bool:
        """Whether clients are taken: it runs, and is not about to stop."""
        return self._is_ready

    @property
    def addresses(self) -> list[tuple[str, str, int]]:
        """Listener name, host and real port of every listening socket."""
        return [(listener.name, host, port) for listener in self._listening for host, port in listener.addresses]

    @property
    def listeners(self) -> list[ListenerInfo]:
        """Listeners in the order of the configuration, and how many are there; empty unless running."""
        return self._listening.infos

    async def stop_listener(self, name: str, *, close_connections: bool = False, spares_last_http: bool = False) -> int:
        """Have a listener accept no more; how many clients were disconnected.

        Connections stay, unless close_connections: then clients get DISCONNECT 0x98 (their wills are published, their
        sessions go on), and requests under way are answered first. Without effect on the rest of a listener that is
        stopped already. spares_last_http: raise NotPossible instead of stopping the last listener that speaks HTTP.
        Raises MqttCoreError when there is none of this name.
        """
        async with self._changing:
            self._running()
            bound = self._listening.stop(name, spares_last_http=spares_last_http)
            if not close_connections:
                return 0
            self._listening.end_http(bound.name)
            return await self._end_connections(bound)

    async def start_listener(self, name: str) -> None:
        """Have a listener accept again, at the address it had; without effect when it does.

        Raises OSError that names the address when that cannot be had: it stays stopped then. MqttCoreError when there
        is none of this name.
        """
        async with self._changing:
            self._running()
            await self._listening.start(name)

    @property
    def plugins(self) -> Mapping[str, object]:
        """Loaded plugins by name, in the order in which they are asked; empty unless running."""
        return self._plugins.by_name if self._plugins is not None else {}

    @property
    def plugin_states(self) -> list[PluginState]:
        """How each plugin fares, in the order in which they are asked; empty unless running."""
        return self._plugins.states if self._plugins is not None else []

    async def reload_plugin(self, name: str) -> None:
        """Give a plugin the settings in force once more: what these name (files, say) is read anew; or make it anew.

        Raises MqttCoreError when there is none of this name, NotPossible for one that takes no settings while it runs
        and does not say `is_replaceable`, PluginError or ConfigError when it does not take them: it goes on as before.
        """
        async with self._changing:
            self._running()
            assert self._plugins is not None
            await self._plugins.reload_again(name)

    @property
    def alarms(self) -> dict[str, str]:
        """What an operator must see now: stable name of the alarm -> what is wrong."""
        return dict(self._alarms)

    def provide(self, name: str, service: object) -> None:
        """Offer an object to other plugins and the application, until the broker stops.

        name: begins with the plugin's name and a dot. For `startup`: those after it in the order find it there.
        """
        if name in self._provided:
            raise MqttCoreError(f"the service {name} is provided already")
        self._provided[name] = service

    def service(self, name: str) -> Any:
        """Return what was provided under *name*; MqttCoreError, with the names that there are, when nothing was."""
        if name not in self._provided:
            there = ", ".join(sorted(self._provided)) or "none"
            raise MqttCoreError(f"no plugin provides {name}; provided: {there}")
        return self._provided[name]

    def plugin_data(self, namespace: str) -> PluginData:
        """Return values that the store keeps for a plugin. namespace: the plugin's name, or its name and a dot."""
        self._running()
        assert self._persistence is not None
        return PluginData(self._persistence, namespace)

    async def read_queued_messages(
        self, client_id: str, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[QueuedMessage], str | None]:
        """As `queued_messages`, with the messages that are in the store only; they stay there.

        A page is shorter than *limit* when 4 MiB would have to be read for it. A message is None all the same when the
        store cannot be read, which is logged, or when it went to the client meanwhile.
        """
        engine = self._running()
        assert self._persistence is not None
        return await inspection.read_queued_messages(engine, self._persistence, client_id, limit=limit, after=after)

    @property
    def store(self) -> SessionStore:
        """The opened store, for its `info`, `check` and `gc`."""
        self._running()
        assert self._store is not None
        return self._store

    def metrics(self) -> dict[str, int]:
        """Return all counters and gauges; the keys are stable."""
        values = self._running().metrics() | self._network_metrics() | self._service_metrics()
        values |= self._flapping.metrics() | self._memory.watch.metrics() | self.traces.metrics()
        if self._plugins is not None:
            values |= self._plugins.metrics()
        if self._persistence is not None:
            values |= self._persistence.metrics()
        values["bans"] = len(self.bans)
        values["connects_refused_banned"] = self.bans.refused
        return values

    def _network_metrics(self) -> dict[str, int]:
        values = listener_metrics([*self._listening]) | self._descriptors.metrics()
        return values if self._poller is None else values | self._poller.metrics()

    def plugin_metrics(self) -> dict[str, dict[str, int]]:
        """Return the part of `metrics` that plugins have: name -> key without `plugin_NAME_` -> value."""
        values = {name: dict(section.values()) for name, section in self._sections.items()}
        if self._plugins is not None:
            for name, of_hooks in self._plugins.metrics_by_name().items():
                values[name] = values.get(name, {}) | of_hooks
        return values

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _running(self) -> Engine:
        if self._engine is None:
            raise MqttCoreError("the broker is not running")
        return self._engine

    def _alarm(self, name: str, is_raised: bool, text: str) -> None:
        # A store may call from a thread of its own.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._set_alarm, name, is_raised, text)

    def _set_alarm(self, name: str, is_raised: bool, text: str) -> None:
        if self._engine is None:
            return
        if is_raised:
            self.raise_alarm(name, text)
        else:
            self.clear_alarm(name, text)

    def _tick(self) -> None:
        assert self._loop is not None
        engine = self._running()
        self._tick_handle = self._loop.call_later(_TICK_S, self._tick)
        self._ticks += 1
        if self._overload.is_overloaded(time.monotonic()) != engine.is_overloaded:
            engine.set_overloaded(not engine.is_overloaded)
        if self._poller is not None:
            self._poller.turn()
        else:
            engine.advance(time.monotonic_ns() // 1_000_000)
            self._flush()
        engine.set_wall_clock(time.time_ns() // 1_000_000)
        if self._plugins is not None:
            self._plugins.look()
        if self._ticks % _SWEEP_TICKS == 0:
            engine.sweep()
            self._flapping.sweep(time.monotonic())
            if self._flapping.is_alarming:
                self.raise_alarm("flapping", "clients connect too often and are refused for a while")
            else:
                self.clear_alarm("flapping")
            if not self._descriptors.look():
                self.traces.accepting_paused(None, "there is no descriptor left")
            self._limit_alarms.look(self._network_metrics() | {"overloaded": int(engine.is_overloaded)})
        if self._ticks % _LOOK_TICKS == 0:
            for listener in self._listening:
                if listener.tls is not None:
                    listener.tls.look()
        interval_s = self.config.sys_interval_s
        now_s = time.monotonic()
        if interval_s and now_s >= self._sys_due_s:
            self._sys_due_s = now_s + interval_s
            sections = {section.name: dict(section.values()) for section in self._sections.values()}
            for topic, payload in self._sys.messages(self.metrics(), now_s - self._started_s, interval_s, sections):
                with contextlib.suppress(QuotaExceeded):  # delivered all the same; the engine counts and logs it
                    engine.publish_bytes(topic.encode(), payload.encode(), 0, True, None)
