"""Turns clients away before anything dear is done for them: by the beginning of their client id."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import ClientView, Connect, ReasonCode, Refusal, hookimpl


class DenyPrefix:
    """Refuses clients whose ids begin with one of the prefixes."""

    @dataclass(frozen=True)
    class Config:
        """Which clients."""

        prefixes: Annotated[tuple[str, ...], Meta(description="Beginnings of client ids that are refused.")] = ()

    def __init__(self, config: Config) -> None:
        self._prefixes = config.prefixes

    @hookimpl
    def admit(self, client: ClientView, connect: Connect) -> Refusal | None:
        """Refuse as a ban does."""
        return Refusal(ReasonCode.BANNED) if connect.client_id.startswith(self._prefixes) else None
