from typing import Never

from typing_extensions import disjoint_base

from mqttcore.engine.exchanges import Exchanges

@disjoint_base
class Session(Exchanges):
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def connected_ms(self) -> int: ...
    @property
    def epoch(self) -> int: ...
