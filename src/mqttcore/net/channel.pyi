import ssl

from typing_extensions import disjoint_base

@disjoint_base
class TlsPipes:
    @property
    def is_empty(self) -> bool: ...

@disjoint_base
class TlsChannel:
    def __init__(self, pipes: TlsPipes, context: ssl.SSLContext) -> None: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def is_ended(self) -> bool: ...
    @property
    def server_name(self) -> str | None: ...
    @property
    def fault(self) -> str | None: ...
