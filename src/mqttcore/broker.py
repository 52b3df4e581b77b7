"""Broker: engine, sockets and configuration put together, and the services for who embeds it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

from msgspec.structs import replace

from mqttcore import inspection
from mqttcore.bans import Bans
from mqttcore.config import Config, Listener, check_exposure
from mqttcore.constants import ReasonCode
from mqttcore.engine.engine import Engine
from mqttcore.errors import MqttCoreError, NotPossible, QuotaExceeded, StoreError
from mqttcore.flapping import FlappingWatch
from mqttcore.limit_alarms import LimitAlarms
from mqttcore.listening import ListenerInfo, Listening
from mqttcore.memory_guard import MemoryGuard
from mqttcore.mount_point import check_mount_point
from mqttcore.net.channel import TlsPipes
from mqttcore.net.descriptors import DescriptorWatch
from mqttcore.net.listeners import BoundListener, listener_metrics
from mqttcore.net.overload import OverloadWatch
from mqttcore.net.stream import StreamConnection, WebSocketStream
from mqttcore.net.tls import describe
from mqttcore.persistence import Persistence, PluginData
from mqttcore.plugins.manager import Plugins
from mqttcore.services import Services
from mqttcore.store.contract import SessionStore
from mqttcore.store.memory import MemoryStore
from mqttcore.subscription import MessageStream
from mqttcore.sys_topics import SysTopics
from mqttcore.tracing import Traces

if sys.platform.startswith("linux"):
    from mqttcore.net.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from socket import socket
    from types import TracebackType

    from mqttcore.codec import Connect
    from mqttcore.engine.client_view import ClientView
    from mqttcore.engine.connection import Connection
    from mqttcore.engine.message import Message
    from mqttcore.engine.session import Session
    from mqttcore.identity import Identity, Refusal
    from mqttcore.inspection import QueuedMessage
    from mqttcore.net.proxy import ProxyInfo
    from mqttcore.net.tls import TlsInfo
    from mqttcore.plugins.state import PluginState

__all__ = ["Broker", "ClientInfo", "ListenerInfo"]

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
_RETAINED_NODES = 2_000  # looked at in one slice
_TICK_S = 0.1
_SWEEP_TICKS = 10
_LOOK_TICKS = 30  # how often certificate files are looked at
_ENDED_AT_ONCE = 200  # connections of a listener that is stopped


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """One client as it was when asked. connected_s: since when, in seconds of `time.monotonic()`.

    address: (host, port), a path, or None; what a PROXY header said, if there was one.
    session_expiry_s 4294967295: never. mount_point: prefix of its topics, which it neither says nor hears; "": none.
    """

    client_id: str
    is_connected: bool
    user_name: str | None
    mount_point: str
    address: Any
    protocol_version: int | None
    keep_alive_s: int | None
    connected_s: float
    session_expiry_s: int
    subscriptions: tuple[str, ...]
    subscription_count: int
    in_flight: int
    awaiting_release: int
    queued: int
    queued_bytes: int
    dropped: int
    tls: TlsInfo | None
    proxy: ProxyInfo | None


class Broker(Services):
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
        self._persistence: Persistence | None = None
        self._provided: dict[str, object] = {}
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: Poller | None = None
        self._listening = Listening(self, self._new_protocol)
        self._streams: set[StreamConnection] = set()
        self._message_streams: set[MessageStream] = set()
        self._tick_handle: asyncio.TimerHandle | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._ticks = 0
        self._pipes = TlsPipes()
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
        self._drained = asyncio.Event()  # set whenever the last closing connection is gone

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
            return await self._end_connections(bound) if close_connections else 0

    async def start_listener(self, name: str) -> None:
        """Have a listener accept again, at the address it had; without effect when it does.

        Raises OSError that names the address when that cannot be had: it stays stopped then. MqttCoreError when there
        is none of this name.
        """
        async with self._changing:
            self._running()
            await self._listening.start(name)

    async def _end_connections(self, listener: BoundListener) -> int:
        self._listening.end_http(listener.name)
        connections: list[Connection] = [one for one in self._streams if one.listener is listener]
        if self._poller is not None:
            connections += self._poller.connections_of(listener)
        disconnected = 0
        for number, connection in enumerate(connections, 1):
            disconnected += connection.current_session is not None
            connection.close(ReasonCode.ADMINISTRATIVE_ACTION, "the listener was stopped", publish_will=True)
            if number % _ENDED_AT_ONCE == 0:
                self._wake()
                await asyncio.sleep(0)  # others wait meanwhile
        self._wake()
        return disconnected

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

    async def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[int, Any] | None = None,
    ) -> int:
        """Publish a message as the broker; the number of subscribers it reached.

        properties: `PropertyId` -> value. Raises ValueError for what is no Topic Name, QoS or property, QuotaExceeded
        when it cannot be retained or a full queue refuses it, StoreError when it has to be kept and cannot be. Returns
        when the message is as safe as a PUBACK would make it.
        """
        assert self._persistence is not None or self._running()  # or it raises
        before = self._persistence.writes if self._persistence is not None else 0
        reached = self.publish_nowait(topic, payload, qos=qos, retain=retain, properties=properties)
        if self._persistence is not None and qos:
            await self._persistence.until_safe(before)
        return reached

    def publish_nowait(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[int, Any] | None = None,
    ) -> int:
        """Publish as `publish` does, without waiting until the message is safe."""
        block = dict(properties) if properties else None
        return self._running().publish_bytes(topic.encode(), payload, qos, retain, block)

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

    def subscribe(
        self, topic_filter: str, *, messages_maximum: int = 10_000, bytes_maximum: int = 64 * 1024 * 1024
    ) -> MessageStream:
        """Return a stream of the messages that match *topic_filter*; use it with `async with`.

        It takes every QoS as published, and no retained messages (see `retained`).
        """
        return MessageStream(
            self._running(),
            topic_filter,
            messages_maximum=messages_maximum,
            bytes_maximum=bytes_maximum,
            streams=self._message_streams,
        )

    def retained(self, topic_filter: str = "#") -> list[Message]:
        """Return the retained messages that match; a leading wildcard does not match `$` topics."""
        return self._running().retained_messages(topic_filter.encode())

    def retained_slices(self, topic_filter: str = "#") -> Iterator[list[Message]]:
        """Yield the same in slices that take a few milliseconds each, so that others can be served between them.

        A message that is there all the time comes once. Stop asking when the broker stops.
        """
        engine = self._running()
        cursor = engine.retained_cursor(topic_filter.encode())
        is_at_end = False
        while not is_at_end:
            found, is_at_end = engine.take_retained(cursor, _RETAINED_NODES)
            yield found

    def clients(self) -> list[ClientInfo]:
        """Return all clients that have a session, connected or not."""
        return [_client_info(session) for session in self._running().sessions()]

    def client_ids(self) -> list[str]:
        """Return the ids of all clients that have a session, in no order."""
        return self._running().client_ids()

    def client(self, client_id: str, *, with_subscriptions: bool = True) -> ClientInfo | None:
        """Return one client, or None when it has no session.

        with_subscriptions: filters may be ten thousand; who looks at many clients does without, and has their number.
        """
        session = self._running().session(client_id)
        return None if session is None else _client_info(session, with_subscriptions=with_subscriptions)

    def is_connected(self, client_id: str) -> bool:
        """Say whether a client has a connection; cheaper than `client`, whatever the client has subscribed to."""
        session = self._running().session(client_id)
        return session is not None and session.is_connected

    def disconnect(
        self, client_id: str, reason_code: int = ReasonCode.ADMINISTRATIVE_ACTION, reason: str | None = None
    ) -> bool:
        """Close a client's connection; False when it has none. Its will is published, its session goes on."""
        return self._running().disconnect(client_id, reason_code, reason)

    def discard_session(self, client_id: str) -> bool:
        """End a session with everything it holds, and its connection; False when there is none."""
        return self._running().discard_session(client_id)

    def identity(self, client_id: str) -> Identity | None:
        """Return the identity of a client's session; None when it has none, or there is no session."""
        session = self._running().session(client_id)
        return None if session is None else session.identity

    def set_identity(self, client_id: str, identity: Identity) -> bool:
        """Replace the identity of a client, connected or not; False when it has no session.

        What it does not allow any more goes at once: subscriptions (the client is not told), queued messages. Rates and
        expiry begin anew. Raises TypeError, ValueError or ProtocolError, and changes nothing, when it cannot be used.
        """
        return self._running().set_identity(client_id, identity)

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

    async def attach(
        self,
        transport: asyncio.Transport,
        *,
        allow_anonymous: bool = False,
        name: str = "attached",
        mount_point: str = "",
    ) -> None:
        """Serve MQTT on an accepted transport of the running loop, one with TLS, say; from now on it is the broker's.

        The transport must not have read what belongs to MQTT: pause it before it does, it is resumed here. mount_point:
        as of a listener; ValueError for what is none.
        """
        self._running()
        if transport.is_closing():  # its end may have been told to who had it before: we would wait for it for ever
            log.info("attached transport of %s: the peer is gone", name)
            transport.abort()
            return
        protocol = self._new_protocol(_unbound(name, allow_anonymous, mount_point))
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()

    def attach_socket(
        self, sock: socket, *, allow_anonymous: bool = False, name: str = "attached", mount_point: str = ""
    ) -> None:
        """Serve MQTT on an accepted stream socket; from now on it is the broker's. MqttCoreError where not on Linux.

        mount_point: as of a listener; ValueError for what is none.
        """
        self._running()
        if self._poller is None:
            raise MqttCoreError("sockets are attached on Linux only; use attach() with a transport")
        self._poller.adopt(sock, _unbound(name, allow_anonymous, mount_point))

    def attach_websocket(
        self,
        transport: asyncio.Transport,
        *,
        upgraded: bytes,
        received: bytes = b"",
        settings: Listener | None = None,
        allow_anonymous: bool = False,
        name: str = "attached",
        listener: BoundListener | None = None,
        is_counted: bool = False,
        proxy: ProxyInfo | None = None,
    ) -> None:
        """Serve MQTT in WebSocket on a transport whose request to upgrade was read; from now on it is the broker's.

        `mqttcore.http.websocket_handler` does the HTTP part for aiohttp applications. upgraded: the HTTP answer that
        agrees; it is written here. received: what was read beyond the request. settings: its `websocket_…` bounds
        and mount point count. listener: where it is counted, with its own mount point; None: nowhere, with
        *allow_anonymous* and *name*. is_counted: the listener's limits per address have it already. proxy: what a PROXY
        header before the request said.
        """
        engine = self._running()
        if transport.is_closing():  # its end may have been told to who had it before: we would wait for it for ever
            transport.abort()
            return
        chosen = settings or Listener()
        listener = listener or _unbound(name, allow_anonymous, chosen.mount_point)
        framing: dict[str, Any] = {
            "upgraded": upgraded,
            "message_bytes_maximum": chosen.websocket_message_bytes_maximum,
            "pings_per_s_maximum": chosen.websocket_pings_per_s_maximum,
            "is_counted": is_counted,
            "proxy": proxy,
        }
        session = transport.get_extra_info("ssl_object")
        if session is None:
            tls = None if proxy is None else proxy.tls
        else:
            tls = describe(session, None, listener.tls.settings.identity if listener.tls is not None else "cn")
        if listener.certificate_authenticates:
            if tls is not None and tls.is_verified:
                framing["certified_name"] = tls.identity or ""  # "": a certificate that names nobody
            elif listener.tls is not None and listener.tls.settings.client_certificate == "required":
                framing["certified_name"] = ""  # resumed with one that has expired meanwhile
        framing["tls_info"] = tls
        if self._poller is not None and (sock := _socket_of(transport)) is not None:
            self._poller.adopt_websocket(sock, listener, received=received, **framing)
            transport.abort()  # closes its own descriptor only
            return
        connection = WebSocketStream(engine, listener, when_closed=self._stream_closed, **framing)
        self._streams.add(connection)
        transport.set_protocol(cast("asyncio.BaseProtocol", connection))
        connection.connection_made(transport)
        if received:
            connection.data_received(received)
        transport.resume_reading()

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _running(self) -> Engine:
        if self._engine is None:
            raise MqttCoreError("the broker is not running")
        return self._engine

    def _new_protocol(self, listener: BoundListener) -> asyncio.BaseProtocol:
        connection = StreamConnection(
            self._running(), listener, when_closed=self._stream_closed, pipes=self._pipes if listener.is_gated else None
        )
        self._streams.add(connection)
        return cast("asyncio.BaseProtocol", connection)

    def _stream_closed(self, connection: StreamConnection) -> None:
        self._streams.discard(connection)
        if not self._streams:
            self._drained.set()

    def _wake(self) -> None:
        # Output outside a turn: written in the next one, together with what else comes until then.
        if self._flush_handle is None and self._loop is not None:
            self._flush_handle = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()  # called directly: the one that was asked for has nothing left to do
            self._flush_handle = None
        engine = self._running()
        if self._poller is not None:
            self._poller.flush()
        else:
            engine.flush()
            if engine.has_output:
                self._wake()

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


