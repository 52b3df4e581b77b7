"""Several plugins behind one callable: what the engine's hook table holds for a hook of the packet path.

One plugin alone is called by the engine itself, without anything between; its exceptions come back through the hook
table's `on_failure`. Two and more are called by a function made here, which knows who failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqttcore.constants import ReasonCode
from mqttcore.identity import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mqttcore.plugins.failures import Failures
    from mqttcore.plugins.hooks import Implementation

__all__ = ["fold_admit", "fold_first_answer"]


def fold_first_answer(
    implementations: Sequence[Implementation], failures: Failures, when_failing: Any
) -> Callable[..., Any]:
    """Return a callable that gives the first answer that is not None; *when_failing* is a raising plugin's."""
    calls = [(one, one.function) for one in implementations]

    def first_answer(*arguments: Any) -> Any:
        for implementation, function in calls:
            try:
                answer = function(*arguments)
            except Exception as error:
                failures.record(implementation.plugin, implementation.hook, error)
                return when_failing
            if answer is not None:
                return answer
        return None

    return first_answer


def fold_admit(implementations: Sequence[Implementation], failures: Failures) -> Callable[..., Refusal | None]:
    """Return a callable for `admit`, which is rare enough to look at each answer."""
    refused = Refusal(ReasonCode.UNSPECIFIED_ERROR)

    def admit(client: Any, connect: Any) -> Refusal | None:
        for one in implementations:
            try:
                answer = one.function(client, connect)
            except Exception as error:
                failures.record(one.plugin, one.hook, error)
                return refused
            if isinstance(answer, Refusal):
                return answer
            if answer is not None:
                failures.record(one.plugin, one.hook, f"answered a {type(answer).__name__}, not Refusal or None")
                return refused
        return None

    return admit
