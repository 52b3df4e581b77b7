from typing import Never, final

PACKET_NAMES: tuple[str, ...]
REASONS: dict[int, str]

@final
class Traced: ...

@final
class Tracer:
    def __init__(self, *args: Never) -> None: ...
