from collections.abc import Callable
from typing import final

from mqttcore.engine.client_view import ClientView
from mqttcore.engine.message import Message
from mqttcore.engine.subscriber import Subscriber
from mqttcore.handlers import Consumed, Recipients

REFUSED: Consumed

@final
class Handler(Subscriber):
    def __init__(
        self,
        function: Callable[[ClientView, Message], Consumed | Recipients | None],
        *,
        is_authorized_by_itself: bool = False,
        order: int = 0,
        owner: str = "",
        on_failure: Callable[[Exception], object] | None = None,
    ) -> None: ...
    @property
    def function(self) -> Callable[[ClientView, Message], Consumed | Recipients | None]: ...
    @property
    def is_authorized_by_itself(self) -> bool: ...
    @property
    def order(self) -> int: ...
    @property
    def owner(self) -> str: ...
    @property
    def calls(self) -> int: ...
    @property
    def failures(self) -> int: ...
