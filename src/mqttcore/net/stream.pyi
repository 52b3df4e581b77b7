import asyncio
from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.net.channel import TlsPipes

# An asyncio.Protocol by shape, not by inheritance.
@disjoint_base
class StreamConnection(Connection):
    def __init__(
        self,
        engine: Engine,
        listener: Any = None,
        peer: Any = None,
        *,
        when_closed: Callable[[StreamConnection], object] | None = None,
        pipes: TlsPipes | None = None,
    ) -> None: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def look_at_backlog(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, error: Exception | None = None) -> None: ...
    def abort(self) -> None: ...

@disjoint_base
class WebSocketStream(StreamConnection):
    def __init__(
        self,
        engine: Engine,
        listener: Any = None,
        peer: Any = None,
        *,
        upgraded: bytes,
        message_bytes_maximum: int,
        pings_per_s_maximum: int,
        tls_info: Any = None,
        proxy: Any = None,
        certified_name: str | None = None,
        is_counted: bool = False,
        when_closed: Callable[[StreamConnection], object] | None = None,
    ) -> None: ...
