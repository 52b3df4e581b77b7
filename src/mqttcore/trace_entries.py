"""What a trace records, as small frozen objects of plain values: `msgspec.to_builtins` and JSON take them as they are.

Times are milliseconds since 1970 (UTC). No entry has a password, authentication data or the value of a property.
Payloads are there only when the trace asked for some bytes of them, and never of topics that begin with `$`: clients
renew tokens there.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

__all__ = [
    "AcceptingPaused",
    "ConnectRefused",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionOpened",
    "ConnectionPaused",
    "ConnectionResumed",
    "Decided",
    "Entry",
    "MessageDropped",
    "MessagePassedBy",
    "MessageQueued",
    "PacketSeen",
    "ProtocolBroken",
    "PublishRefused",
    "PublishTaken",
    "Published",
    "RequestRefused",
    "SessionEnded",
    "SessionOpened",
    "Subscribed",
    "TraceEntry",
    "Unsubscribed",
]


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=_words, omit_defaults=True):
    """Base of all entries.

    client_id: whom it is about; null before a CONNECT has come, and for the broker itself. connection: numbers the
    connections that traces see, so entries of one belong together; null: of none, or of one that is not traced itself.
    """

    time_ms: int
    client_id: str | None = None
    connection: int | None = None


class ConnectionOpened(Entry, frozen=True, kw_only=True):
    """A connection came, or was there when the trace began. opened_for_ms: for how long already.

    address: host and port, a path, or null; what a PROXY header said, if there was one.
    """

    address: str | None
    listener: str | None
    has_tls: bool = False
    opened_for_ms: int = 0


class ConnectionFailed(Entry, frozen=True, kw_only=True):
    """A connection is given up for what is below MQTT: TLS, PROXY header, WebSocket frames, limits of the listener."""

    address: str | None
    listener: str | None
    reason: str


class RequestRefused(Entry, frozen=True, kw_only=True):
    """An HTTP request was answered with an error; so was one that asked for MQTT in WebSocket.

    path: as it was asked for, without a query, which may hold something secret. detail: as in the answer, or null.
    listener: null in an application of one's own.
    """

    address: str | None
    listener: str | None
    method: str
    path: str
    status: int
    detail: str | None = None


class AcceptingPaused(Entry, frozen=True, kw_only=True):
    """Nobody is accepted for a while, so nobody knows who is waiting. listener: null: on none of them.

    Said again each second in which somebody has to wait.
    """

    listener: str | None
    reason: str


class PacketSeen(Entry, frozen=True, kw_only=True):
    """A Control Packet, as it came or went.

    size_bytes: of the whole packet. reason_codes: one, or those of a SUBACK or UNSUBACK. properties: names alone.
    A field that the packet does not have is left out; so are all but packet_type and size_bytes of a malformed one.
    Topics and filters are those of the packet, without the client's mount point; all other entries have them whole.
    topic is empty where a Topic Alias stands for it. payload_base64: the first bytes, when the trace wants them. Of
    CONNECT, topic, qos and retain are those of the will.
    """

    direction: Literal["in", "out"]
    packet_type: str
    size_bytes: int
    packet_id: int | None = None
    topic: str | None = None
    topic_alias: int | None = None
    qos: int | None = None
    retain: bool | None = None
    dup: bool | None = None
    payload_bytes: int | None = None
    payload_base64: str | None = None
    reason_codes: list[int] | None = None
    topic_filters: list[str] | None = None
    options: list[int] | None = None
    properties: list[str] | None = None
    protocol_version: int | None = None
    user_name: str | None = None
    has_password: bool | None = None
    clean_start: bool | None = None
    keep_alive_s: int | None = None
    session_present: bool | None = None


class Decided(Entry, frozen=True, kw_only=True):
    """A plugin decided about a client: who it is, or whether it may subscribe.

    plugin: null: none had an opinion, and the broker decided. answer: in words, without anything secret.
    """

    hook: str
    plugin: str | None
    answer: str


class SessionOpened(Entry, frozen=True, kw_only=True):
    """A CONNECT was accepted. identity_name: whom authentication found; null: anonymous."""

    identity_name: str | None
    session_present: bool
    session_expiry_s: int
    queued: int


class ConnectRefused(Entry, frozen=True, kw_only=True):
    """A CONNECT was refused. reason: for people, or null."""

    reason_code: int
    reason: str | None = None


class ProtocolBroken(Entry, frozen=True, kw_only=True):
    """The client broke the standard. clause: label or section of the standard."""

    reason_code: int
    clause: str
    text: str


class Published(Entry, frozen=True, kw_only=True):
    """A message is published to the subscribers it matched. client_id: its publisher, null: the broker itself.

    recipients: subscriptions it goes to, a shared one counted once; those without a connection count as well.
    """

    topic: str
    qos: int
    retain: bool
    payload_bytes: int
    recipients: int
    payload_base64: str | None = None


class PublishRefused(Entry, frozen=True, kw_only=True):
    """A PUBLISH went no further: for its permissions, a quota, a full queue or the store."""

    topic: str
    qos: int
    payload_bytes: int
    reason_code: int


class PublishTaken(Entry, frozen=True, kw_only=True):
    """A PUBLISH was taken by a topic handler, which may have named recipients, or was dropped without a word."""

    topic: str
    qos: int
    payload_bytes: int
    reason_code: int


class MessageQueued(Entry, frozen=True, kw_only=True):
    """A message waits for the client: it is away, its window is full, or it does not read. queued: messages that do."""

    topic: str
    qos: int
    payload_bytes: int
    queued: int


class MessageDropped(Entry, frozen=True, kw_only=True):
    """Messages for the client were dropped. reason: as in the metrics `messages_dropped_…`; topic null: of several."""

    reason: str
    count: int = 1
    topic: str | None = None


class MessagePassedBy(Entry, frozen=True, kw_only=True):
    """A message is not for the client though it subscribed.

    reason: `no_local`: it published it itself; `away`: QoS 0, and it has no connection; `mount_point`: it does not know
    of such a topic; `not_authorized`: it may not hear it, and another member of the shared group is looked for.
    """

    topic: str
    reason: str


class Subscribed(Entry, frozen=True, kw_only=True):
    """A subscription was made or replaced. options: the Subscription Options byte with the QoS that was granted."""

    topic_filter: str
    options: int
    subscription_id: int = 0


class Unsubscribed(Entry, frozen=True, kw_only=True):
    """A subscription was removed."""

    topic_filter: str


class ConnectionPaused(Entry, frozen=True, kw_only=True):
    """The client is not read for a while. reason: `authenticating`, `congested`, `rate`, `subscribing` or `store`."""

    reason: str


class ConnectionResumed(Entry, frozen=True, kw_only=True):
    """The client is read again."""


class ConnectionClosed(Entry, frozen=True, kw_only=True):
    """The connection is over. reason_code: with which we closed it, or null. reason, detail: as in the event's."""

    reason_code: int | None
    reason: str
    detail: str | None = None


class SessionEnded(Entry, frozen=True, kw_only=True):
    """The session ended with what it held."""


TraceEntry = (
    AcceptingPaused
    | ConnectionOpened
    | ConnectionFailed
    | RequestRefused
    | PacketSeen
    | Decided
    | SessionOpened
    | ConnectRefused
    | ProtocolBroken
    | Published
    | PublishRefused
    | PublishTaken
    | MessageQueued
    | MessageDropped
    | MessagePassedBy
    | Subscribed
    | Unsubscribed
    | ConnectionPaused
    | ConnectionResumed
    | ConnectionClosed
    | SessionEnded
)
