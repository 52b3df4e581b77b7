from collections.abc import Callable
from typing import Any, Never

from typing_extensions import disjoint_base

@disjoint_base
class HookTable:
    def __init__(
        self,
        *args: Never,
        authenticate: Callable[..., Any] | None = None,
        continue_authentication: Callable[..., Any] | None = None,
    ) -> None: ...
    @property
    def mask(self) -> int: ...
    @property
    def authenticate(self) -> Callable[..., Any] | None: ...
    @property
    def continue_authentication(self) -> Callable[..., Any] | None: ...
