"""What happens in a broker, as small frozen objects, for `observe` and `Broker.events()`.

Events are made only while somebody observes, gathered for one turn of the event loop and handed over as one batch, in
the order in which they happened. Times are wall-clock milliseconds. A plugin adds its own kinds by subclassing `Event`
and naming them in `event_types`.
"""

from dataclasses import dataclass
from typing import Any

__all__ = [
    "AlarmChanged",
    "ClientAuthenticated",
    "ClientConnected",
    "ClientDisconnected",
    "ConnectRefused",
    "ConnectionClosed",
    "Event",
    "MessageDropped",
    "PluginFailed",
    "SessionEnded",
    "Subscribed",
    "Unsubscribed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. time_ms: when, in milliseconds since 1970 (UTC)."""

    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfConnection(Event):
    """connection_id: 32 hexadecimal digits, unlike those of every other connection. address: (host, port), path,
    None.
    """

    client_id: str
    connection_id: str
    address: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConnected(_OfConnection):
    """A CONNECT was accepted."""

    identity_name: str | None
    user_name: str | None
    listener: str
    protocol_version: int
    clean_start: bool
    session_present: bool
    session_expiry_s: int
    keep_alive_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthenticated(_OfConnection):
    """The identity of a connected client was replaced."""

    identity_name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRefused(_OfConnection):
    """A CONNECT was refused. client_id may be empty."""

    reason_code: int
    reason: str | None
    user_name: str | None
    listener: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientDisconnected(_OfConnection):
    """A DISCONNECT came from the client; `ConnectionClosed` follows."""

    reason_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(_OfConnection):
    """The network connection of an accepted client is gone, however it went.

    reason_code: with which we closed it, or None when the client did, or it was lost. reason: our words for it, always
    the same ones: the name of the code in small letters (`not authorized`, `session taken over`, `keep alive timeout`)
    or `disconnected by client` (a DISCONNECT), `closed by client` (without one), `connection lost` (a network error).
    detail: more words for people, or None.
    """

    reason_code: int | None
    reason: str
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    """A session ended with what it held: by expiry, clean start or by hand."""

    client_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed(Event):
    """A subscription was made or replaced. options: the Subscription Options byte with the QoS that was granted."""

    client_id: str
    topic_filter: str
    options: int
    subscription_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribed(Event):
    """A subscription was removed by the client or on its behalf; a session's end removes the rest without saying so."""

    client_id: str
    topic_filter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(Event):
    """Messages for a client were dropped, or messages of its own refused (`not_authorized`).

    reason: as in the metrics `messages_dropped_…`. One event per turn, client and reason, behind the turn's others.
    """

    client_id: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginFailed(Event):
    """A hook of a plugin raised, timed out or answered nonsense."""

    plugin: str
    hook: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmChanged(Event):
    """Something that an operator must see began (is_raised) or ended; name is stable, text says what."""

    name: str
    is_raised: bool
    text: str
