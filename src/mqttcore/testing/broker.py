"""A whole broker without sockets: plugins, engine and services as they are, and clients in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import msgspec

from mqttcore.broker import Broker
from mqttcore.config import Config, takes_anonymous
from mqttcore.constants import ReasonCode
from mqttcore.engine.connection import Connection
from mqttcore.net.listeners import BoundListener
from mqttcore.plugins.manager import Plugins
from mqttcore.testing.client import MemoryClient
from mqttcore.testing.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from mqttcore.codec import Will
    from mqttcore.plugins.hooks import Implementation
    from mqttcore.store.contract import SessionStore

__all__ = ["HookCall", "MemoryBroker"]

_SETTLING_TURNS = 10  # of the loop, for tasks to go on


@dataclass(frozen=True, slots=True)
class HookCall:
    """One call of a hook. answer: what it returned, an awaitable as it is; an exception when it raised."""

    plugin: str
    hook: str
    arguments: tuple[Any, ...]
    answer: Any


class MemoryBroker(Broker):
    """A `Broker` whose clients are `MemoryClient` objects; nothing listens.

        async with MemoryBroker(plugins=[MyPlugin(MyPlugin.Config())]) as broker:
            client = await broker.connect("a", user_name="anna", password=b"secret")

    `calls` has every call of a hook, in order. `advance` sets its clock ahead, and with it `time` and the loop's
    timers. Without a config it tells no `$SYS` messages.
    """

    _uses_poller = False

    def __init__(
        self, config: Config | None = None, *, plugins: Iterable[object] = (), store: SessionStore | None = None
    ) -> None:
        super().__init__(config if config is not None else Config(sys_interval_s=0), plugins=plugins, store=store)
        self.calls: list[HookCall] = []
        self.clock = Clock()
        self._clients: list[MemoryClient] = []

    async def __aenter__(self) -> Self:
        """Start, with a clock of our own."""
        self.clock.__enter__()
        try:
            await self.start()
        except BaseException:
            self.clock.__exit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        try:
            await self.stop()
        finally:
            self.clock.__exit__(None, None, None)
            self._clients.clear()

    # --- clients ----------------------------------------------------------------------------------------------------

    def open(self, *, version: int = 5, listener: str | None = None, address: Any = None) -> MemoryClient:
        """Return the client's end of a fresh connection that has said nothing yet.

        listener: name of the configured one that it comes through, the first without. address: (host, port) or a path.
        """
        settings = next((one for one in self.config.listeners if listener in (None, one.name)), None)
        if settings is None:
            raise ValueError(f"there is no listener {listener}")
        assert self._plugins is not None
        is_open = takes_anonymous(self.config, settings, self._plugins.authenticates)
        door = BoundListener(settings.name, is_open, 0, 1, 1, mount_point=settings.mount_point)
        peer = ("127.0.0.1", 40_000 + len(self._clients) % 20_000) if address is None else address
        client = MemoryClient(self, Connection(self._running(), door, peer), version)
        self._clients.append(client)
        return client

    async def connect(
        self,
        client_id: str = "",
        *,
        version: int = 5,
        listener: str | None = None,
        address: Any = None,
        user_name: str | None = None,
        password: bytes | None = None,
        clean_start: bool = True,
        keep_alive_s: int = 0,
        will: Will | None = None,
        properties: Mapping[int, Any] | None = None,
        expect: int | None = ReasonCode.SUCCESS,
    ) -> MemoryClient:
        """Return a client whose CONNECT was answered with the reason code *expect*; None: any."""
        client = self.open(version=version, listener=listener, address=address)
        await client.connect(
            client_id,
            user_name=user_name,
            password=password,
            clean_start=clean_start,
            keep_alive_s=keep_alive_s,
            will=will,
            properties=properties,
            expect=expect,
        )
        return client

    # --- time -------------------------------------------------------------------------------------------------------

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass at once, and what is due happen."""
        self.clock.set_ahead(seconds)
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._tick()
        await self.settle()

    async def settle(self) -> None:
        """Let everything happen that waits for nothing but its turn."""
        for _ in range(_SETTLING_TURNS):
            self._flush()
            await asyncio.sleep(0)
        self._flush()

    # --- hooks ------------------------------------------------------------------------------------------------------

    def hook_calls(self, hook: str) -> list[HookCall]:
        """Return the calls of one hook so far."""
        return [call for call in self.calls if call.hook == hook]

    def _load_plugins(self) -> Plugins:
        return Plugins(self.config, self._given_plugins, instrument=self._instrument)

    def _instrument(self, implementation: Implementation) -> Implementation:
        function = implementation.function

        def recording(*arguments: Any) -> Any:
            try:
                answer = function(*arguments)
            except Exception as error:
                self.calls.append(HookCall(implementation.plugin, implementation.hook, arguments, error))
                raise
            self.calls.append(HookCall(implementation.plugin, implementation.hook, arguments, answer))
            return answer

        return replace(implementation, function=recording)

    # --- the broker's way out ---------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Listen nowhere."""

    async def _reload(self, config: Config) -> list[str]:
        """Have clients come through the listeners of the new configuration: there are none that could stay."""
        need_restart = await super()._reload(config)
        self.config = msgspec.structs.replace(self.config, listeners=config.listeners)
        return [path for path in need_restart if not path.startswith("listeners")]

    def _flush(self) -> None:
        if self._engine is None:
            return
        super()._flush()
        for client in self._clients:
            client.collect()
