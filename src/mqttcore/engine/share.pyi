from typing import Never, final

__pyx_capi__: dict[str, object]

@final
class ShareGroup:
    def __init__(self, *args: Never, **kwargs: Never) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def count(self) -> int: ...
