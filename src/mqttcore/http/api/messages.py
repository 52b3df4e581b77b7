"""Messages: published as the broker."""

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from mqttcore.errors import MqttCoreError
from mqttcore.http.api.mqtt_types import MessageGiven, TopicName, properties_of
from mqttcore.http.api.operation import ApiError, Call, Operation
from mqttcore.http.keys import Role

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["operations"]


class Publish(MessageGiven, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message to publish: its payload as text, or in Base64, not both."""

    topic: TopicName
    retain: bool = False


class PublishMany(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages to publish, in this order."""

    messages: Annotated[list[Publish], Meta(min_length=1, max_length=1000)]


class Published(msgspec.Struct, frozen=True):
    """How many subscribers it reached. error: why it was not published."""

    reached: int
    error: str | None = None


class PublishedMany(msgspec.Struct, frozen=True):
    """One result for each message."""

    results: list[Published]


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on messages."""

    async def put_out(given: Publish) -> int:
        return await broker.publish(
            given.topic, given.payload_bytes(), qos=given.qos, retain=given.retain, properties=properties_of(given)
        )

    async def publish(call: Call) -> Published:
        return Published(await put_out(call.body))

    async def publish_many(call: Call) -> PublishedMany:
        results = []
        for given in call.body.messages:
            try:
                results.append(Published(await put_out(given)))
            except (ApiError, MqttCoreError, ValueError) as error:
                results.append(Published(0, str(error)))
        return PublishedMany(results)

    return [
        Operation(
            method="POST",
            path="/publish",
            role=Role.OPERATOR,
            summary="Publish a message",
            function=publish,
            body=Publish,
            answer=Published,
            errors=(409,),
        ),
        Operation(
            method="POST",
            path="/publish/bulk",
            role=Role.OPERATOR,
            summary="Publish messages, each for itself",
            function=publish_many,
            body=PublishMany,
            answer=PublishedMany,
        ),
    ]
