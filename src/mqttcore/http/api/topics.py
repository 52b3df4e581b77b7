"""Topics: the filters that sessions subscribe to."""

from typing import TYPE_CHECKING

import msgspec

from mqttcore.http.api.mqtt_types import Text
from mqttcore.http.api.operation import ApiError, Call, Operation, Page, decode_cursor, encode_cursor
from mqttcore.http.keys import Role

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["operations"]


class TopicShown(msgspec.Struct, frozen=True):
    """A Topic Filter, without `$share/name/`, and how many sessions subscribe to it.

    share_groups, shared_subscribers: groups that share it, and members of these. share_names: of at most 16 groups.
    is_complete: false when there are so many that not all were counted.
    """

    topic_filter: str
    subscribers: int
    share_groups: int
    shared_subscribers: int
    share_names: list[str]
    is_complete: bool


class TopicList(msgspec.Struct, frozen=True):
    """A page of filters, in no order; next_cursor: of the page after it; null: this is the last."""

    topics: list[TopicShown]
    next_cursor: str | None


class TopicSelection(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which filters. A page may be short of `limit`, or empty, and have a next one all the same."""

    prefix: Text = ""


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on topics."""

    async def list_topics(call: Call) -> TopicList:
        wanted: TopicSelection = call.query
        try:
            found, after = broker.topic_filters(
                prefix=wanted.prefix, limit=wanted.limit, after=decode_cursor(wanted.cursor)
            )
        except ValueError:
            raise ApiError(404, "there is no such page") from None
        shown = [
            TopicShown(
                topic_filter=one.topic_filter,
                subscribers=one.subscribers,
                share_groups=one.share_groups,
                shared_subscribers=one.shared_subscribers,
                share_names=list(one.share_names),
                is_complete=one.is_complete,
            )
            for one in found
        ]
        return TopicList(shown, None if after is None else encode_cursor(after))

    return [
        Operation(
            method="GET",
            path="/topics",
            role=Role.VIEWER,
            summary="List filters that are subscribed to, with how many subscribe",
            function=list_topics,
            query=TopicSelection,
            answer=TopicList,
            errors=(404,),
        )
    ]
