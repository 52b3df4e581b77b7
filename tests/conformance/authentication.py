"""Authentication hooks that give prepared answers."""

from typing import Any

from mqttcore.engine.hooks import HookTable


def answering(*answers: Any) -> HookTable:
    """Return hooks that give one answer after another, to CONNECT and to AUTH."""
    left = list(answers)

    def answer(connection: object, packet: object) -> Any:
        return left.pop(0)

    return HookTable(authenticate=answer, continue_authentication=answer)
