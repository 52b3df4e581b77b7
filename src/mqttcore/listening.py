"""The listeners of one broker: opened together, then stopped and started one by one while it runs.

A listener that is stopped has no sockets. It keeps its connections, its count and its place in the list, its TLS goes
on being looked after, and it comes back where it was: a port that the system chose is asked for again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from mqttcore.config import Listener, takes_anonymous
from mqttcore.errors import MqttCoreError, NotPossible
from mqttcore.net.listeners import BoundListener, bind, bind_path, listen_at, listen_at_path, serve
from mqttcore.net.tls import ServerTls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aiohttp.web import AbstractRouteDef

    from mqttcore.broker import Broker
    from mqttcore.config import Config
    from mqttcore.net.poller import Poller

__all__ = ["ListenerInfo", "Listening"]

log = logging.getLogger("mqttcore.broker")

# What cannot change while a listener listens, besides layers and the settings of HTTP.
_FIXED = ("host", "port", "path", "path_mode", "backlog", "protocol")
# The layer above: named here, imported when a listener wants it.
_HTTP_SERVER = "mqttcore.http.server:HttpServer"


@dataclass(frozen=True, slots=True)
class ListenerInfo:
    """One listener as it was when asked.

    addresses: host and real port of each socket; path and 0 of a Unix socket; of a stopped listener, those it had.
    connections_maximum 0: no limit of its own. refused: connections that were one too many.
    """

    name: str
    protocol: str
    addresses: tuple[tuple[str, int], ...]
    has_tls: bool
    connections: int
    connections_maximum: int
    refused: int
    is_listening: bool
    takes_clients: bool  # MQTT is spoken there, in WebSocket at least


class _Acceptor(Protocol):
    """Takes connections from the sockets of a listener."""

    async def accept(self) -> None: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class _HttpAcceptor(_Acceptor, Protocol):
    """What `_HTTP_SERVER` is, as far as it matters here."""

    def end_connections(self) -> None: ...
    async def stop(self) -> None: ...


class _ByPoller:
    """MQTT, where sockets are the broker's own affair."""

    def __init__(self, listener: BoundListener, poller: Poller) -> None:
        self._listener = listener
        self._poller = poller

    async def accept(self) -> None:
        for sock in self._listener.sockets:
            self._poller.add_listener(sock, self._listener)

    def close(self) -> None:
        for sock in self._listener.sockets:
            self._poller.remove_listener(sock)

    async def wait_closed(self) -> None:
        """Return at once: nothing is under way."""


class _ByLoop:
    """MQTT, where the event loop has the sockets. make_protocol: one for each connection."""

    def __init__(self, listener: BoundListener, make_protocol: Callable[[BoundListener], asyncio.BaseProtocol]) -> None:
        self._listener = listener
        self._make_protocol = functools.partial(make_protocol, listener)
        self._servers: list[asyncio.Server] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def accept(self) -> None:
        await serve(self._listener, self._make_protocol, self._servers)

    def close(self) -> None:
        for server in self._servers:
            server.close()
            task = asyncio.get_running_loop().create_task(server.wait_closed())  # until its last connection ends
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._servers.clear()

    async def wait_closed(self) -> None:
        if self._closing:
            await asyncio.wait(self._closing)


@dataclass(slots=True)
class _Door:
    """A listener with what accepts there."""

    bound: BoundListener
    addresses: tuple[tuple[str, int], ...]  # host and real port of each socket it has, or had
    acceptor: _Acceptor | None = None
    http: _HttpAcceptor | None = None  # the acceptor, where HTTP is spoken

    @property
    def settings(self) -> Listener:
        """Those in force."""
        return self.bound.settings

    def open(self) -> None:
        """Give it sockets where it had them before. Raises OSError that names the address, and it has none."""
        if self.bound.path:
            listen_at_path(self.bound, int(self.settings.path_mode, 8))
            return
        for host, port in self.addresses:  # not the name again: to ask for its addresses may take a while
            listen_at(self.bound, host, port)

    def close(self) -> None:
        """Accept no more."""
        if self.acceptor is not None:
            self.acceptor.close()
        self.bound.close()


