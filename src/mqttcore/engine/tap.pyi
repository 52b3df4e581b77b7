from collections.abc import Callable

from typing_extensions import disjoint_base

from mqttcore.engine.core import Core
from mqttcore.engine.message import Message
from mqttcore.engine.subscriber import Subscriber

@disjoint_base
class Tap(Subscriber):
    def __init__(
        self,
        core: Core,
        on_message: Callable[[], object],
        *,
        messages_maximum: int,
        bytes_maximum: int,
        pauses: bool = False,
    ) -> None: ...
    @property
    def pauses(self) -> bool: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def queued(self) -> int: ...
    @property
    def taken(self) -> int: ...
    def close(self) -> None: ...
    @property
    def bytes_held(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    def take(self, limit: int = 0) -> list[Message]: ...
