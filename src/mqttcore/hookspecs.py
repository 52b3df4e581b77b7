"""Everything that a plugin can be asked for: the table of contents of extensibility.

A plugin is a class with a frozen `Config`, an `__init__(self, config)` and methods marked `@hookimpl`. There are four
kinds of hooks: *wiring* (called once, at start and stop), *decision* (None is no opinion, the first other answer
counts), *transform* (each gets what the one before gave) and *observation* (later, in batches, nothing comes back).
Plugins are called in the order of their tables in the configuration.

Hooks on the packet path (`admit`, `authorize_publish`, `authorize_deliver`, `transform_publish`, and the handlers of
`topic_handlers`) are plain functions: frozen into the engine's table at start and called positionally with all their
arguments. A coroutine function or a wrapper there is refused when the plugin is loaded. Prefer a permission of the
`Identity` or a topic handler to them: where no filter matches, no Python runs.
"""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from aiohttp.web import AbstractRouteDef

    from mqttcore.broker import Broker
    from mqttcore.codec import Auth, Connect
    from mqttcore.engine.client_view import ClientView
    from mqttcore.engine.message import Message
    from mqttcore.events import Event
    from mqttcore.handlers import PublishChange, TopicHandler
    from mqttcore.identity import Challenge, Identity, Refusal

__all__ = ["hookimpl"]

_hookspec = pluggy.HookspecMarker("mqttcore")
hookimpl = pluggy.HookimplMarker("mqttcore")


# --- wiring -----------------------------------------------------------------------------------------------------------


@_hookspec(firstresult=True)
def open_store(broker: Broker) -> object | None:
    """Give the store that keeps sessions, messages and retained messages.

    When: once, before the broker listens; the broker opens and closes what it is given.
    Answer: a store, or None; two plugins that give one are an error.
    Order: file order; all are asked.
    Sync or async: plain function.
    Cost: start only.
    On exception: the broker does not start.
    """


@_hookspec
def http_routes(broker: Broker) -> Iterable[AbstractRouteDef]:
    """Give routes for the HTTP listeners.

    When: once, when an HTTP listener starts. Answer: aiohttp route definitions; a path given twice is an error.
    Order: file order. Sync or async: plain function; the handlers are coroutines.
    Cost: start only. On exception: the broker does not start.
    """


@_hookspec
def topic_handlers(broker: Broker) -> Iterable[TopicHandler]:
    """Give handlers that hang on the topic tree and are called for messages of clients before routing.

    When: once at start; each handler's function for every PUBLISH (and will) whose topic its filter matches.
    Answer: `TopicHandler` objects. Their function answers CONSUMED (acknowledged, not routed), `Recipients` (delivered
    to these clients instead of to subscribers) or None (go on).
    Order: file order; the first answer that is not None counts.
    Sync or async: plain functions, on the packet path. Cost: one Python call for a message that matches, none for
    others.
    On exception: counted and logged; the message is refused (0x80), never routed past a handler that failed.
    """


@_hookspec
def event_types() -> Iterable[type[Event]]:
    """Name the plugin's own kinds of events, which it may give to `Broker.emit`.

    When: once, at load. Answer: subclasses of `Event`. Order: none. Sync or async: plain function. Cost: start only.
    On exception: the broker does not start.
    """


@_hookspec
def startup(broker: Broker) -> Awaitable[None] | None:
    """Begin to work: open connections, start tasks.

    When: after stores and hooks are there, before the broker listens. Answer: none.
    Order: file order, one after another. Sync or async: either. Cost: start only.
    On exception: the plugins started before are shut down, and the broker does not start.
    """


@_hookspec
def shutdown(broker: Broker) -> Awaitable[None] | None:
    """Stop working: end tasks, close connections.

    When: after the last client is gone; also when a later plugin failed to start. Answer: none.
    Order: reverse file order. Sync or async: either, under `plugin_timeout_s`. Cost: stop only.
    On exception: logged; the others are shut down all the same.
    """


# --- decisions --------------------------------------------------------------------------------------------------------


@_hookspec(firstresult=True)
def admit(client: ClientView, connect: Connect) -> Refusal | None:
    """Turn a client away before anything dear is done for it: bans, floods, listeners.

    When: a CONNECT was decoded, before authentication. Answer: `Refusal`, or None to go on.
    Order: file order, first answer. Sync or async: plain function, on the packet path of CONNECT.
    Cost: one call per CONNECT. On exception: refused (0x80).
    """


