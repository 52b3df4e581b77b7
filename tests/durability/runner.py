"""A broker in a process that waits to be told when to start: imports are done by then, so a restart takes no time.

    python runner.py '{"path": "…", "store": "sqlite"}'      then a line on stdin; prints the port

store: see STORES; those that lie are there for the checker to be caught.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from typing import Any

from mqttcore import Broker, SessionStore, StoreBatch, hookimpl
from mqttcore.config import Config, Limits, Listener
from mqttcore.plugins.discovery import open_source_tree

open_source_tree()
from mqttcore_plugins.sqlite import SqliteConfig, SqliteStore, open_file  # noqa: E402


class _EarlyStore(SqliteStore):
    """Says that a batch is kept long before it is."""

    def commit(self, batch: StoreBatch) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, super().commit, batch)
        done = loop.create_future()
        done.set_result(None)
        return done


class _ForgetfulStore(SqliteStore):
    """Keeps no deletion, so what was acknowledged comes back."""

    def commit(self, batch: StoreBatch) -> asyncio.Future[None]:
        return super().commit(replace(batch, deleted=b""))


STORES: dict[str, type[SqliteStore]] = {"sqlite": SqliteStore, "early": _EarlyStore, "forgetful": _ForgetfulStore}

LIMITS = Limits(
    queued_messages_maximum=10_000_000,
    queued_bytes_maximum=2**40,
    queued_total_bytes_maximum=2**40,
    session_expiry_maximum_s=0xFFFFFFFF,
)


class _Plugin:
    """Gives the broker its store."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    @hookimpl
    def open_store(self, broker: Broker) -> SessionStore:
        return self._store


async def _serve(options: dict[str, Any]) -> None:
    settings = SqliteConfig(path=options["path"], **options.get("settings", {}))
    store = open_file(settings)
    store.__class__ = STORES[options["store"]]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    config = Config(listeners=[Listener(port=0)], limits=LIMITS, sys_interval_s=0)
    async with Broker(config, plugins=[_Plugin(store)]) as broker:
        print(broker.addresses[0][2], flush=True)  # noqa: T201
        await stop.wait()


def main() -> None:
    """Wait for a line, then serve."""
    options = json.loads(sys.argv[1])
    if sys.stdin.readline():
        loop_factory = None
        try:
            import uvloop

            loop_factory = uvloop.new_event_loop
        except ImportError:
            pass
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_serve(options))


if __name__ == "__main__":
    main()
