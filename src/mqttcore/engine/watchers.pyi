from typing import Never, final

from typing_extensions import disjoint_base

__pyx_capi__: dict[str, object]

@final
class Traced: ...

@disjoint_base
class Watchers:
    def __init__(self, *args: Never) -> None: ...
