from typing import Literal, final

from typing_extensions import Buffer

from mqttcore.codec.packets import Packet

def decode(
    data: Buffer,
    version: int,
    *,
    maximum_packet_size_bytes: int = 268435460,
    sender: Literal["client", "server"] | None = None,
) -> tuple[Packet | None, int]: ...
def encode(packet: Packet, version: int) -> bytes: ...

@final
class Decoder:
    def __init__(
        self,
        version: int = 4,
        *,
        maximum_packet_size_bytes: int = 268435460,
        sender: Literal["client", "server"] | None = None,
    ) -> None: ...
    version: int
    @property
    def rest_size_bytes(self) -> int: ...
    @property
    def decoded(self) -> list[Packet]: ...
    def feed(self, data: Buffer) -> list[Packet]: ...
