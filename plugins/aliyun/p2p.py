"""Plugin `p2p`: messages to one client, by name, without a subscription (ALIYUN: P2P messages)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqttcore import Recipients, TopicHandler, hookimpl

from .settings import P2PConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqttcore import Broker, ClientView, Message

__all__ = ["P2P"]


class P2P:
    """Delivers `<parent>/p2p/<client id>` to that client and to nobody else.

    The answer depends on the topic alone, so the engine remembers it with the topic's route. Whether a message waits
    for a client that is away is the sender's matter: only when its own session persists.
    """

    name = "p2p"
    Config = P2PConfig

    def __init__(self, config: P2PConfig) -> None:
        self.word = config.word
        self.level = config.level
        self._stores_offline = None if config.stores_offline else False

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Iterable[TopicHandler]:
        """Hang one handler on `+/p2p/#`; rights are asked first, by the sender's identity."""
        return [TopicHandler("/".join(["+"] * (self.level - 1) + [self.word, "#"]), self._recipient)]

    def _recipient(self, client: ClientView, message: Message) -> Recipients | None:
        client_id = "/".join(message.topic.split("/")[self.level :])
        if not client_id:
            return None  # `<parent>/p2p`: a topic as any other
        return Recipients((client_id,), stores_offline=self._stores_offline, is_fixed=True)
