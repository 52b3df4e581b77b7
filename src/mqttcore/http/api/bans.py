"""Bans: who may not connect."""

import time
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from mqttcore.bans import Ban, BanKind, host_of
from mqttcore.constants import ReasonCode
from mqttcore.http.api.mqtt_types import TEXT_PATTERN, Named
from mqttcore.http.api.operation import ApiError, Call, Operation
from mqttcore.http.keys import Role

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["operations"]

_Value = Annotated[
    Named, Meta(description="The client id or user name; of an address, also a network like `192.0.2.0/24`.")
]

_Reason = Annotated[str, Meta(max_length=1000, pattern=TEXT_PATTERN)]


class BanGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ban. for_s: how long it lasts; null: until it is lifted. reason: is told to clients that speak MQTT 5."""

    kind: BanKind
    value: _Value
    for_s: Annotated[int, Meta(ge=1, le=10_000_000_000)] | None = None
    reason: _Reason = ""


class BanList(msgspec.Struct, frozen=True):
    """Bans in force."""

    bans: list[Ban]


class Banned(msgspec.Struct, frozen=True):
    """The ban as it is kept, and how many connections it ended."""

    ban: Ban
    disconnected: int


class WhichBan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which."""

    kind: BanKind
    value: _Value


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on bans."""

    async def list_bans(call: Call) -> BanList:
        return BanList(sorted(broker.bans, key=lambda ban: (ban.kind, ban.value)))

    async def add_ban(call: Call) -> Banned:
        given: BanGiven = call.body
        until_s = None if given.for_s is None else int(time.time()) + given.for_s
        try:
            ban = broker.bans.add(Ban(kind=given.kind, value=given.value, until_s=until_s, reason=given.reason))
        except ValueError as error:
            raise ApiError(409, str(error)) from None
        return Banned(ban, _end_banned(broker, ban))

    async def remove_ban(call: Call) -> None:
        try:
            was_there = broker.bans.remove(call.query.kind, call.query.value)
        except ValueError:
            was_there = False
        if not was_there:
            raise ApiError(404, "there is no such ban")

    return [
        Operation(
            method="GET",
            path="/bans",
            role=Role.VIEWER,
            summary="List bans in force",
            function=list_bans,
            answer=BanList,
        ),
        Operation(
            method="POST",
            path="/bans",
            role=Role.OPERATOR,
            summary="Ban a client id, user name or address, and end the connections it has",
            function=add_ban,
            body=BanGiven,
            answer=Banned,
            errors=(409,),
        ),
        Operation(
            method="DELETE",
            path="/bans",
            role=Role.OPERATOR,
            summary="Lift a ban",
            function=remove_ban,
            query=WhichBan,
            errors=(404,),
        ),
    ]


def _end_banned(broker: "Broker", ban: Ban) -> int:
    ended = 0
    for client_id in [ban.value] if ban.kind == "client_id" else broker.client_ids():
        info = broker.client(client_id)
        if info is None or not info.is_connected:
            continue
        found = broker.bans.find(client_id=client_id, user_name=info.user_name, host=host_of(info.address))
        if found is not None:
            ended += broker.disconnect(client_id, ReasonCode.ADMINISTRATIVE_ACTION, ban.reason or None)
    return ended
