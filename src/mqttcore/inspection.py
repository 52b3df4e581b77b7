"""What an operator looks at page by page: filters that have subscribers, and messages on their way to a client."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqttcore.engine.filter_scan import filters_from
from mqttcore.engine.session_look import awaiting_release_ids, in_flight_from, queued_from
from mqttcore.errors import MqttCoreError, StoreError

if TYPE_CHECKING:
    from mqttcore.engine.engine import Engine
    from mqttcore.engine.message import Message
    from mqttcore.engine.session import Session
    from mqttcore.persistence import Persistence

    _Row = tuple[int, int, int, bool, Message | int, int, int]  # of `queued_from`

__all__ = [
    "FilterInfo",
    "InFlightMessage",
    "QueuedMessage",
    "awaiting_release",
    "in_flight_messages",
    "listing_place",
    "queued_messages",
    "read_queued_messages",
    "topic_filters",
]

log = logging.getLogger("mqttcore.broker")

_FILTERS_END = 2**32
_NODES_AT_ONCE = 10_000  # of the subscription trie: others wait meanwhile
_SUBSCRIPTIONS_AT_ONCE = 100_000
_PLACE_CHARACTERS = 1000
_KEPT_BACK = 0  # a part of what `queued_from` gives
_STORED_BYTES_AT_ONCE = 4 * 1024 * 1024  # of messages read from the store for a page


@dataclass(frozen=True, slots=True)
class FilterInfo:
    """A Topic Filter that sessions subscribe to. topic_filter: without `$share/name/`.

    subscribers: of the filter itself. share_groups, shared_subscribers: groups that share it, and members of these.
    share_names: of at most 16 groups. is_complete: False when there are so many subscribers that not all were counted.
    """

    topic_filter: str
    subscribers: int
    share_groups: int
    shared_subscribers: int
    share_names: tuple[str, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message that waits for a client.

    message: of one that is in the store only (not is_in_memory), None unless it was read from there. qos, retain: of
    the delivery. size_bytes: what it counts to limits, a little more than topic, properties and payload. expires_in_s:
    None: never. is_kept_back: it goes only when a plugin lets it (`Broker.keep_backlogs`).
    """

    message: Message | None
    qos: int
    retain: bool
    size_bytes: int
    queued_for_s: float
    expires_in_s: float | None
    is_kept_back: bool
    is_in_memory: bool = True


@dataclass(frozen=True, slots=True)
class InFlightMessage:
    """A message of QoS 1 or 2 that was sent and is not completed. awaits: `PUBACK`, `PUBREC` or `PUBCOMP`.

    message: None when PUBCOMP is awaited: it is not needed any more. The others as in QueuedMessage.
    """

    packet_id: int
    awaits: str
    message: Message | None
    qos: int
    retain: bool
    size_bytes: int
    expires_in_s: float | None


def listing_place(name: str) -> str:
    """Return what a client id or topic is listed by: itself, or what stands for it when it is long.

    Names have up to 65,535 bytes, and the place where a page ends has to fit into a request line.
    """
    if len(name) <= _PLACE_CHARACTERS:
        return name
    return f"{name[:_PLACE_CHARACTERS]}\0{hashlib.sha256(name.encode()).hexdigest()}"  # no name has NUL


def topic_filters(
    engine: Engine, *, prefix: str, limit: int, after: str | None, scan_id: str
) -> tuple[list[FilterInfo], str | None]:
    """As `Broker.topic_filters`. scan_id: of this engine's trie, whose places mean nothing in another one."""
    place = 0
    if after is not None:
        text, _, of = after.partition("-")
        (place,) = _numbers(text, 1)
        if of != scan_id or not 0 <= place < _FILTERS_END:
            raise _no_place(after)
    rows, place = filters_from(engine.topics, place, limit, prefix.encode(), _NODES_AT_ONCE, _SUBSCRIPTIONS_AT_ONCE)
    return [FilterInfo(*row) for row in rows], f"{place}-{scan_id}" if place < _FILTERS_END else None


