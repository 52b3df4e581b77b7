"""Several plugins behind one callable: what the engine's hook table holds for a hook of the packet path.

One plugin alone is called by the engine itself, with nothing between; what it raises comes back through the table's
`on_failure`, and can be nobody else's. Two and more are called by a function made here, which knows who failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqttcore.constants import ReasonCode
from mqttcore.handlers import PublishChange
from mqttcore.identity import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mqttcore.engine.message import Message
    from mqttcore.plugins.failures import Failures
    from mqttcore.plugins.hooks import Implementation

__all__ = ["Recorded", "fold_admit", "fold_authorize", "fold_transform"]


def fold_admit(implementations: Sequence[Implementation], failures: Failures) -> Callable[..., Any]:
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


def fold_authorize(
    implementations: Sequence[Implementation], failures: Failures, when_failing: bool | int
) -> Callable[..., Any]:
    """Return a callable for `authorize_publish` or `authorize_deliver`: the first answer that is not None.

    when_failing: the answer for a plugin that raises, or answers what is neither bool nor int.
    """
    if len(implementations) == 1:
        return implementations[0].function
    calls = [(one.function, one) for one in implementations]

    def authorize(*arguments: Any) -> Any:
        for function, one in calls:
            try:
                answer = function(*arguments)
            except Exception as error:
                failures.record(one.plugin, one.hook, error)
                return when_failing
            if answer is None:
                continue
            if not isinstance(answer, int):
                failures.record(one.plugin, one.hook, f"answered a {type(answer).__name__}, not bool or None")
                return when_failing
            return answer
        return None

    return authorize


def fold_transform(
    implementations: Sequence[Implementation],
    failures: Failures,
    changed: Callable[[Message, PublishChange], Message],
) -> Callable[..., Any]:
    """Return a callable for `transform_publish`: each plugin gets what the one before made of the message.

    changed: returns a message with a change. What a plugin raises goes on to the engine, which refuses the message.
    """
    if len(implementations) == 1:
        return implementations[0].function

    def transform(client: Any, message: Message) -> PublishChange | None:
        whole: PublishChange | None = None
        for one in implementations:
            try:
                change = one.function(client, message)
                if change is None:
                    continue
                if not isinstance(change, PublishChange):
                    raise TypeError(f"answered a {type(change).__name__}, not PublishChange or None")
                message = changed(message, change)
            except Exception as error:
                failures.record(one.plugin, one.hook, error)
                raise Recorded from error
            whole = change if whole is None else _both(whole, change)
        return whole

    return transform


class Recorded(Exception):
    """What a plugin raised was recorded under its name; the engine is only to refuse."""


def _both(first: PublishChange, second: PublishChange) -> PublishChange:
    return PublishChange(
        topic=second.topic if second.topic is not None else first.topic,
        payload=second.payload if second.payload is not None else first.payload,
        qos=second.qos if second.qos is not None else first.qos,
        retain=second.retain if second.retain is not None else first.retain,
        properties=second.properties if second.properties is not None else first.properties,
    )
