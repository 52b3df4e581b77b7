from typing_extensions import disjoint_base

from mqttcore.engine.backlog import Backlog

@disjoint_base
class Exchanges(Backlog):
    @property
    def in_flight(self) -> int: ...
    @property
    def awaiting_release(self) -> int: ...
