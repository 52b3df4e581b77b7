from typing import Any

from typing_extensions import disjoint_base

from mqttcore.net.channel import TlsPipes
from mqttcore.net.proxy import ProxyInfo
from mqttcore.net.tls import TlsInfo

__pyx_capi__: dict[str, object]

@disjoint_base
class Gate:
    def __init__(self, listener: Any, pipes: TlsPipes) -> None: ...
    def start_tls(self) -> None: ...
    @property
    def tls_info(self) -> TlsInfo | None: ...
    @property
    def proxy(self) -> ProxyInfo | None: ...
    @property
    def stage(self) -> int: ...
