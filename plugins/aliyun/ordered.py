"""Plugin `ordered`: a client asks that its messages keep their order on their way through sinks (ALIYUN: ordered)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mqttcore import CONSUMED, Consumed, ReasonCode, TopicHandler, hookimpl

from .settings import OrderedConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqttcore import Broker, ClientView, Message

__all__ = ["Ordered"]


class Ordered:
    """Takes `{"order":"true"}` on `$SYS/enableOrderMsg`; from then on the client's messages carry its id as their key.

    Messages with the same ordering key reach sinks in order: a sink puts them into one partition. It holds for the
    connection; a client asks again after each CONNECT.
    """

    name = "ordered"
    Config = OrderedConfig

    def __init__(self, config: OrderedConfig) -> None:
        self._topic = config.topic
        self._broker: Broker | None = None

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Iterable[TopicHandler]:
        """Hang on the control topic, which every client may use."""
        self._broker = broker
        return [TopicHandler(self._topic, self._switch, is_authorized_by_itself=True)]

    def _switch(self, client: ClientView, message: Message) -> Consumed:
        try:
            asked = json.loads(message.payload)["order"]
        except (ValueError, TypeError, KeyError, RecursionError):
            # Below MQTT 5 it is acknowledged: refusing would close the connection.
            return Consumed(ReasonCode.PAYLOAD_FORMAT_INVALID) if client.protocol_version == 5 else CONSUMED
        assert self._broker is not None
        is_on = asked is True or str(asked).lower() == "true"
        self._broker.set_ordering_key(client.client_id, client.client_id if is_on else None)
        return CONSUMED