class Listening:
    """Opens, stops and starts listeners. make_protocol: of a connection where the event loop has the sockets."""

    def __init__(self, broker: Broker, make_protocol: Callable[[BoundListener], asyncio.BaseProtocol]) -> None:
        self._broker = broker
        self._make_protocol = make_protocol
        self._doors: dict[str, _Door] = {}

    def __iter__(self) -> Iterator[BoundListener]:
        """Iterate over all, in the order of the configuration, stopped ones too."""
        return iter([door.bound for door in self._doors.values()])

    @property
    def infos(self) -> list[ListenerInfo]:
        """What can be said of each."""
        return [_info(door) for door in self._doors.values()]

    def bind(self, config: Config, *, has_authentication: bool) -> None:
        """Take the addresses of all: before anything is accepted. Raises OSError that names the address."""
        for settings in config.listeners:
            bound = _bind(settings, takes_anonymous(config, settings, has_authentication))
            self._doors[settings.name] = _Door(bound, tuple(bound.addresses))

    async def accept(self, poller: Poller | None, http_routes: Sequence[AbstractRouteDef]) -> None:
        """Accept on all. poller: without one, the event loop has the sockets. http_routes: of plugins."""
        for door in self._doors.values():
            if door.settings.protocol == "http":
                door.acceptor = door.http = pkgutil.resolve_name(_HTTP_SERVER)(
                    self._broker,
                    door.bound,
                    door.settings,
                    routes=http_routes,
                    shutdown_timeout_s=self._broker.config.shutdown_timeout_s,
                )
            elif poller is not None:
                door.acceptor = _ByPoller(door.bound, poller)
            else:
                door.acceptor = _ByLoop(door.bound, self._make_protocol)
            await door.acceptor.accept()

    def stop(self, name: str, *, spares_last_http: bool) -> BoundListener:
        """Have one accept no more, if it does.

        Raises MqttCoreError when there is none of this name; NotPossible for the last that speaks HTTP, if that is to
        be spared.
        """
        door = self._door(name)
        speaking_http = [one for one in self._all if one.http is not None and one.bound.is_listening]
        if spares_last_http and speaking_http == [door]:
            raise NotPossible(f"{name} is the last listener that speaks HTTP")
        if door.bound.is_listening:
            door.close()
            log.info("listener %s stopped", name)
        return door.bound

    def end_http(self, name: str) -> None:
        """Close the connections of one that speak HTTP; who waits for an answer gets it first."""
        http = self._door(name).http
        if http is not None:
            http.end_connections()

    async def start(self, name: str) -> None:
        """Have one accept again, if it does not. Raises OSError that names the address, and it stays stopped."""
        door = self._door(name)
        if door.bound.is_listening:
            return
        assert door.acceptor is not None
        door.open()
        try:
            await door.acceptor.accept()
        except BaseException:
            door.close()
            raise
        log.info("listener %s started", name)

    @property
    def settings(self) -> list[Listener]:
        """Those in force, of each."""
        return [door.settings for door in self._all]

    def needing_restart(self, listeners: Sequence[Listener]) -> list[str]:
        """Return the key paths of what cannot change while they are there; a listener by its name."""
        wanted = {one.name: one for one in listeners}
        paths = [f"listeners.{name}" for name in sorted(wanted.keys() ^ self._doors.keys())]
        if not paths and [*wanted] != [*self._doors]:
            paths.append("listeners")  # in another order
        for name in wanted.keys() & self._doors.keys():
            fixed, found = _fixed(self._doors[name].settings), _fixed(wanted[name])
            paths += [f"listeners.{name}.{key}" for key in fixed | found if fixed.get(key) != found.get(key)]
        return sorted(paths)

    def configure(self, config: Config, *, has_authentication: bool) -> None:
        """Take over what can change while a listener is there; what cannot is as it was."""
        for settings in config.listeners:
            door = self._doors.get(settings.name)
            if door is None or not _are_alike(settings, door.settings):
                continue
            if door.bound.tls is not None:
                door.bound.tls.reload(settings.tls)
            door.bound.configure(settings, door.bound.tls)
            door.bound.settings = msgspec.structs.replace(
                settings, **{key: getattr(door.settings, key) for key in (*_FIXED, *_fixed_of_http(door.settings))}
            )
            door.bound.allow_anonymous = takes_anonymous(config, settings, has_authentication)

    def close(self) -> None:
        """Have all accept no more."""
        for door in self._doors.values():
            door.close()

    async def stop_http(self) -> None:
        """End what speaks HTTP; requests under way are answered within the broker's `shutdown_timeout_s`."""
        await asyncio.gather(*(door.http.stop() for door in self._all if door.http is not None))

    async def finish(self) -> None:
        """Wait until no connection is left, and forget all."""
        for door in self._all:
            if door.acceptor is not None:
                await door.acceptor.wait_closed()
        self._doors.clear()

    @property
    def _all(self) -> list[_Door]:
        return list(self._doors.values())

    def _door(self, name: str) -> _Door:
        if name not in self._doors:
            raise MqttCoreError(f"there is no listener {name}")
        return self._doors[name]


def _bind(listener: Listener, anonymous: bool) -> BoundListener:
    # Before the address is taken: whoever waits for it to answer must not find one that cannot.
    alpn = ("http/1.1",) if listener.protocol == "http" else ("mqtt",)
    tls = None if listener.tls is None else ServerTls(listener.tls, listener.name, alpn=alpn)
    shared = {
        "backlog": listener.backlog,
        "max_connections": listener.max_connections,
        "accept_per_turn": listener.accept_per_turn,
    }
    if listener.path:
        bound = bind_path(listener.name, listener.path, int(listener.path_mode, 8), allow_anonymous=anonymous, **shared)
    else:
        bound = bind(listener.name, listener.host, listener.port, allow_anonymous=anonymous, **shared)
    bound.configure(listener, tls)
    bound.settings = listener
    return bound


def _are_alike(one: Listener, other: Listener) -> bool:
    """Say whether two listeners are reached by the same clients through the same layers: settings of one fit the other.

    Else what is harmless where one listens might open the other.
    """
    return all(
        getattr(one, name) == getattr(other, name) for name in ("host", "port", "path", "path_mode", "protocol")
    ) and [one.tls is None, one.proxy_protocol == "none"] == [other.tls is None, other.proxy_protocol == "none"]


def _fixed(listener: Listener) -> dict[str, object]:
    """Return what of a listener cannot change while it listens, by key."""
    of_layers = {"proxy_protocol": listener.proxy_protocol == "none", "tls": listener.tls is None}
    return of_layers | {key: getattr(listener, key) for key in (*_FIXED, *_fixed_of_http(listener))}


def _fixed_of_http(listener: Listener) -> list[str]:
    if listener.protocol != "http":
        return []
    return [key for key in Listener.__struct_fields__ if key.startswith(("http_", "websocket_"))]


def _info(door: _Door) -> ListenerInfo:
    bound, settings = door.bound, door.settings
    return ListenerInfo(
        name=bound.name,
        protocol=settings.protocol,
        addresses=door.addresses,
        has_tls=bound.tls is not None,
        connections=bound.connections,
        connections_maximum=bound.max_connections,
        refused=bound.refused,
        is_listening=bound.is_listening,
        takes_clients=settings.protocol == "mqtt" or bool(settings.websocket_path),
    )
