"""Clients: who is there, and closing their connections. A client is there while it has a session."""

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from mqttcore.constants import ReasonCode
from mqttcore.http.api.mqtt_types import Text
from mqttcore.http.api.operation import (
    PAGE_BYTES,
    ApiError,
    Call,
    Operation,
    Page,
    decode_cursor,
    encode_cursor,
)
from mqttcore.http.keys import Role
from mqttcore.inspection import listing_place

if TYPE_CHECKING:
    from mqttcore.broker import Broker
    from mqttcore.client_services import ClientInfo

__all__ = ["ClientFilter", "ClientList", "ClientShown", "Clients", "operations"]

_LOOKED_AT_MAXIMUM = 20_000  # of one request
_IDS_AT_ONCE = 10_000  # a few milliseconds
_SHOWN_AT_ONCE = 500


class ClientShown(msgspec.Struct, frozen=True):
    """A client. address: host and port, a path, or null. session_expiry_s 4294967295: never. mount_point "": none."""

    client_id: str
    is_connected: bool
    user_name: str | None
    mount_point: str
    address: str | None
    protocol_version: int | None
    keep_alive_s: int | None
    connected_for_s: int | None
    session_expiry_s: int
    subscriptions: int
    in_flight: int
    awaiting_release: int
    queued: int
    queued_bytes: int
    dropped: int
    has_tls: bool


class ClientList(msgspec.Struct, frozen=True):
    """A page of clients, by client id. next_cursor: of the page after it; null: this is the last."""

    clients: list[ClientShown]
    next_cursor: str | None


class ClientFilter(Page, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which clients. A page of few matches may be short of `limit`, or empty, and have a next one all the same."""

    client_id_prefix: Text | None = None
    user_name: Text | None = None
    host: Text | None = None
    is_connected: bool | None = None


class Kick(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why, for clients that speak MQTT 5."""

    reason: Text | None = None


class KickMany(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom, and why, for clients that speak MQTT 5."""

    client_ids: Annotated[list[str], Meta(min_length=1, max_length=1000)]
    reason: Text | None = None


class Kicked(msgspec.Struct, frozen=True):
    """How many connections were closed, and which clients had none."""

    count: int
    missing: list[str]


def _shown(info: "ClientInfo") -> ClientShown:
    address: str | None
    match info.address:
        case (str(host), int(port), *_):
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case other:
            address = str(other) if other else None
    return ClientShown(
        client_id=info.client_id,
        is_connected=info.is_connected,
        user_name=info.user_name,
        mount_point=info.mount_point,
        address=address,
        protocol_version=info.protocol_version,
        keep_alive_s=info.keep_alive_s,
        connected_for_s=int(max(0.0, time.monotonic() - info.connected_s)) if info.is_connected else None,
        session_expiry_s=info.session_expiry_s,
        subscriptions=info.subscription_count,
        in_flight=info.in_flight,
        awaiting_release=info.awaiting_release,
        queued=info.queued,
        queued_bytes=info.queued_bytes,
        dropped=info.dropped,
        has_tls=info.tls is not None,
    )


def _matches(info: "ClientInfo", wanted: ClientFilter) -> bool:
    host = info.address[0] if isinstance(info.address, tuple) else info.address
    return (
        (wanted.user_name is None or info.user_name == wanted.user_name)
        and (wanted.host is None or host == wanted.host)
        and (wanted.is_connected is None or info.is_connected == wanted.is_connected)
    )


class Clients:
    """Looks for clients, for one request at a time and in slices: there may be a million, and others wait meanwhile."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._turn = asyncio.Lock()

    async def page(self, wanted: ClientFilter) -> ClientList:
        """Return one page."""
        after = decode_cursor(wanted.cursor) or ""
        async with self._turn:
            return await self._page(wanted, after)

    async def _page(self, wanted: ClientFilter, after: str) -> ClientList:
        is_plain = wanted.user_name is None and wanted.host is None and wanted.is_connected is None
        least = (wanted.limit if is_plain else _LOOKED_AT_MAXIMUM) + 1
        looked_at = await self._first(least, after, wanted.client_id_prefix or "")
        found: list[ClientShown] = []
        room = PAGE_BYTES
        for number, (_, client_id) in enumerate(looked_at):
            if number == _LOOKED_AT_MAXIMUM or len(found) == wanted.limit or room <= 0:
                return ClientList(found, encode_cursor(looked_at[number - 1][0]))
            if number % _SHOWN_AT_ONCE == _SHOWN_AT_ONCE - 1:
                await asyncio.sleep(0)
            info = self._broker.client(client_id, with_subscriptions=False)
            if info is not None and _matches(info, wanted):
                found.append(_shown(info))
                room -= len(info.client_id) + len(info.user_name or "")
        return ClientList(found, None)

    async def _first(self, count: int, after: str, prefix: str) -> list[tuple[str, str]]:
        """Return the places and client ids of the *count* first behind *after*, in order."""
        ids = self._broker.client_ids()
        first: list[tuple[str, str]] = []
        for at in range(0, len(ids), _IDS_AT_ONCE):
            last = first[-1][0] if len(first) == count else None
            first += [
                (place, one)
                for one in ids[at : at + _IDS_AT_ONCE]
                if one.startswith(prefix) and (place := listing_place(one)) > after and (last is None or place < last)
            ]
            first.sort()  # what is in order already costs little
            del first[count:]
            await asyncio.sleep(0)
        return first


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on clients."""
    all_clients = Clients(broker)

    async def list_clients(call: Call) -> ClientList:
        return await all_clients.page(call.query)

    async def get_client(call: Call) -> ClientShown:
        info = broker.client(call.path["client_id"], with_subscriptions=False)
        if info is None:
            raise ApiError(404, "there is no such client")
        return _shown(info)

    async def kick_client(call: Call) -> None:
        code = ReasonCode.ADMINISTRATIVE_ACTION
        if not broker.disconnect(call.path["client_id"], code, call.body.reason):
            raise ApiError(404, "there is no such client, or it is not connected")

    async def kick_clients(call: Call) -> Kicked:
        code = ReasonCode.ADMINISTRATIVE_ACTION
        wanted = list(dict.fromkeys(call.body.client_ids))
        missing = [one for one in wanted if not broker.disconnect(one, code, call.body.reason)]
        return Kicked(len(wanted) - len(missing), missing)

    one = "/clients/{client_id}"
    return [
        Operation(
            method="GET",
            path="/clients",
            role=Role.VIEWER,
            summary="List clients",
            function=list_clients,
            query=ClientFilter,
            answer=ClientList,
            errors=(404,),
        ),
        Operation(
            method="GET",
            path=one,
            role=Role.VIEWER,
            summary="Show a client",
            function=get_client,
            answer=ClientShown,
            errors=(404,),
        ),
        Operation(
            method="POST",
            path=f"{one}/kick",
            role=Role.OPERATOR,
            summary="Close a client's connection",
            function=kick_client,
            body=Kick,
            errors=(404,),
        ),
        Operation(
            method="POST",
            path="/kick",
            role=Role.OPERATOR,
            summary="Close the connections of many clients; which had none",
            function=kick_clients,
            body=KickMany,
            answer=Kicked,
        ),
    ]
