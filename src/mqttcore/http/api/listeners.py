"""Listeners: their state, and having them accept or not."""

from typing import TYPE_CHECKING

import msgspec

from mqttcore.http.api.operation import ApiError, Call, Operation
from mqttcore.http.keys import Role

if TYPE_CHECKING:
    from mqttcore.broker import Broker, ListenerInfo

__all__ = ["operations"]


class ListenerShown(msgspec.Struct, frozen=True):
    """A listener. addresses: host and port, or a path; of a stopped one, those it had.

    connections_maximum 0: no limit of its own. takes_clients: MQTT is spoken there, in WebSocket at least.
    """

    name: str
    protocol: str
    is_listening: bool
    addresses: list[str]
    has_tls: bool
    takes_clients: bool
    connections: int
    connections_maximum: int
    refused: int


class ListenerList(msgspec.Struct, frozen=True):
    """Listeners in the order of the configuration."""

    listeners: list[ListenerShown]


class ListenerStop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the connections that it has are closed too; else they stay."""

    close_connections: bool = False


class ListenerStopped(msgspec.Struct, frozen=True):
    """The listener as it is now. disconnected: clients whose connections were closed."""

    listener: ListenerShown
    disconnected: int


def _shown(one: "ListenerInfo") -> ListenerShown:
    places = [
        host if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in one.addresses
    ]
    return ListenerShown(
        name=one.name,
        protocol=one.protocol,
        is_listening=one.is_listening,
        addresses=places,
        has_tls=one.has_tls,
        takes_clients=one.takes_clients,
        connections=one.connections,
        connections_maximum=one.connections_maximum,
        refused=one.refused,
    )


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on listeners."""

    def existing(name: str) -> ListenerShown:
        for one in broker.listeners:
            if one.name == name:
                return _shown(one)
        raise ApiError(404, "there is no such listener")

    async def list_listeners(call: Call) -> ListenerList:
        return ListenerList([_shown(one) for one in broker.listeners])

    async def get_listener(call: Call) -> ListenerShown:
        return existing(call.path["name"])

    async def stop_listener(call: Call) -> ListenerStopped:
        name = existing(call.path["name"]).name
        disconnected = await broker.stop_listener(
            name, close_connections=call.body.close_connections, spares_last_http=True
        )
        return ListenerStopped(existing(name), disconnected)

    async def start_listener(call: Call) -> ListenerShown:
        name = existing(call.path["name"]).name
        try:
            await broker.start_listener(name)
        except OSError as error:
            raise ApiError(409, error.strerror or str(error)) from None
        return existing(name)

    one = "/listeners/{name}"
    return [
        Operation(
            method="GET",
            path="/listeners",
            role=Role.VIEWER,
            summary="List listeners",
            function=list_listeners,
            answer=ListenerList,
        ),
        Operation(
            method="GET",
            path=one,
            role=Role.VIEWER,
            summary="Show a listener",
            function=get_listener,
            answer=ListenerShown,
            errors=(404,),
        ),
        Operation(
            method="POST",
            path=f"{one}/stop",
            role=Role.ADMIN,
            summary="Have a listener accept no more; not the last that speaks HTTP",
            function=stop_listener,
            body=ListenerStop,
            answer=ListenerStopped,
            errors=(404, 409),
        ),
        Operation(
            method="POST",
            path=f"{one}/start",
            role=Role.ADMIN,
            summary="Have a listener accept again, at the address it had",
            function=start_listener,
            answer=ListenerShown,
            errors=(404, 409),
        ),
    ]
