from collections.abc import Callable
from typing import Any, Literal, final

from mqttcore.engine.subscriber import Subscriber
from mqttcore.trace_entries import TraceEntry

@final
class Watch(Subscriber):
    def __init__(
        self,
        subject: Literal["client_id", "address", "topic_filter"],
        value: str,
        put: Callable[[TraceEntry], object],
        on_failure: Callable[[Exception], object],
        *,
        covers: Callable[[Any], bool] | None = None,
        payload_bytes: int = 0,
        entries_per_s: int = 0,
    ) -> None: ...
    @property
    def subject(self) -> int: ...
    @property
    def value(self) -> str: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def is_over(self) -> bool: ...
    @property
    def skipped(self) -> int: ...
