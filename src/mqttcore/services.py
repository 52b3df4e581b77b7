"""What a broker does for plugins and for the application it is embedded in, beyond publish and subscribe."""

from __future__ import annotations

import heapq
import logging
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqttcore import inspection
from mqttcore.batches import BatchTap, WhenFull
from mqttcore.constants import ReasonCode
from mqttcore.errors import MqttCoreError
from mqttcore.events import AlarmChanged, Event
from mqttcore.observers import EventStream, Observers
from mqttcore.repeating import RepeatingCall
from mqttcore.sections import Section

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from mqttcore.engine.client_view import ClientView
    from mqttcore.engine.engine import Engine
    from mqttcore.engine.handler import Handler
    from mqttcore.engine.message import Message
    from mqttcore.handlers import TopicHandler
    from mqttcore.inspection import FilterInfo, InFlightMessage, QueuedMessage

__all__ = ["Services", "SubscriptionInfo"]

log = logging.getLogger("mqttcore.broker")


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """One subscription of a client.

    topic_filter: as the client gave it, `$share/…` included. options: the Subscription Options byte with the QoS that
    was granted. subscription_id 0: none.
    """

    client_id: str
    topic_filter: str
    options: int
    subscription_id: int

    @property
    def qos(self) -> int:
        """QoS that was granted."""
        return self.options & 3


