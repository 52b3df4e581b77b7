"""Subscriptions of a client or to a filter, and making and removing them on a client's behalf."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from mqttcore.http.api.mqtt_types import Qos, TopicFilter
from mqttcore.http.api.operation import ApiError, Call, Operation, Page, decode_cursor, encode_cursor, fitting
from mqttcore.http.keys import Role
from mqttcore.inspection import listing_place
from mqttcore.services import SubscriptionInfo

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["operations"]


class SubscriptionShown(msgspec.Struct, frozen=True):
    """A subscription. subscription_id 0: none."""

    client_id: str
    topic_filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    retain_handling: int
    subscription_id: int


class SubscriptionPage(msgspec.Struct, frozen=True):
    """A page of subscriptions, by client id or filter; it ends early when there is a MiB of them.

    next_cursor: of the page after it; null: this is the last.
    """

    subscriptions: list[SubscriptionShown]
    next_cursor: str | None


class Subscribe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A subscription to make."""

    topic_filter: TopicFilter
    qos: Qos = 2
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: Annotated[int, Meta(ge=0, le=2)] = 0
    subscription_id: Annotated[int, Meta(ge=0, le=268_435_455)] = 0


class Granted(msgspec.Struct, frozen=True):
    """What a SUBACK would say: the QoS, or a reason code of 128 and above."""

    reason_code: int


class OfFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which."""

    topic_filter: TopicFilter


class PageOfFilter(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which, and what part of them."""

    topic_filter: TopicFilter


def _shown(one: SubscriptionInfo) -> SubscriptionShown:
    options = one.options
    return SubscriptionShown(
        one.client_id,
        one.topic_filter,
        one.qos,
        bool(options & 4),
        bool(options & 8),
        options >> 4 & 3,
        one.subscription_id,
    )


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on subscriptions."""

    def page_of(wanted: Page, name: Callable[[SubscriptionInfo], str], **of: str) -> SubscriptionPage:
        found = broker.subscriptions(**of, after=decode_cursor(wanted.cursor), limit=wanted.limit + 1)
        page = found[: fitting((len(one.client_id) + len(one.topic_filter) for one in found), wanted.limit)]
        following = None if len(page) == len(found) else encode_cursor(listing_place(name(page[-1])))
        return SubscriptionPage([_shown(one) for one in page], following)

    def existing(call: Call) -> str:
        client_id = call.path["client_id"]
        if broker.client(client_id, with_subscriptions=False) is None:
            raise ApiError(404, "there is no such client")
        return client_id

    async def list_subscriptions(call: Call) -> SubscriptionPage:
        return page_of(call.query, lambda one: one.client_id, topic_filter=call.query.topic_filter)

    async def list_subscriptions_of_client(call: Call) -> SubscriptionPage:
        return page_of(call.query, lambda one: one.topic_filter, client_id=existing(call))

    async def subscribe_client(call: Call) -> Granted:
        given: Subscribe = call.body
        code = broker.subscribe_client(
            existing(call),
            given.topic_filter,
            given.qos,
            no_local=given.no_local,
            retain_as_published=given.retain_as_published,
            retain_handling=given.retain_handling,
            subscription_id=given.subscription_id,
        )
        return Granted(code)

    async def unsubscribe_client(call: Call) -> None:
        if not broker.unsubscribe_client(existing(call), call.query.topic_filter):
            raise ApiError(404, "the client has no such subscription")

    of_client = "/clients/{client_id}/subscriptions"
    return [
        Operation(
            method="GET",
            path="/subscriptions",
            role=Role.VIEWER,
            summary="List the subscriptions to exactly one filter",
            function=list_subscriptions,
            query=PageOfFilter,
            answer=SubscriptionPage,
            errors=(404,),
        ),
        Operation(
            method="GET",
            path=of_client,
            role=Role.VIEWER,
            summary="List the subscriptions of a client",
            function=list_subscriptions_of_client,
            query=Page,
            answer=SubscriptionPage,
            errors=(404,),
        ),
        Operation(
            method="POST",
            path=of_client,
            role=Role.OPERATOR,
            summary="Subscribe on a client's behalf, without asking for permission",
            function=subscribe_client,
            body=Subscribe,
            answer=Granted,
            errors=(404,),
        ),
        Operation(
            method="DELETE",
            path=of_client,
            role=Role.OPERATOR,
            summary="Unsubscribe on a client's behalf",
            function=unsubscribe_client,
            query=OfFilter,
            errors=(404,),
        ),
    ]