def queued_messages(
    engine: Engine, client_id: str, *, limit: int, after: str | None
) -> tuple[list[QueuedMessage], str | None]:
    """As `Broker.queued_messages`."""
    rows, following = _queued(engine, client_id, limit, after)
    return _shown(engine, rows, {}), following


async def read_queued_messages(
    engine: Engine, persistence: Persistence, client_id: str, *, limit: int, after: str | None
) -> tuple[list[QueuedMessage], str | None]:
    """As `Broker.read_queued_messages`."""
    rows, following = _queued(engine, client_id, limit, after, stored_bytes_maximum=_STORED_BYTES_AT_ONCE)
    messages: dict[int, Message] = {}
    try:
        messages = await persistence.look_up({row[4] for row in rows if isinstance(row[4], int)})
    except StoreError as error:
        log.error("queue of %s: what is in the store cannot be shown: %s", client_id, error)
    return _shown(engine, rows, messages), following


def _queued(
    engine: Engine, client_id: str, limit: int, after: str | None, **bounds: int
) -> tuple[list[_Row], str | None]:
    place = None
    if after is not None:
        part, since_ms, left = _numbers(after, 3)
        if not (0 <= part < 3 and abs(since_ms) < 2**62 and 0 <= left < 2**32):
            raise _no_place(after)
        place = (part, since_ms, left)
    rows, following = queued_from(_session(engine, client_id), place, limit, **bounds)
    return rows, None if following is None else ".".join(map(str, following))


def _shown(engine: Engine, rows: list[_Row], messages: dict[int, Message]) -> list[QueuedMessage]:
    now_ms = engine.clock_ms
    return [
        QueuedMessage(
            message=messages.get(message) if isinstance(message, int) else message,
            qos=qos,
            retain=retain,
            size_bytes=size,
            queued_for_s=max(0, now_ms - since_ms) / 1000,
            expires_in_s=_left_s(expires_ms, now_ms),
            is_kept_back=part == _KEPT_BACK,
            is_in_memory=not isinstance(message, int),
        )
        for part, since_ms, qos, retain, message, size, expires_ms in rows
    ]


def in_flight_messages(
    engine: Engine, client_id: str, *, limit: int, after: str | None
) -> tuple[list[InFlightMessage], str | None]:
    """As `Broker.in_flight_messages`."""
    place = -1
    if after is not None:
        (place,) = _numbers(after, 1)
        if not 0 <= place < 2**32:
            raise _no_place(after)
    rows, following = in_flight_from(_session(engine, client_id), place, limit)
    now_ms = engine.clock_ms
    found = [
        InFlightMessage(
            packet_id=packet_id,
            awaits=awaits,
            message=message,
            qos=1 if awaits == "PUBACK" else 2,
            retain=retain,
            size_bytes=size,
            expires_in_s=_left_s(expires_ms, now_ms),
        )
        for packet_id, awaits, retain, message, size, expires_ms in rows
    ]
    return found, None if following is None else str(following)


def awaiting_release(engine: Engine, client_id: str) -> list[int]:
    """As `Broker.awaiting_release`."""
    return awaiting_release_ids(_session(engine, client_id))


def _session(engine: Engine, client_id: str) -> Session:
    session = engine.session(client_id)
    if session is None:
        raise MqttCoreError(f"client {client_id!r} has no session")
    return session


def _numbers(text: str, count: int) -> list[int]:
    try:
        numbers = [int(one) for one in text.split(".")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise _no_place(text)
    return numbers


def _no_place(text: str) -> ValueError:
    return ValueError(f"{text[:80]!r} is no place to go on from")


def _left_s(expires_ms: int, now_ms: int) -> float | None:
    return max(0, expires_ms - now_ms) / 1000 if expires_ms else None