class Services(ABC):
    """Base of Broker."""

    _loop: asyncio.AbstractEventLoop | None

    def __init__(self, *, events_queued_maximum: int) -> None:
        self._observers = Observers(events_queued_maximum)
        self._event_streams: set[EventStream] = set()
        self._batch_taps: set[BatchTap] = set()
        self._repeating_calls: set[RepeatingCall] = set()
        self._sections: dict[str, Section] = {}
        self._alarms: dict[str, str] = {}
        self._keeps_backlogs = False
        self._scan_id = secrets.token_hex(4)  # places in this trie, not in the next one

    @abstractmethod
    def _running(self) -> Engine:
        """Return the engine; MqttCoreError when there is none."""

    # --- messages -----------------------------------------------------------------------------------------------------

    def deliver(
        self,
        client_id: str,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: Mapping[int, Any] | None = None,
        stores_offline: bool = True,
    ) -> bool:
        """Send a message to one client, whatever it subscribed to; False when nobody takes it.

        A client that has a session but no connection gets it later when *stores_offline* and QoS is 1 or 2. retain: the
        RETAIN flag it sees. A client with a mount point takes what is below it. Raises ValueError for what is no Topic
        Name, QoS or property.
        """
        block = dict(properties) if properties else None
        return self._running().deliver(client_id, topic.encode(), payload, qos, retain, block, stores_offline)

    def tap(
        self,
        topic_filter: str,
        on_batch: Callable[[list[Message]], Awaitable[None] | None],
        *,
        messages_maximum: int = 100_000,
        bytes_maximum: int = 64 * 1024 * 1024,
        batch_maximum: int = 1_000,
        when_full: WhenFull = "drop",
        on_failure: Callable[[BaseException], object] | None = None,
    ) -> BatchTap:
        """Give the messages that match *topic_filter* to a function, in batches, once per turn of the loop.

        on_batch: a plain function, or a coroutine function that is given the next batch when it is done with one. What
        it raises goes to on_failure, or into the log; the batch counts as handed over. batch_maximum: messages of one
        call; so many are freed at a time. when_full: `drop` drops the newest message; `pause` drops none that a client
        published at QoS 1 or 2, but does not read clients that go on publishing such ones while the queue is nearly
        full. What was dropped is counted in `dropped` and in metrics as `messages_dropped_tap_full`.
        """
        engine = self._running()
        assert self._loop is not None
        return BatchTap(
            engine,
            self._loop,
            topic_filter,
            on_batch,
            messages_maximum=messages_maximum,
            bytes_maximum=bytes_maximum,
            batch_maximum=batch_maximum,
            when_full=when_full,
            on_failure=on_failure,
            taps=self._batch_taps,
        )

    def add_handler(
        self,
        handler: TopicHandler,
        *,
        order: int = 0,
        owner: str = "",
        on_failure: Callable[[Exception], object] | None = None,
    ) -> Handler:
        """Hang a topic handler on the topic tree; handlers with a lower order are asked first.

        owner: whose it is, for logs. on_failure: takes what its function raised, instead of the log.
        Raises ValueError when the filter is none.
        """
        return self._running().add_handler(
            handler.topic_filter.encode(),
            handler.function,
            is_authorized_by_itself=handler.is_authorized_by_itself,
            order=order,
            owner=owner,
            on_failure=on_failure,
        )

    def remove_handler(self, handler: Handler) -> None:
        """Take off what `add_handler` gave; without effect when it is off already."""
        self._running().remove_handler(handler)

    def set_ordering_key(self, client_id: str, key: str | None) -> bool:
        """Have a client's messages carry *key* as their `ordering_key`; False when it has no connection.

        Sinks keep messages with the same key in order. It counts until the connection ends.
        """
        return self._running().set_ordering_key(client_id, key)

    def keep_backlogs(self, function: Callable[[ClientView, int, int], int | None]) -> None:
        """Have a function decide how fast clients that come back get what was queued meanwhile.

        function: `function(client, queued, keep_alive_s)`, asked on the packet path once for each session that is taken
        up with QoS 1 or 2 queued, before anything of it is sent. It returns how many messages go at once, the oldest
        first; the others are kept back until `release_backlog` or the end of the connection, and are queued then as
        before. None: all go, as without it; so does what it raises, which counts as a failure. There is one function
        for a broker (MqttCoreError); it lasts until the broker stops.

        What is in flight is sent again first, at once, as MQTT wants [MQTT-4.4.0-1]. New messages do not wait for what
        is kept back, so a topic's messages may arrive out of order, other than MQTT's default (MQTT 5 §4.6). Rights to
        what is kept back are asked when it is released. It counts to the limits of queues.
        """
        if self._keeps_backlogs:
            raise MqttCoreError("another function decides about backlogs")
        self._running().keep_backlogs(function)
        self._keeps_backlogs = True

    def backlog(self, client_id: str) -> int:
        """Return how many messages are kept back for a client; see `keep_backlogs`."""
        return self._running().backlog(client_id)

    def release_backlog(
        self,
        client_id: str,
        count: int | None = None,
        *,
        newest_first: bool = False,
        age_maximum_s: float | None = None,
    ) -> int:
        """Let *count* of the messages go that are kept back for a client, all with None; return how many went.

        They are sent as its Receive Maximum allows. age_maximum_s: what was queued longer ago is dropped instead, as
        expired; so is what the client may not receive any more, and both do not count. Raises ValueError for numbers
        below 0.
        """
        age_maximum_ms = 0
        if age_maximum_s is not None:
            age_maximum_ms = max(1, round(age_maximum_s * 1000)) if age_maximum_s >= 0 else -1
        return self._running().release_backlog(client_id, count, newest_first, age_maximum_ms)

    def retained_message(self, topic: str) -> Message | None:
        """Return the retained message of a topic, or None."""
        return self._running().retained_message(topic.encode())

    def set_retained(
        self, topic: str, payload: bytes, *, qos: int = 0, properties: Mapping[int, Any] | None = None
    ) -> None:
        """Keep a retained message without publishing it; *payload* is not empty.

        Raises ValueError as `publish` does, QuotaExceeded over the limits for retained messages.
        """
        self._running().set_retained(topic.encode(), payload, qos, dict(properties) if properties else None)

    def delete_retained(self, topic: str) -> bool:
        """Remove the retained message of a topic; False when there was none."""
        return self._running().delete_retained(topic.encode())

    # --- subscriptions ------------------------------------------------------------------------------------------------

    def subscriptions(
        self,
        *,
        client_id: str | None = None,
        topic_filter: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[SubscriptionInfo]:
        """Return the subscriptions of a client, or those to exactly this filter, or both: one or none.

        limit: at most so many, by filter or by client id. after: `listing_place` of the last filter or client id before
        them. Cost: of a client or of a filter, what there is (0.2 µs each beyond the limit); give at least one of them
        (ValueError).
        """
        engine = self._running()
        if client_id is not None:
            rows = _page(engine.subscriptions_of(client_id), after, limit)
            found = [SubscriptionInfo(client_id, *row) for row in rows]
            return found if topic_filter is None else [one for one in found if one.topic_filter == topic_filter]
        if topic_filter is None:
            raise ValueError("subscriptions of which client, or to which filter?")
        subscribers = _page(engine.subscribers_of(topic_filter.encode()), after, limit)
        return [
            SubscriptionInfo(of, topic_filter, options, subscription_id) for of, options, subscription_id in subscribers
        ]

    def subscribe_client(
        self,
        client_id: str,
        topic_filter: str,
        qos: int = 2,
        *,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        subscription_id: int = 0,
    ) -> int:
        """Subscribe on a client's behalf, without asking for permission; the reason code that a SUBACK would have.

        Its retained messages follow if it is connected. What its mount point keeps it from is refused all the same
        (0x87). Raises MqttCoreError when it has no session, ValueError for numbers out of range.
        """
        if not (0 <= qos <= 2 and 0 <= retain_handling <= 2 and 0 <= subscription_id <= 268_435_455):
            raise ValueError("qos and retain_handling are 0 to 2, subscription_id is 0 to 268435455")
        options = qos | no_local << 2 | retain_as_published << 3 | retain_handling << 4
        code = self._running().subscribe_client(client_id, topic_filter.encode(), options, subscription_id)
        if code is None:
            raise MqttCoreError(f"client {client_id!r} has no session")
        return code

    def unsubscribe_client(self, client_id: str, topic_filter: str) -> bool:
        """Unsubscribe on a client's behalf; False when it had no such subscription."""
        return self._running().unsubscribe_client(client_id, topic_filter.encode()) == ReasonCode.SUCCESS

    # --- a look, page by page -----------------------------------------------------------------------------------------

    def topic_filters(
        self, *, prefix: str = "", limit: int = 1000, after: str | None = None
    ) -> tuple[list[FilterInfo], str | None]:
        """Return a page of the filters that sessions subscribe to, and *after* for the next page; None: there is none.

        prefix: of the filter, without `$share/name/`. They come in no order; one that is there all the time comes once.
        A page may be short, or empty, and have a next one all the same: the work for one is bounded. Raises ValueError
        for an *after* that is none of this broker's.
        """
        return inspection.topic_filters(self._running(), prefix=prefix, limit=limit, after=after, scan_id=self._scan_id)

    def queued_messages(
        self, client_id: str, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[QueuedMessage], str | None]:
        """Return a page of what waits for a client, and *after* for the next page, as `topic_filters`.

        What is kept back comes first, then QoS 1 and 2, then QoS 0, each oldest first. What is in the store only comes
        without its message; `read_queued_messages` reads that. Raises MqttCoreError when the client has no session,
        ValueError for an *after* that is none.
        """
        return inspection.queued_messages(self._running(), client_id, limit=limit, after=after)

    def in_flight_messages(
        self, client_id: str, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[InFlightMessage], str | None]:
        """Return a page of what was sent to a client and is not completed, oldest first; as `queued_messages`."""
        return inspection.in_flight_messages(self._running(), client_id, limit=limit, after=after)

    def awaiting_release(self, client_id: str) -> list[int]:
        """Return the packet ids of QoS 2 messages from a client that wait for its PUBREL, sorted.

        Raises MqttCoreError when the client has no session.
        """
        return inspection.awaiting_release(self._running(), client_id)

    # --- events and alarms --------------------------------------------------------------------------------------------

    def events(self, *kinds: type[Event]) -> EventStream:
        """Return a stream of events of these kinds, or of all; use it with `async with`."""
        return EventStream(self._observers, kinds, self._event_streams)

    def emit(self, event: Event) -> None:
        """Let observers see an event of a plugin's own, in its place among the others."""
        if not isinstance(event, Event):
            raise TypeError(f"{event!r} is no Event")
        self._observers.put(event)

    def raise_alarm(self, name: str, text: str) -> None:
        """Say that something began which an operator must see; names of plugins begin with the plugin's and `_`.

        An alarm that is raised already gets the new text; an event and a log record come only with a change.
        """
        if self._alarms.get(name) != text:
            self._alarms[name] = text
            log.warning("alarm %s: %s", name, text)
            self.emit(AlarmChanged(time_ms=self._running().wall_clock_ms, name=name, is_raised=True, text=text))

    def clear_alarm(self, name: str, text: str = "") -> None:
        """Say that it ended; without effect when the alarm is not raised."""
        if self._alarms.pop(name, None) is not None:
            log.info("alarm %s ended%s", name, f": {text}" if text else "")
            self.emit(AlarmChanged(time_ms=self._running().wall_clock_ms, name=name, is_raised=False, text=text))

    # --- the plugin's own ---------------------------------------------------------------------------------------------

    def call_every(
        self,
        interval_s: float,
        function: Callable[[], Awaitable[object] | object],
        *,
        on_failure: Callable[[BaseException], object] | None = None,
    ) -> RepeatingCall:
        """Call *function* every *interval_s* seconds until the broker stops or the call is cancelled."""
        self._running()
        assert self._loop is not None
        return RepeatingCall(self._loop, interval_s, function, on_failure=on_failure, calls=self._repeating_calls)

    def plugin_section(self, name: str) -> Section:
        """Return a plugin's counters and gauges, the same each time; see `Section`."""
        section = self._sections.get(name)
        if section is None:
            section = self._sections[name] = Section(name)
        return section

    def _service_metrics(self) -> dict[str, int]:
        values = self._observers.metrics()
        values["batch_taps"] = len(self._batch_taps)
        values["batch_taps_queued"] = sum(tap.queued for tap in self._batch_taps)
        values["repeating_calls"] = len(self._repeating_calls)
        values["alarms"] = len(self._alarms)
        for section in self._sections.values():
            values |= {f"plugin_{section.name}_{key}": value for key, value in section.values()}
        return values

    def _end_services(self) -> None:
        # What plugins and application left running.
        for stream in list(self._event_streams):
            stream.close()
        for tap in list(self._batch_taps):
            tap.close()
        for call in list(self._repeating_calls):
            call.cancel()
        self._sections.clear()
        self._scan_id = secrets.token_hex(4)
        self._keeps_backlogs = False  # the engine that asked is gone
        self._alarms.clear()


def _page(rows: list[tuple[str, int, int]], after: str | None, limit: int | None) -> list[tuple[str, int, int]]:
    """Return those that a page begins with, by their names; without limit all, as they are."""
    if limit is None:
        return rows
    behind = (row for row in rows if after is None or inspection.listing_place(row[0]) > after)
    return heapq.nsmallest(limit, behind, key=lambda row: inspection.listing_place(row[0]))
