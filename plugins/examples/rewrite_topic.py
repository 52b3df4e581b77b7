"""Moves messages to other topics: what clients publish below one prefix is routed below another.

The new topic is checked against the client's permissions again: nobody gets where it may not.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import ClientView, Message, PublishChange, hookimpl


class RewriteTopic:
    """Gives topics below `old` another beginning."""

    @dataclass(frozen=True)
    class Config:
        """What becomes what."""

        old: Annotated[str, Meta(min_length=1, description="Beginning of the topics that are moved.")]
        new: Annotated[str, Meta(min_length=1, description="What they begin with instead.")]

    def __init__(self, config: Config) -> None:
        self._old, self._new = config.old, config.new

    @hookimpl
    def transform_publish(self, client: ClientView, message: Message) -> PublishChange | None:
        """Change the topic, nothing else."""
        if not message.topic.startswith(self._old):
            return None
        return PublishChange(topic=self._new + message.topic.removeprefix(self._old))
