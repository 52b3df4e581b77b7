"""Plugin `presence`: who is online, told to subscribers, to sinks and to who asks (ALIYUN: status notices)."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqttcore import (
    ClientConnected,
    ClientDisconnected,
    ConnectionClosed,
    Event,
    MqttCoreError,
    SessionEnded,
    Subscribed,
    Unsubscribed,
    hookimpl,
)

from .names import group_of
from .online import OnlineRegister
from .profile import profile_of
from .settings import PresenceConfig
from .status_route import status_route

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiohttp import web

    from mqttcore import Broker

__all__ = ["REGISTER", "Presence", "StatusEvent"]

log = logging.getLogger("mqttcore.plugins.aliyun")

REGISTER = "presence.register"

_EVENT_TYPES: dict[type[Event], str] = {
    ClientConnected: "connect",
    ClientDisconnected: "disconnect",
    ConnectionClosed: "tcpclean",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvent(Event):
    """A client's status changed; for sinks. topic: `<group>_MQTT`, tag: `connect`, `disconnect` or `tcpclean`.

    body: the JSON object that the service sends.
    """

    client_id: str
    group_id: str
    topic: str
    tag: str
    body: bytes


class Presence:
    """Keeps the register of who is online, and turns connections into the service's notices.

    `connect`: accepted; `disconnect`: a DISCONNECT came; `tcpclean`: the connection is gone, always sent, after a
    `disconnect` as well. Only clients of a group have notices.
    """

    name = "presence"
    Config = PresenceConfig

    def __init__(self, config: PresenceConfig) -> None:
        self._config = config
        self._broker: Broker | None = None
        self.register = OnlineRegister(clients_maximum=config.clients_maximum, filters_maximum=config.topics_maximum)

    @hookimpl
    def event_types(self) -> Iterable[type[Event]]:
        """Name the event that sinks may want."""
        return [StatusEvent]

    @hookimpl
    def startup(self, broker: Broker) -> None:
        """Begin with the sessions that are there already."""
        self._broker = broker
        for client in broker.clients():
            self.register.stored(client.client_id, client.subscriptions)
        broker.provide(REGISTER, self.register)
        section = broker.plugin_section(self.name)
        section.measure("clients", self.register.__len__)
        section.measure("filters", lambda: self.register.filters)
        section.measure("is_complete", lambda: self.register.has_all_clients and self.register.has_all_filters)

    @hookimpl
    def http_routes(self, broker: Broker) -> Iterable[web.AbstractRouteDef]:
        """Give `/route/clientId/get`, where there are access keys to sign with."""
        try:
            profile = profile_of(broker)
        except MqttCoreError:
            log.info("presence: without aliyun_auth there is no /route/clientId/get")
            return []
        return [status_route(profile.registry, self.register, window_s=self._config.status_window_s)]

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        """Keep the register and send the notices, in order."""
        for event in events:
            match event:
                case ClientConnected():
                    self.register.connected(
                        event.client_id,
                        event.connection_id,
                        is_persistent=event.session_expiry_s > 0,
                        is_resumed=event.session_present,
                    )
                    self._tell(event)
                case ClientDisconnected():
                    self._tell(event)
                case ConnectionClosed():
                    self.register.closed(event.client_id, event.connection_id)
                    self._tell(event)
                case SessionEnded():
                    self.register.session_ended(event.client_id)
                case Subscribed():
                    self.register.subscribed(event.client_id, event.topic_filter)
                case Unsubscribed():
                    self.register.unsubscribed(event.client_id, event.topic_filter)
                case _:
                    pass

    def _tell(self, event: ClientConnected | ClientDisconnected | ConnectionClosed) -> None:
        group_id = group_of(event.client_id)
        if group_id is None or self._broker is None:
            return
        tag = _EVENT_TYPES[type(event)]
        body = status_body(event, tag)
        self._broker.emit(
            StatusEvent(
                time_ms=event.time_ms,
                client_id=event.client_id,
                group_id=group_id,
                topic=f"{group_id}_MQTT",
                tag=tag,
                body=body,
            )
        )
        if self._config.topic:
            topic = self._config.topic.replace("{group}", group_id).replace("{event}", tag)
            try:
                self._broker.publish_nowait(topic, body, qos=self._config.qos)
            except ValueError as error:  # a group id that makes no Topic Name
                log.warning("presence: no notice is published: %s", error)


def status_body(event: ClientConnected | ClientDisconnected | ConnectionClosed, tag: str) -> bytes:
    """Return the JSON object of a notice."""
    said = {
        "clientId": event.client_id,
        "time": event.time_ms,
        "eventType": tag,
        "channelId": event.connection_id,
        "clientIp": address_text(event.address),
    }
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()


def address_text(address: Any) -> str:
    """Return `ip:port` of (host, port), a path as it is, nothing for None."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "" if address is None else str(address)
