"""Authentication by plugins: one after another, at once or later, and refused whenever something goes wrong.

An answer that comes at once takes no task. One that is awaited takes one task for the rest of the plugins, and one
deadline; until then the engine does not read that client, and nobody else waits. What is refused here, and how:

    exception, nonsense         0x80 Unspecified error
    late                        0x88 Server unavailable; 0x83 when a connected client re-authenticates
    too many wait               0x89 Server busy
    nobody has an opinion       the engine decides: the listener may take anonymous clients
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from mqttcore.constants import ReasonCode
from mqttcore.engine.engine import PENDING
from mqttcore.identity import Challenge, Identity, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence

    from mqttcore.codec import Auth, Connect
    from mqttcore.engine.client_view import ClientView
    from mqttcore.engine.engine import Engine
    from mqttcore.plugins.failures import Failures
    from mqttcore.plugins.hooks import Implementation

__all__ = ["Decisions"]

_STOP_S = 1.0  # for tasks that were cancelled to end


class _Waiting:
    """A client that waits for an answer. is_over: it has one, or is gone."""

    __slots__ = ("client", "hook", "is_over", "plugin", "task", "timer")

    task: asyncio.Task[Any]
    timer: asyncio.TimerHandle

    def __init__(self, client: ClientView, hook: str, plugin: str) -> None:
        self.client = client
        self.hook = hook
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
        self._narrowed = narrowed or {}
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
        return self._ask("authenticate", client, connect)

    def continue_authentication(self, client: ClientView, auth: Auth) -> Any:
        """Engine: an AUTH came."""
        return self._ask("continue_authentication", client, auth)

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, hook: str, client: ClientView, packet: Connect | Auth) -> Any:
        asked = self._asked(hook, client)
        for implementation in asked:
            try:
                answer = implementation.function(client, packet)
            except Exception as error:
                self._failures.record(implementation.plugin, hook, error)
                return Refusal(ReasonCode.UNSPECIFIED_ERROR)
            if answer is None:
                continue
            if inspect.isawaitable(answer):
                return self._wait(hook, client, packet, implementation, answer, asked)
            return self._checked(implementation, answer)
        return None

    def _asked(self, hook: str, client: ClientView) -> Iterator[Implementation]:
        everybody = self._hooks.get(hook, ())
        narrowed = self._narrowed.get(client.listener or "")
        if narrowed is None:
            return iter(everybody)
        return iter([one for one in everybody if one.plugin in narrowed])

    def _checked(self, implementation: Implementation, answer: Any) -> Identity | Refusal | Challenge:
        # Nothing but an Identity accepts.
        if isinstance(answer, Identity | Refusal | Challenge):
            return answer
        text = f"answered a {type(answer).__name__}, not Identity, Refusal, Challenge or None"
        self._failures.record(implementation.plugin, implementation.hook, text)
        return Refusal(ReasonCode.UNSPECIFIED_ERROR)

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wait(
        self,
        hook: str,
        client: ClientView,
        packet: Connect | Auth,
        implementation: Implementation,
        awaitable: Awaitable[Any],
        asked: Iterator[Implementation],
    ) -> Any:
        if len(self._waiting) >= self.waiting_maximum:
            _give_up(awaitable)
            self.refused_busy += 1
            return Refusal(ReasonCode.SERVER_BUSY)
        waiting = _Waiting(client, hook, implementation.plugin)
        loop = asyncio.get_running_loop()
        waiting.task = loop.create_task(self._resolve(waiting, packet, implementation, awaitable, asked))
        waiting.timer = loop.call_later(self.timeout_s, self._late, waiting)
        self._waiting.add(waiting)
        waiting.task.add_done_callback(lambda task: self._resolved(waiting, task))
        return PENDING

    async def _resolve(
        self,
        waiting: _Waiting,
        packet: Connect | Auth,
        implementation: Implementation,
        awaitable: Awaitable[Any],
        asked: Iterator[Implementation],
    ) -> Identity | Refusal | Challenge | None:
        answer = await awaitable
        while answer is None:
            following = next(asked, None)
            if following is None:
                return None
            implementation = following
            waiting.plugin = implementation.plugin
            answer = implementation.function(waiting.client, packet)
            if inspect.isawaitable(answer):
                answer = await answer
        return self._checked(implementation, answer)

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
            self._failures.record(waiting.plugin, waiting.hook, error)
            answer = Refusal(ReasonCode.UNSPECIFIED_ERROR)
        self._tell(waiting.client, answer)

    def _late(self, waiting: _Waiting) -> None:
        if waiting.is_over:
            return
        waiting.is_over = True  # the task may take its time, or never end: the client has its answer
        waiting.task.cancel()
        self.timed_out += 1
        self._failures.record(waiting.plugin, waiting.hook, f"no answer within {self.timeout_s:g} s")
        is_connected = waiting.client.identity is not None  # re-authenticating: 0x88 is no code of DISCONNECT
        code = ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR if is_connected else ReasonCode.SERVER_UNAVAILABLE
        self._tell(waiting.client, Refusal(code))

    def look(self) -> None:
        """Stop asking about clients that are gone; to be called now and then."""
        for waiting in self._waiting:
            if not waiting.is_over and waiting.client.is_gone:
                waiting.is_over = True
                waiting.timer.cancel()
                waiting.task.cancel()

    async def stop(self) -> None:
        """Stop asking about anybody; waits a moment for what was cancelled."""
        for waiting in self._waiting:
            waiting.is_over = True
            waiting.timer.cancel()
            waiting.task.cancel()
        if tasks := {waiting.task for waiting in self._waiting}:
            await asyncio.wait(tasks, timeout=_STOP_S)
        self._engine = None

    def _tell(self, client: ClientView, answer: Identity | Refusal | Challenge | None) -> None:
        if self._engine is not None:
            self._engine.answer(client, answer)


def _give_up(awaitable: Awaitable[Any]) -> None:
    """Drop a coroutine or future that nobody will await, without a warning."""
    for name in ("close", "cancel"):
        if callable(end := getattr(awaitable, name, None)):
            end()
            return
