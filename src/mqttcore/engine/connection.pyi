from typing_extensions import disjoint_base

from mqttcore.engine.incoming import Incoming

@disjoint_base
class Connection(Incoming):
    @property
    def authentication_method(self) -> str | None: ...
    def take_output(self) -> bytes: ...
    def refuse(self, reason_code: int, reason: str | None = None) -> None: ...
