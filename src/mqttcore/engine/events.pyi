from collections.abc import Callable, Iterable
from typing import Self

from typing_extensions import disjoint_base

from mqttcore.events import Event

__pyx_capi__: dict[str, object]
BITS: dict[type[Event], int]
REASONS: dict[int, str]
DROP_NAMES: tuple[str, ...]

@disjoint_base
class EventLog:
    def __new__(cls) -> Self: ...
    @property
    def dropped(self) -> int: ...
    def observe(
        self, kinds: Iterable[type[Event]], on_waiting: Callable[[], object] | None, waiting_maximum: int
    ) -> None: ...
    def take(self, time_ms: int) -> list[Event]: ...
    def put(self, event: Event) -> None: ...