def _unbound(name: str, allow_anonymous: bool, mount_point: str) -> BoundListener:
    """Return what stands for the listener of connections that were accepted elsewhere."""
    if mount_point:
        check_mount_point(mount_point)
    return BoundListener(name, allow_anonymous, 0, 1, 1, mount_point=mount_point)


def _socket_of(transport: asyncio.Transport) -> socket | None:
    """Return a second descriptor of the transport's connection; None when its bytes need the transport."""
    given = transport.get_extra_info("socket")
    if given is None or transport.get_extra_info("sslcontext") is not None or transport.get_write_buffer_size():
        return None
    try:
        return cast("socket", given.dup())
    except OSError as error:  # out of descriptors: the transport has its own
        log.error("WebSocket connection stays with the event loop: %s", error)
        return None


def _client_info(session: Session, *, with_subscriptions: bool = True) -> ClientInfo:
    connection = session.connection
    return ClientInfo(
        client_id=session.client_id,
        is_connected=session.is_connected,
        user_name=session.user_name,
        mount_point=session.mount_point,
        address=connection.peer if connection is not None else None,
        protocol_version=connection.version if connection is not None else None,
        keep_alive_s=connection.keep_alive_s if connection is not None else None,
        connected_s=session.connected_ms / 1000,
        session_expiry_s=session.session_expiry_s,
        subscriptions=session.topic_filters if with_subscriptions else (),
        subscription_count=session.subscription_count,
        in_flight=session.in_flight,
        awaiting_release=session.awaiting_release,
        queued=session.queued,
        queued_bytes=session.queued_bytes_held,
        dropped=session.dropped,
        tls=connection.tls if connection is not None else None,
        proxy=connection.proxy if connection is not None else None,
    )
