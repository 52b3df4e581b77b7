"""Brokers, one after another, each in a process forked from this one: imports are done, so a restart takes no time.

    python runner.py '{"path": "…", "store": "sqlite"}'

For each line on stdin it prints `pid PID`, `port PORT` (in any order), and when that broker is gone, `ended CODE`.

store: see STORES; those that lie are there for the checker to be caught.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import traceback
from array import array
from dataclasses import replace
from typing import Any

from mqttcore import Broker, SessionStore, StoreBatch, hookimpl, records
from mqttcore.config import Config, Limits, Listener, StoreSettings
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
    """Keeps messages and their entries in queues for ever, so what was acknowledged comes back."""

    def commit(self, batch: StoreBatch) -> asyncio.Future[None]:
        kinds = (records.MessageRecord.KIND, records.EntryRecord.KIND)
        kept = self.__dict__.setdefault("kept", set())
        kept.update(key for key, kind, _, _ in records.index(batch.records) if kind in kinds)
        deleted = array("Q", [key for key in memoryview(batch.deleted).cast("Q") if key not in kept])
        return super().commit(replace(batch, deleted=deleted.tobytes()))


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
    config = Config(
        listeners=[Listener(port=0)],
        limits=LIMITS,
        sys_interval_s=0,
        store=StoreSettings(retry_s=0.05),
        overload_lag_ms=0,  # a busy machine is no reason to refuse a client
    )
    async with Broker(config, plugins=[_Plugin(store)]) as broker:
        print("port", broker.addresses[0][2], flush=True)  # noqa: T201
        await stop.wait()


def _run(options: dict[str, Any]) -> None:
    loop_factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(options))


def main() -> None:
    """Fork a broker for each line, and say how it ended."""
    options = json.loads(sys.argv[1])
    gc.freeze()
    while sys.stdin.readline():
        if (pid := os.fork()) == 0:
            try:
                _run(options)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print("pid", pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
