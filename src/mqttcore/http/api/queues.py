"""What waits for a client and what is on its way to it, message by message."""

from typing import TYPE_CHECKING

import msgspec

from mqttcore.engine.message import Message
from mqttcore.http.api.operation import ApiError, Call, Operation, Page, decode_cursor, encode_cursor
from mqttcore.http.keys import Role

if TYPE_CHECKING:
    from mqttcore.broker import Broker
    from mqttcore.client_services import ClientInfo

__all__ = ["operations"]

_PAYLOADS_BYTES_MAXIMUM = 1024 * 1024  # of one page


class PayloadWish(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which part, and whether with payloads: as many as 1 MiB takes, from the first message on; for operators."""

    payloads: bool = False


class QueuedShown(msgspec.Struct, frozen=True, kw_only=True):
    """A message that waits. Topic, publisher, times and payload of one that cannot be read from the store are null.

    publisher: client id; null: the broker itself. qos, retain: of the delivery. size_bytes: what it counts to limits.
    published_ms: since 1970 (UTC). expires_in_s null: never. is_in_memory: it is not in the store only. is_kept_back:
    it goes only when a plugin lets it. payload_base64: null when it was not asked for, or the page had no room for it.
    """

    topic: str | None
    publisher: str | None
    qos: int
    retain: bool
    size_bytes: int
    payload_size_bytes: int | None
    payload_base64: bytes | None
    published_ms: int | None
    queued_for_s: float
    expires_in_s: float | None
    is_in_memory: bool
    is_kept_back: bool


class QueueShown(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a queue: what is kept back, then QoS 1 and 2, then QoS 0, each oldest first.

    queued, queued_bytes, kept_back: of the whole queue; kept_back is part of queued.
    """

    messages: list[QueuedShown]
    next_cursor: str | None
    queued: int
    queued_bytes: int
    kept_back: int


class InFlightShown(msgspec.Struct, frozen=True, kw_only=True):
    """A message of QoS 1 or 2 that was sent. awaits: `PUBACK`, `PUBREC` or `PUBCOMP`; with that, the message is gone.

    The rest as in the queue.
    """

    packet_id: int
    awaits: str
    topic: str | None
    publisher: str | None
    qos: int
    retain: bool
    size_bytes: int
    payload_size_bytes: int | None
    payload_base64: bytes | None
    published_ms: int | None
    expires_in_s: float | None


class InFlightList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what is in flight, in order of sending.

    in_flight: of all pages. awaiting_release: packet ids of QoS 2 messages from the client that wait for its PUBREL.
    """

    messages: list[InFlightShown]
    next_cursor: str | None
    in_flight: int
    awaiting_release: list[int]


class _Payloads:
    """The payloads of one page, as long as there is room."""

    def __init__(self, is_wanted: bool) -> None:
        self._left = _PAYLOADS_BYTES_MAXIMUM if is_wanted else -1

    def of(self, message: Message | None) -> bytes | None:
        """Return a payload, None when there is no room; nor for those behind it."""
        if message is None or self._left < 0:
            return None
        payload = message.payload
        self._left -= len(payload)
        return payload if self._left >= 0 else None


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on queues."""

    def existing(call: Call) -> "ClientInfo":
        info = broker.client(call.path["client_id"], with_subscriptions=False)
        if info is None:
            raise ApiError(404, "there is no such client")
        return info

    def wish_of(call: Call) -> PayloadWish:
        wanted: PayloadWish = call.query
        if wanted.payloads and call.role < Role.OPERATOR:
            raise ApiError(403, "to see payloads takes a key of an operator")
        return wanted

    async def list_queue(call: Call) -> QueueShown:
        wanted = wish_of(call)
        client = existing(call)
        try:
            found, after = await broker.read_queued_messages(
                client.client_id, limit=wanted.limit, after=decode_cursor(wanted.cursor)
            )
        except ValueError:
            raise ApiError(404, "there is no such page") from None
        payloads = _Payloads(wanted.payloads)
        shown = [
            QueuedShown(
                topic=None if one.message is None else one.message.topic,
                publisher=None if one.message is None else one.message.client_id,
                qos=one.qos,
                retain=one.retain,
                size_bytes=one.size_bytes,
                payload_size_bytes=None if one.message is None else one.message.payload_size_bytes,
                payload_base64=payloads.of(one.message),
                published_ms=_published_ms(one.message),
                queued_for_s=one.queued_for_s,
                expires_in_s=one.expires_in_s,
                is_in_memory=one.is_in_memory,
                is_kept_back=one.is_kept_back,
            )
            for one in found
        ]
        return QueueShown(
            messages=shown,
            next_cursor=None if after is None else encode_cursor(after),
            queued=client.queued,
            queued_bytes=client.queued_bytes,
            kept_back=broker.backlog(client.client_id),
        )

    async def list_in_flight(call: Call) -> InFlightList:
        wanted = wish_of(call)
        client = existing(call)
        try:
            found, after = broker.in_flight_messages(
                client.client_id, limit=wanted.limit, after=decode_cursor(wanted.cursor)
            )
        except ValueError:
            raise ApiError(404, "there is no such page") from None
        payloads = _Payloads(wanted.payloads)
        shown = [
            InFlightShown(
                packet_id=one.packet_id,
                awaits=one.awaits,
                topic=None if one.message is None else one.message.topic,
                publisher=None if one.message is None else one.message.client_id,
                qos=one.qos,
                retain=one.retain,
                size_bytes=one.size_bytes,
                payload_size_bytes=None if one.message is None else one.message.payload_size_bytes,
                payload_base64=payloads.of(one.message),
                published_ms=_published_ms(one.message),
                expires_in_s=one.expires_in_s,
            )
            for one in found
        ]
        return InFlightList(
            messages=shown,
            next_cursor=None if after is None else encode_cursor(after),
            in_flight=client.in_flight,
            awaiting_release=broker.awaiting_release(client.client_id),
        )

    return [
        Operation(
            method="GET",
            path="/clients/{client_id}/queue",
            role=Role.VIEWER,
            summary="List the messages that wait for a client",
            function=list_queue,
            query=PayloadWish,
            answer=QueueShown,
            errors=(404,),
        ),
        Operation(
            method="GET",
            path="/clients/{client_id}/in-flight",
            role=Role.VIEWER,
            summary="List the messages that were sent to a client and are not completed",
            function=list_in_flight,
            query=PayloadWish,
            answer=InFlightList,
            errors=(404,),
        ),
    ]


def _published_ms(message: Message | None) -> int | None:
    return None if message is None else message.received_ms or None
