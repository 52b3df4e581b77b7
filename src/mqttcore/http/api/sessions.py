"""Sessions: ended by hand. What they hold is shown with their client."""

from typing import TYPE_CHECKING

from mqttcore.http.api.clients import ClientFilter, ClientList, Clients
from mqttcore.http.api.operation import ApiError, Call, Operation
from mqttcore.http.keys import Role

if TYPE_CHECKING:
    from mqttcore.broker import Broker

__all__ = ["operations"]


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on sessions."""
    clients = Clients(broker)

    async def list_sessions(call: Call) -> ClientList:
        return await clients.page(call.query)

    async def discard_session(call: Call) -> None:
        if not broker.discard_session(call.path["client_id"]):
            raise ApiError(404, "there is no such session")

    return [
        Operation(
            method="GET",
            path="/sessions",
            role=Role.VIEWER,
            summary="List sessions, each with its client",
            function=list_sessions,
            query=ClientFilter,
            answer=ClientList,
            errors=(404,),
        ),
        Operation(
            method="DELETE",
            path="/sessions/{client_id}",
            role=Role.OPERATOR,
            summary="End a session with everything it holds, and its connection",
            function=discard_session,
            errors=(404,),
        ),
    ]