@_hookspec(firstresult=True)
def authenticate(
    client: ClientView, connect: Connect
) -> Identity | Refusal | Challenge | Awaitable[Identity | Refusal | Challenge | None] | None:
    """Say who a client is.

    When: for every CONNECT, after `admit`, before any session is looked at [MQTT-3.1.4-2].
    Answer: `Identity` (accepted), `Refusal`, `Challenge` (MQTT 5 with an Authentication Method), None: no opinion. When
    nobody has one, the client is anonymous: accepted where the listener allows it, else refused (0x87).
    Order: file order, one after another; a listener may narrow who is asked.
    Sync or async: either. While a coroutine runs the client is not read; all together have `authentication_timeout_s`.
    Cost: per CONNECT. On exception or late: refused (0x80, 0x88); when too many wait for answers: 0x89.
    """


@_hookspec(firstresult=True)
def continue_authentication(
    client: ClientView, auth: Auth
) -> Identity | Refusal | Challenge | Awaitable[Identity | Refusal | Challenge | None] | None:
    """Go on with an exchange of AUTH packets, or begin re-authentication (MQTT 5 §4.12).

    When: an AUTH came, with 0x18 in an exchange or 0x19 to authenticate again.
    Answer: as `authenticate`; None from everybody refuses (0x87).
    Order: file order, one after another; also those that did not begin the exchange, so look at the method.
    Sync or async: either, as `authenticate`.
    Cost: per AUTH. On exception or late: refused (0x80; 0x88, 0x83 when connected), which ends the connection.
    """


@_hookspec(firstresult=True)
def authorize_subscribe(
    client: ClientView, topic_filter: str, qos: int
) -> bool | int | Awaitable[bool | int | None] | None:
    """Say whether a client may subscribe.

    When: for each filter of a SUBSCRIBE that the identity's permissions do not deny; nothing is subscribed before all
    filters are decided. topic_filter: of a shared subscription the one behind the share name.
    Answer: True; False (0x87); a reason code of SUBACK to answer with (0, 1, 2 grant at most that QoS); None.
    Order: file order, first answer; nobody has one: allowed.
    Sync or async: either; while a coroutine runs, the client is not read; packets keep their order.
    Cost: per filter. On exception or late: refused (0x80, 0x83).
    """


@_hookspec(firstresult=True)
def authorize_publish(client: ClientView, topic: str, qos: int, retain: bool) -> bool | int | None:
    """Say whether a client may publish.

    When: for every PUBLISH that the identity's permissions do not deny, for the will at CONNECT, and when it goes out
    (then the client may have no connection any more). topic: after aliases.
    Answer: True; False (0x87); a reason code of PUBACK; None. Where no acknowledgement can say so (below MQTT 5, and
    QoS 0) a refused client is disconnected, unless `refused_publish = "drop"`.
    Order: file order, first answer; nobody has one: allowed.
    Sync or async: plain function, on the packet path.
    Cost: one Python call a message while a plugin implements it. On exception: refused (0x80).
    """


@_hookspec(firstresult=True)
def authorize_deliver(client: ClientView, message: Message) -> bool | None:
    """Say whether a message may go to a client that subscribed to it.

    When: a message is about to be sent to a client, queued and retained ones included. Answer: False drops it (counted
    as not_authorized), True and None deliver. Order: file order, first answer.
    Sync or async: plain function, on the packet path. Cost: one Python call a message and recipient while a plugin
    implements it. On exception: dropped.
    """


# --- transform --------------------------------------------------------------------------------------------------------


@_hookspec
def transform_publish(client: ClientView, message: Message) -> PublishChange | None:
    """Change a message before it is authorised again and routed.

    When: for every PUBLISH of a client, after it was allowed. Answer: `PublishChange` with what is to be different, or
    None. A new topic is checked for rights again. Order: file order, folded.
    Sync or async: plain function, on the packet path. Cost: one Python call a message while a plugin implements it.
    On exception: the message is refused (0x80).
    """


# --- observation ------------------------------------------------------------------------------------------------------


@_hookspec
def observe(events: Sequence[Event]) -> Awaitable[None] | None:
    """See what happened.

    When: in batches, soon after a turn of the event loop, in order. Answer: none.
    Order: none between plugins; one plugin sees one batch at a time.
    Sync or async: either. A plugin that is slow has a queue of its own (`events_queued_maximum`); what does not fit is
    dropped and counted. Cost: events are made only while somebody observes. On exception: counted and logged.
    """
