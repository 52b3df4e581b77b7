"""Authentication by plugins: one after another, at once or later, and refused whenever something goes wrong.

An answer that comes at once takes no task. One that is awaited takes one task for the rest of the plugins, and one
deadline; until then the engine does not read that client, and nobody else waits. What is refused here, and how:

    exception, nonsense         0x80 Unspecified error
    late                        0x88 Server unavailable; 0x83 when a connected client re-authenticates
    too many wait               0x89 Server busy
    nobody has an opinion       0x87 Not authorized, unless the listener takes anonymous clients
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from mqttcore.constants import ReasonCode
from mqttcore.engine.engine import PENDING
from mqttcore.identity import Challenge, Identity, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from mqttcore.engine.connection import Connection
    from mqttcore.engine.engine import Engine
    from mqttcore.plugins.failures import Failures
    from mqttcore.plugins.hooks import Implementation

__all__ = ["Decisions"]

_STOP_S = 1.0  # for tasks that were cancelled to end


class _Waiting:
    """A client that waits for an answer. is_over: it has one, or is gone."""

    __slots__ = ("connection", "hook", "is_over", "plugin", "task", "timer")

    task: asyncio.Task[Any]
    timer: asyncio.TimerHandle

    def __init__(self, connection: Connection, hook: str, plugin: str) -> None:
        self.connection = connection
        self.hook = hook
        self.plugin = plugin  # the one that is being asked
        self.is_over = False


class Decisions:
    """Asks the plugins of one broker about its clients, and tells the engine.

    hooks: hook -> implementations in order. wake: called when there is something to send outside the engine's turn.
    narrowed: listener -> plugins that are asked about its clients; all where it does not stand.
    """

    def __init__(
        self,
        hooks: Mapping[str, Sequence[Implementation]],
        failures: Failures,
        *,
        timeout_s: float,
        waiting_maximum: int,
        wake: Callable[[], object],
        narrowed: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._hooks = hooks
        self._narrowed = narrowed or {}
        self._failures = failures
        self._wake = wake
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

    def authenticate(self, connection: Connection, connect: Any) -> Any:
        """Engine: who is this?"""
        return self._ask("authenticate", connection, connect)

    def continue_authentication(self, connection: Connection, auth: Any) -> Any:
        """Engine: an AUTH came."""
        return self._ask("continue_authentication", connection, auth)

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(self, hook: str, connection: Connection, packet: Any) -> Any:
        client = _ClientAsAsked(connection, packet)
        asked = self._asked(hook, connection)
        for implementation in asked:
            try:
                answer = implementation.function(client, packet)
            except Exception as error:
                self._failures.record(implementation.plugin, hook, error)
                return Refusal(ReasonCode.UNSPECIFIED_ERROR)
            if answer is None:
                continue
            if inspect.isawaitable(answer):
                return self._wait(hook, connection, client, packet, implementation, answer, asked)
            return self._given(connection, self._checked(implementation, answer))
        return self._given(connection, self._unanswered(hook, connection))

    def _asked(self, hook: str, connection: Connection) -> Iterator[Implementation]:
        everybody = self._hooks.get(hook, ())
        narrowed = self._narrowed.get(getattr(connection.listener, "name", ""))
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

    def _unanswered(self, hook: str, connection: Connection) -> Refusal | None:
        if hook == "continue_authentication":
            return Refusal(ReasonCode.NOT_AUTHORIZED)
        if connection.authentication_method is not None:
            return Refusal(ReasonCode.BAD_AUTHENTICATION_METHOD)  # [MQTT-4.12.0-1]
        if not getattr(connection.listener, "allow_anonymous", False):
            return Refusal(ReasonCode.NOT_AUTHORIZED, "authentication required")
        return None

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wait(
        self,
        hook: str,
        connection: Connection,
        client: Any,
        packet: Any,
        implementation: Implementation,
        awaitable: Awaitable[Any],
        asked: Iterator[Implementation],
    ) -> Any:
        if len(self._waiting) >= self.waiting_maximum:
            _give_up(awaitable)
            self.refused_busy += 1
            return Refusal(ReasonCode.SERVER_BUSY)
        waiting = _Waiting(connection, hook, implementation.plugin)
        loop = asyncio.get_running_loop()
        waiting.task = loop.create_task(self._resolve(waiting, client, packet, implementation, awaitable, asked))
        waiting.timer = loop.call_later(self.timeout_s, self._late, waiting)
        self._waiting.add(waiting)
        waiting.task.add_done_callback(lambda task: self._resolved(waiting, task))
        return PENDING

    async def _resolve(
        self,
        waiting: _Waiting,
        client: Any,
        packet: Any,
        implementation: Implementation,
        awaitable: Awaitable[Any],
        asked: Iterator[Implementation],
    ) -> Identity | Refusal | Challenge | None:
        answer = await awaitable
        while answer is None:
            following = next(asked, None)
            if following is None:
                return self._unanswered(waiting.hook, waiting.connection)
            implementation = following
            waiting.plugin = implementation.plugin
            answer = implementation.function(client, packet)
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
        self._tell(waiting.connection, answer)

    def _late(self, waiting: _Waiting) -> None:
        if waiting.is_over:
            return
        waiting.is_over = True  # the task may take its time, or never end: the client has its answer
        waiting.task.cancel()
        self.timed_out += 1
        self._failures.record(waiting.plugin, waiting.hook, f"no answer within {self.timeout_s:g} s")
        is_connected = waiting.connection.current_session is not None
        code = ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR if is_connected else ReasonCode.SERVER_UNAVAILABLE
        self._tell(waiting.connection, Refusal(code))

    def look(self) -> None:
        """Stop asking about clients that are gone; to be called now and then."""
        for waiting in self._waiting:
            if not waiting.is_over and waiting.connection.is_closed:
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

    # --- answering --------------------------------------------------------------------------------------------------

    def _given(self, connection: Connection, answer: Identity | Refusal | Challenge | None) -> Any:
        # The engine takes an identity by accept() only.
        if isinstance(answer, Refusal | Challenge):
            return answer
        self._accept(connection, answer)
        return PENDING

    def _tell(self, connection: Connection, answer: Identity | Refusal | Challenge | None) -> None:
        if self._engine is None or connection.is_closed:
            return
        if isinstance(answer, Refusal):
            connection.refuse(answer.reason_code, answer.reason)
            self._wake()
        elif isinstance(answer, Challenge):
            self._engine.challenge(connection, answer.data)
        else:
            self._accept(connection, answer)

    def _accept(self, connection: Connection, identity: Identity | None) -> None:
        assert self._engine is not None
        self._engine.accept(connection, identity)


def _give_up(awaitable: Awaitable[Any]) -> None:
    """Drop a coroutine or future that nobody will await, without a warning."""
    for name in ("close", "cancel"):
        if callable(end := getattr(awaitable, name, None)):
            end()
            return


class _ClientAsAsked:
    """What a plugin sees of a client until the engine gives it a ClientView."""

    def __init__(self, connection: Connection, packet: Any) -> None:
        self.client_id = connection.client_id
        self.user_name = getattr(packet, "user_name", None)
        self.connection_id = f"{id(connection):032x}"
        self.address = connection.peer
        self.listener = getattr(connection.listener, "name", None)
        self.tls = getattr(connection, "tls", None)
        self.protocol_version = connection.version
        self.clean_start = getattr(packet, "clean_start", False)
        session = connection.current_session
        self.identity = None if session is None else session.identity
        self.attributes: dict[str, Any] = {}
