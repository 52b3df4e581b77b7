from typing import Never

from typing_extensions import disjoint_base

__pyx_capi__: dict[str, object]

@disjoint_base
class Subscriber:
    def __init__(self, *args: Never, is_online: bool = False, **kwargs: Never) -> None: ...
    @property
    def is_online(self) -> bool: ...
    @property
    def kind(self) -> int: ...
