from typing import final

from mqttcore.engine.watchers import Watchers

PACKET_NAMES: tuple[str, ...]
REASONS: dict[int, str]

@final
class Tracer(Watchers): ...
