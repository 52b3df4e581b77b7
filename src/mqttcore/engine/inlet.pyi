from typing_extensions import Buffer, disjoint_base

from mqttcore.engine.network_connection import NetworkConnection

@disjoint_base
class Inlet(NetworkConnection):
    def receive(self, data: Buffer) -> None: ...
