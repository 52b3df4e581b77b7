from collections.abc import Callable
from typing import Any, Never

from typing_extensions import disjoint_base

PENDING: object

@disjoint_base
class HookTable:
    def __init__(
        self,
        *args: Never,
        admit: Callable[..., Any] | None = None,
        authenticate: Callable[..., Any] | None = None,
        continue_authentication: Callable[..., Any] | None = None,
        authorize_subscribe: Callable[..., Any] | None = None,
        authorize_publish: Callable[..., Any] | None = None,
        authorize_deliver: Callable[..., Any] | None = None,
        transform_publish: Callable[..., Any] | None = None,
        on_failure: Callable[[str, Exception], object] | None = None,
    ) -> None: ...
    @property
    def mask(self) -> int: ...
    @property
    def admit(self) -> Callable[..., Any] | None: ...
    @property
    def authenticate(self) -> Callable[..., Any] | None: ...
    @property
    def continue_authentication(self) -> Callable[..., Any] | None: ...
    @property
    def authorize_subscribe(self) -> Callable[..., Any] | None: ...
    @property
    def authorize_publish(self) -> Callable[..., Any] | None: ...
    @property
    def authorize_deliver(self) -> Callable[..., Any] | None: ...
    @property
    def transform_publish(self) -> Callable[..., Any] | None: ...
    @property
    def on_failure(self) -> Callable[[str, Exception], object] | None: ...
