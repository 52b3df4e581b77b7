"""Retained messages."""

import asyncio
import heapq
from typing import TYPE_CHECKING

import msgspec

from mqttcore.http.api.mqtt_types import MessageGiven, MessageShown, TopicFilter, TopicName, properties_of, shown
from mqttcore.http.api.operation import ApiError, Call, Operation, Page, decode_cursor, encode_cursor, fitting
from mqttcore.http.keys import Role
from mqttcore.inspection import listing_place

if TYPE_CHECKING:
    from mqttcore.broker import Broker
    from mqttcore.engine.message import Message

__all__ = ["operations"]


class RetainedFilter(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which; a leading wildcard does not match topics that begin with `$`."""

    topic_filter: TopicFilter = "#"


class RetainedList(msgspec.Struct, frozen=True):
    """A page of retained messages, by topic; it ends early when there is a MiB of them."""

    messages: list[MessageShown]
    next_cursor: str | None


class OfTopic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which."""

    topic: TopicName


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on retained messages."""

    async def list_retained(call: Call) -> RetainedList:
        wanted: RetainedFilter = call.query
        after = decode_cursor(wanted.cursor)
        found: list[Message] = []
        for messages in broker.retained_slices(wanted.topic_filter):
            found += (one for one in messages if after is None or listing_place(one.topic) > after)
            found = heapq.nsmallest(wanted.limit + 1, found, key=lambda one: listing_place(one.topic))
            await asyncio.sleep(0)  # others are served meanwhile
        page = found[: fitting((len(one.topic) + len(one.payload) for one in found), wanted.limit)]
        following = None if len(page) == len(found) else encode_cursor(listing_place(page[-1].topic))
        return RetainedList([shown(one) for one in page], following)

    async def get_retained(call: Call) -> MessageShown:
        message = broker.retained_message(call.query.topic)
        if message is None:
            raise ApiError(404, "there is no retained message of this topic")
        return shown(message)

    async def set_retained(call: Call) -> None:
        payload = call.body.payload_bytes()
        if not payload:
            raise ApiError(409, "a retained message has a payload; DELETE removes it")
        broker.set_retained(call.query.topic, payload, qos=call.body.qos, properties=properties_of(call.body))

    async def delete_retained(call: Call) -> None:
        if not broker.delete_retained(call.query.topic):
            raise ApiError(404, "there is no retained message of this topic")

    one = "/retained/message"
    return [
        Operation(
            method="GET",
            path="/retained",
            role=Role.VIEWER,
            summary="List retained messages",
            function=list_retained,
            query=RetainedFilter,
            answer=RetainedList,
            errors=(404,),
        ),
        Operation(
            method="GET",
            path=one,
            role=Role.VIEWER,
            summary="Show the retained message of a topic",
            function=get_retained,
            query=OfTopic,
            answer=MessageShown,
            errors=(404,),
        ),
        Operation(
            method="PUT",
            path=one,
            role=Role.OPERATOR,
            summary="Keep a retained message without publishing it",
            function=set_retained,
            query=OfTopic,
            body=MessageGiven,
            errors=(409,),
        ),
        Operation(
            method="DELETE",
            path=one,
            role=Role.OPERATOR,
            summary="Remove the retained message of a topic",
            function=delete_retained,
            query=OfTopic,
            errors=(404,),
        ),
    ]
