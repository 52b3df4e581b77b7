from collections.abc import Callable
from typing import Any, final

from typing_extensions import disjoint_base

from mqttcore.engine.authorizer import Authorizer
from mqttcore.engine.client_view import ClientView
from mqttcore.engine.handler import Handler
from mqttcore.engine.message import Message
from mqttcore.handlers import Consumed, Recipients

@final
class Remains: ...

@disjoint_base
class Dispatcher(Authorizer):
    def publish_bytes(
        self,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        properties: dict[int, Any] | None = None,
    ) -> int: ...
    def add_handler(
        self,
        topic_filter: bytes,
        function: Callable[[ClientView, Message], Consumed | Recipients | None],
        *,
        is_authorized_by_itself: bool = False,
        order: int = 0,
        owner: str = "",
        on_failure: Callable[[Exception], object] | None = None,
    ) -> Handler: ...
    def remove_handler(self, handler: Handler) -> None: ...
    def deliver(
        self,
        client_id: str,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        properties: dict[int, Any] | None = None,
        stores_offline: bool = True,
    ) -> bool: ...
    def release_held(self) -> None: ...
