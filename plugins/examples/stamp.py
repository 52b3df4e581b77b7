"""Stamps messages with a User Property that says who published them, and lets nobody forge it."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import ClientView, Message, PropertyId, PublishChange, hookimpl


class Stamp:
    """Adds a User Property with the publisher's client id to every message."""

    @dataclass(frozen=True)
    class Config:
        """How it is called."""

        name: Annotated[str, Meta(min_length=1, description="Name of the User Property.")] = "publisher"

    def __init__(self, config: Config) -> None:
        self._name = config.name

    @hookimpl
    def transform_publish(self, client: ClientView, message: Message) -> PublishChange | None:
        """Replace what the client itself wrote under that name."""
        properties = message.properties
        others = [pair for pair in properties.get(PropertyId.USER_PROPERTY, ()) if pair[0] != self._name]
        return PublishChange(
            properties={**properties, PropertyId.USER_PROPERTY: [*others, (self._name, client.client_id)]}
        )
