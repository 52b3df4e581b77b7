from typing_extensions import disjoint_base

@disjoint_base
class Outlet:
    @property
    def version(self) -> int: ...
