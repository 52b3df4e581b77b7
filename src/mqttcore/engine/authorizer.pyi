from typing import Any

from typing_extensions import disjoint_base

from mqttcore.engine.client_view import ClientView
from mqttcore.engine.connection import Connection
from mqttcore.engine.core import Core
from mqttcore.identity import Identity

FOREVER_S: float
OWNER_POLICIES: dict[str, int]
PENDING: object

@disjoint_base
class Subscribing: ...

@disjoint_base
class Authorizer(Core):
    @property
    def sys_for_anonymous(self) -> bool: ...
    def set_identity(self, client_id: str, identity: Identity) -> bool: ...
    def answer_subscribe(self, client: ClientView | Connection, answer: Any) -> None: ...
