"""Topic handlers: what a plugin hangs on the topic tree, and what its function may answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mqttcore.engine.client_view import ClientView
    from mqttcore.engine.message import Message

__all__ = ["CONSUMED", "Consumed", "PublishChange", "Recipients", "TopicHandler"]


class Consumed:
    """The message was taken: it is acknowledged with *reason_code* (MQTT 5) and goes nowhere else."""

    __slots__ = ("reason_code",)

    def __init__(self, reason_code: int = 0) -> None:
        self.reason_code = int(reason_code)


CONSUMED: Final = Consumed()


@dataclass(frozen=True, slots=True)
class Recipients:
    """The message goes to these clients, whatever they subscribed to, and to nobody else; it is not retained.

    qos_maximum: delivered at the message's QoS, at most this. stores_offline: a recipient that has a session but no
    connection gets it later, if it is to be delivered at QoS 1 or 2; else only connected recipients get it. None: when
    the publisher's own session outlives its connection.
    is_fixed: the answer depends on the topic alone. The engine then remembers it with the topic's route, and the next
    message to that topic costs no Python call until a session of such a client id is made or ends.
    topic: delivered under this name, None: its own.
    Clients that have no session are passed over; with nobody reached the message is acknowledged all the same (0x10 in
    MQTT 5). The publisher itself may be among them.
    """

    client_ids: Sequence[str]
    qos_maximum: int = 2
    stores_offline: bool | None = True
    is_fixed: bool = False
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class TopicHandler:
    """A function for the messages of clients to the topics of a filter.

    Asked for each PUBLISH of a client and for its will, after a Topic Alias was resolved, before the message is routed
    or retained; not for the broker's own messages. The function runs on the packet path: it must not wait.

    topic_filter: a Topic Filter without `$share`; a leading wildcard matches no `$` topics [MQTT-4.7.2-1]. Clients may
    publish to a `$SYS/` topic if a handler takes the message, else not.
    is_authorized_by_itself: the handler decides who may publish there (`$SYS/uploadToken`): it is asked before the
    client's permissions and before all handlers that are not.
    """

    topic_filter: str
    function: Callable[[ClientView, Message], Consumed | Recipients | None]
    is_authorized_by_itself: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishChange:
    """What `transform_publish` makes different; None: as it is. properties: `PropertyId` -> value, replaces all."""

    topic: str | None = None
    payload: bytes | None = None
    qos: int | None = None
    retain: bool | None = None
    properties: Mapping[int, Any] | None = field(default=None)
