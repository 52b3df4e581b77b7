from typing_extensions import Buffer, disjoint_base

from mqttcore.engine.network_connection import NetworkConnection

__pyx_capi__: dict[str, object]

@disjoint_base
class Inlet(NetworkConnection):
    def receive(self, data: Buffer) -> None: ...
