from typing import Self

from typing_extensions import disjoint_base

@disjoint_base
class Replay: ...

@disjoint_base
class Replays:
    def __new__(cls) -> Self: ...
