"""Decisions of plugins that may take their time: one after another, and refused whenever something goes wrong.

An answer that comes at once takes no task. One that is awaited takes one task for the rest of the plugins, and one
deadline; until then the engine does not read that client, and nobody else waits. What is refused here, and how:

                            CONNECT, AUTH                           SUBSCRIBE
    exception, nonsense     0x80 Unspecified error                  0x80
    late                    0x88 Server unavailable;                0x83 Implementation specific error
                            0x83 when connected (re-authentication)
    too many wait           0x89 Server busy                        0x97 Quota exceeded

When nobody has an opinion the engine decides: the listener may take anonymous clients, subscriptions are allowed.
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqttcore.constants import ReasonCode
from mqttcore.engine.hooks import PENDING
from mqttcore.identity import Challenge, Identity, Refusal
from mqttcore.plugins.deadline import give_up

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence

    from mqttcore.codec import Auth, Connect
    from mqttcore.engine.client_view import ClientView
    from mqttcore.engine.engine import Engine
    from mqttcore.plugins.failures import Failures
    from mqttcore.plugins.hooks import Implementation

__all__ = ["Decisions"]

_STOP_S = 1.0  # for tasks that were cancelled to end


@dataclass(frozen=True, slots=True)
class _Question:
    """What goes for one hook. narrows: listeners say who is asked."""

    hook: str
    answers: tuple[type, ...]
    text: str  # the answers in words
    failing: Any
    late: Any
    busy: Any
    narrows: bool = True


_IDENTITY = ((Identity, Refusal, Challenge), "Identity, Refusal, Challenge or None")
_REFUSALS = (
    Refusal(ReasonCode.UNSPECIFIED_ERROR),
    Refusal(ReasonCode.SERVER_UNAVAILABLE),
    Refusal(ReasonCode.SERVER_BUSY),
)
_AUTHENTICATE = _Question("authenticate", *_IDENTITY, *_REFUSALS)
_CONTINUE = _Question("continue_authentication", *_IDENTITY, *_REFUSALS)
_SUBSCRIBE = _Question(
    "authorize_subscribe",
    (bool, int),
    "bool, a reason code or None",
    ReasonCode.UNSPECIFIED_ERROR,
    ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode.QUOTA_EXCEEDED,
    narrows=False,
)
# Re-authentication ends with DISCONNECT, which has no 0x88.
_LATE_WHEN_CONNECTED = Refusal(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)


class _Waiting:
    """A client that waits for an answer. is_over: it has one, or is gone."""

    __slots__ = ("about", "client", "is_over", "plugin", "question", "task", "timer")

    task: asyncio.Task[Any]
    timer: asyncio.TimerHandle

    def __init__(self, client: ClientView, question: _Question, about: tuple[Any, ...], plugin: str) -> None:
        self.client = client
        self.about = about
        self.question = question
        self.plugin = plugin  # the one that is being asked
        self.is_over = False


class Decisions:
    """Asks the plugins of one broker about its clients, and tells the engine.

    hooks: hook -> implementations in order.
    narrowed: listener -> plugins that are asked about its clients; all where it does not stand.
    """

    def __init__(
        self,
        hooks: Mapping[str, Sequence[Implementation]],
        failures: Failures,
        *,
        timeout_s: float,
        waiting_maximum: int,
        narrowed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._hooks = hooks
        self.narrowed = narrowed or {}
        self._failures = failures
        self._engine: Engine | None = None
        self._waiting: set[_Waiting] = set()
        self.timeout_s = timeout_s
        self.waiting_maximum = waiting_maximum
        self.timed_out = 0
        self.refused_busy = 0

    @property
    def waiting(self) -> int:
        """Clients that wait, and cancelled questions that have not ended yet."""
        return len(self._waiting)

    def serve(self, engine: Engine) -> None:
        """Answer to *engine*, from the running loop."""
        self._engine = engine

    # --- hooks of the engine ----------------------------------------------------------------------------------------

    def authenticate(self, client: ClientView, connect: Connect) -> Any:
        """Engine: who is this?"""
        return self._ask(_AUTHENTICATE, client, (connect,))

    def continue_authentication(self, client: ClientView, auth: Auth) -> Any:
        """Engine: an AUTH came."""
        return self._ask(_CONTINUE, client, (auth,))

    def authorize_subscribe(self, client: ClientView, topic_filter: str, qos: int) -> Any:
        """Engine: may it subscribe?"""
        return self._ask(_SUBSCRIBE, client, (topic_filter, qos))

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, question: _Question, client: ClientView, about: tuple[Any, ...]) -> Any:
        asked = self._asked(question, client)
        for implementation in asked:
            try:
                answer = implementation.function(client, *about)
            except Exception as error:
                self._failures.record(implementation.plugin, implementation.hook, error)
                self._trace(question, client, about, implementation.plugin, question.failing)
                return question.failing
            if answer is None:
                continue
            if inspect.isawaitable(answer):
                return self._wait(question, client, about, implementation, answer, asked)
            answer = self._checked(question, implementation, answer)
            self._trace(question, client, about, implementation.plugin, answer)
            return answer
        self._trace(question, client, about, None, None)
        return None

    def _asked(self, question: _Question, client: ClientView) -> Iterator[Implementation]:
        everybody = self._hooks.get(question.hook, ())
        narrowed = self.narrowed.get(client.listener or "") if question.narrows else None
        # Looked up as they are asked: one may be replaced while a client waits for another.
        if narrowed is None:
            return iter(everybody)
        return (one for one in everybody if one.plugin in narrowed)

    def _checked(self, question: _Question, implementation: Implementation, answer: Any) -> Any:
        # Nothing but what the hook may answer lets anybody in.
        if isinstance(answer, question.answers):
            return answer
        text = f"answered a {type(answer).__name__}, not {question.text}"
        self._failures.record(implementation.plugin, implementation.hook, text)
        return question.failing

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wait(
        self,
        question: _Question,
        client: ClientView,
        about: tuple[Any, ...],
        implementation: Implementation,
        awaitable: Awaitable[Any],
        asked: Iterator[Implementation],
    ) -> Any:
        if len(self._waiting) >= self.waiting_maximum:
            give_up(awaitable)
            self.refused_busy += 1
            return question.busy
        waiting = _Waiting(client, question, about, implementation.plugin)
        loop = asyncio.get_running_loop()
        waiting.task = loop.create_task(self._resolve(waiting, about, implementation, awaitable, asked))
        waiting.timer = loop.call_later(self.timeout_s, self._late, waiting)
        self._waiting.add(waiting)
        waiting.task.add_done_callback(lambda task: self._resolved(waiting, task))
        waiting.task.add_done_callback(lambda task: give_up(awaitable))  # cancelled before it began to wait
        return PENDING

    async def _resolve(
        self,
        waiting: _Waiting,
        about: tuple[Any, ...],
        implementation: Implementation,
        awaitable: Awaitable[Any],
        asked: Iterator[Implementation],
    ) -> Any:
        answer = await awaitable
        while answer is None:
            following = next(asked, None)
            if following is None:
                return None
            implementation = following
            waiting.plugin = implementation.plugin
            answer = implementation.function(waiting.client, *about)
            if inspect.isawaitable(answer):
                answer = await answer
        return self._checked(waiting.question, implementation, answer)

    def _resolved(self, waiting: _Waiting, task: asyncio.Task[Any]) -> None:
        self._waiting.discard(waiting)
        waiting.timer.cancel()
        error: BaseException | str | None
        if task.cancelled():
            answer, error = None, "was cancelled"  # by itself; when we do it, it is over
        else:
            error = task.exception()  # asked for in any case: asyncio complains about those that nobody sees
            answer = None if error is not None else task.result()
        if waiting.is_over:
            return
        waiting.is_over = True
        if error is not None:
            self._failures.record(waiting.plugin, waiting.question.hook, error)
            answer = waiting.question.failing
        self._tell(waiting, answer)

    def _late(self, waiting: _Waiting) -> None:
        if waiting.is_over:
            return
        waiting.is_over = True  # the task may take its time, or never end: the client has its answer
        waiting.task.cancel()
        self.timed_out += 1
        self._failures.record(waiting.plugin, waiting.question.hook, f"no answer within {self.timeout_s:g} s")
        is_connected = waiting.client.identity is not None
        if is_connected and waiting.question is _CONTINUE:
            self._tell(waiting, _LATE_WHEN_CONNECTED)
        else:
            self._tell(waiting, waiting.question.late)

    def look(self) -> None:
        """Stop asking about clients that are gone; to be called now and then."""
        for waiting in self._waiting:
            if not waiting.is_over and waiting.client.is_gone:
                waiting.is_over = True
                waiting.timer.cancel()
                waiting.task.cancel()

    async def answered(self, plugin: str) -> None:
        """Return when a plugin has answered what it is being asked now, or is late with it."""
        if tasks := {waiting.task for waiting in self._waiting if waiting.plugin == plugin}:
            await asyncio.wait(tasks, timeout=self.timeout_s + _STOP_S)

    async def stop(self) -> None:
        """Stop asking about anybody; waits a moment for what was cancelled."""
        for waiting in self._waiting:
            waiting.is_over = True
            waiting.timer.cancel()
            waiting.task.cancel()
        if tasks := {waiting.task for waiting in self._waiting}:
            await asyncio.wait(tasks, timeout=_STOP_S)
        self._engine = None

    def _trace(
        self, question: _Question, client: ClientView, about: tuple[Any, ...], plugin: str | None, answer: Any
    ) -> None:
        if self._engine is not None and self._engine.is_watched:
            text = _in_words(answer)
            self._engine.trace_decision(
                client, question.hook, plugin, f"{about[0]!r}: {text}" if question is _SUBSCRIBE else text
            )

    def _tell(self, waiting: _Waiting, answer: Any) -> None:
        if self._engine is None:
            return
        plugin = None if answer is None else waiting.plugin
        self._trace(waiting.question, waiting.client, waiting.about, plugin, answer)
        if waiting.question is _SUBSCRIBE:
            self._engine.answer_subscribe(waiting.client, answer)
        self._engine.answer(waiting.client, answer)


def _in_words(answer: Any) -> str:
    match answer:
        case None:
            return "no opinion"
        case Identity():
            return f"is {answer.name!r}"
        case Refusal():
            return f"refused, 0x{answer.reason_code:02X}" + (f": {answer.reason}" if answer.reason else "")
        case Challenge():
            return "challenged"
        case True:
            return "allowed"
        case False:
            return "refused"
        case code:
            return f"at most QoS {code}" if code <= ReasonCode.GRANTED_QOS_2 else f"refused, 0x{code:02X}"
