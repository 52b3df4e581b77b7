"""Authentication hooks that give prepared answers."""

from typing import Any

from mqttcore.engine.hooks import HookTable
from mqttcore.identity import Identity

ACCEPT = Identity("tester")


def answering(*answers: Any) -> HookTable:
    """Return hooks that give one answer after another, to CONNECT and to AUTH."""
    left = list(answers)

    def answer(client: object, packet: object) -> Any:
        return left.pop(0)

    return HookTable(authenticate=answer, continue_authentication=answer)
