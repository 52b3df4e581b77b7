from typing_extensions import disjoint_base

from mqttcore.engine.session_record import SessionRecord

@disjoint_base
class Backlog(SessionRecord):
    @property
    def queued(self) -> int: ...
    @property
    def queued_bytes_held(self) -> int: ...
