"""Sends messages back: what a client publishes below `echo/` comes to itself alone, subscribed or not."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import Broker, ClientView, Message, Recipients, TopicHandler, hookimpl


class Echo:
    """Delivers messages below one topic to their publishers."""

    @dataclass(frozen=True)
    class Config:
        """Where."""

        topic: Annotated[str, Meta(pattern="^[^+#]+$", description="Topic below which messages come back.")] = "echo"

    def __init__(self, config: Config) -> None:
        self._topic = config.topic

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Iterable[TopicHandler]:
        """Hang on the topic tree: nothing else costs a call."""
        return [TopicHandler(f"{self._topic}/#", self._answer)]

    def _answer(self, client: ClientView, message: Message) -> Recipients:
        return Recipients((client.client_id,))
