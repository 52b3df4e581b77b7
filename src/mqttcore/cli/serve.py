"""`mqttcore serve`: a broker as a process."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import click
import msgspec

from mqttcore._version import __version__
from mqttcore.broker import Broker
from mqttcore.cli import logs
from mqttcore.config import Config, LogLevel, load
from mqttcore.errors import ConfigError, MqttCoreError

__all__ = ["serve", "tune_garbage_collection"]

_log = logging.getLogger("mqttcore.serve")


class _Source(msgspec.Struct, frozen=True):
    """Where the configuration comes from: a file, and options that override it each time it is read."""

    path: Path | None
    host: str | None
    port: int | None
    log_level: str | None
    store: Path | None

    def read(self) -> Config:
        """Return the effective configuration; raises ConfigError."""
        config = Config() if self.path is None else load(self.path)
        address = {key: value for key, value in (("host", self.host), ("port", self.port)) if value is not None}
        if address:
            if len(config.listeners) > 1:
                raise ConfigError(
                    "listeners", "--host and --port need a configuration with one listener", str(self.path)
                )
            listener = msgspec.structs.replace(config.listeners[0], **address)
            config = msgspec.structs.replace(config, listeners=[listener])
        if self.log_level is not None:
            config = msgspec.structs.replace(config, log_level=self.log_level)
        if self.store is not None:
            plugins = {**config.plugins, "sqlite": {**config.plugins.get("sqlite", {}), "path": str(self.store)}}
            config = msgspec.structs.replace(config, plugins=plugins)
        return config


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="Configuration, TOML.")
@click.option("--host", help="Address to listen on, instead of the configured listener's.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 lets the system choose.")
@click.option(
    "--store",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep sessions and messages in FILE: the path of [plugins.sqlite].",
)
@click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="Least severe records that are logged.")
def serve(path: Path | None, host: str | None, port: int | None, log_level: str | None, store: Path | None) -> None:
    """Run a broker until SIGTERM or SIGINT; SIGHUP rereads the configuration.

    Without options: on 127.0.0.1, port 1883, in memory, for anonymous clients. Prints one line per listener on standard
    output when it listens; logs go to standard error. Exit codes: 0 stopped, 1 could not run, 2 wrong configuration or
    usage.
    """
    source = _Source(path, host, port, log_level, store)
    try:
        config = source.read()
        loop_factory = _loop_factory(config.loop)
        with logs.running(config.log_level, config.log_format), asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_serve(source, config))
    except KeyboardInterrupt:  # where the loop takes no signal handlers; the broker has been stopped
        return
    except ConfigError as error:
        click.echo(f"mqttcore: {error}", err=True)
        sys.exit(2)
    except (MqttCoreError, OSError) as error:
        click.echo(f"mqttcore: {error}", err=True)
        sys.exit(1)


def _loop_factory(choice: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop; None: asyncio's own."""
    if choice == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if choice == "uvloop":
            raise ConfigError("loop", "uvloop is not installed") from error
        return None
    return uvloop.new_event_loop


async def _serve(source: _Source, config: Config) -> None:
    broker = Broker(config)
    stop = _watch_stop_signals()
    await broker.start()
    try:
        reloading = _Reloading(source, broker)
        tune_garbage_collection()
        _announce(broker, config)
        await stop.wait()
        await reloading.finish()
    finally:
        await broker.stop()


def _watch_stop_signals() -> asyncio.Event:
    """Return the event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = asyncio.Event()

    def receive(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, receive, number)
        except NotImplementedError:  # Windows: Ctrl-C cancels us, and the broker stops in `finally`
            break
    return stop


class _Reloading:
    """Rereads the configuration on SIGHUP, one time after another, and when the management API is asked to.

    A mistake leaves the old one in force.
    """

    def __init__(self, source: _Source, broker: Broker) -> None:
        self._source = source
        self._broker = broker
        self._is_wanted = False
        self._task: asyncio.Task[None] | None = None
        if source.path is not None:
            broker.set_rereading(self.reread)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._receive)

    async def finish(self) -> None:
        """Let a reload under way come to its end."""
        if self._task is not None:
            await self._task

    def _receive(self) -> None:
        self._is_wanted = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._is_wanted:
            self._is_wanted = False
            await self._reload()
        self._task = None

    async def _reload(self) -> None:
        if self._source.path is None:
            _log.warning("SIGHUP: there is no configuration file to reread")
            return
        try:
            await self.reread()
        except ConfigError as error:
            _log.error("SIGHUP: the former configuration stays in force: %s", error)
        except Exception:  # ours or a plugin's: the broker must go on
            _log.exception("SIGHUP: the configuration could not be applied")

    async def reread(self) -> list[str]:
        """Read the configuration and take it over; return the key paths that need a restart. Raises as both do."""
        config = self._source.read()
        needing_restart = await self._broker.reload(config)
        logs.set_level(config.log_level)
        _log.info("configuration reread")
        if needing_restart:
            _log.warning("changes that need a restart: %s", ", ".join(needing_restart))
        return needing_restart


def tune_garbage_collection() -> None:
    """Keep the collector away from what lives as long as the process.

    Only here: in an embedding application the collector is the application's. The broker's own objects are freed by
    reference counts, so collections find next to nothing, and their cost grows with the number of sessions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def _announce(broker: Broker, config: Config) -> None:
    protocols = {one.name: one.protocol + (" over TLS" if one.tls else "") for one in config.listeners}
    paths = {one.name: one.path for one in config.listeners}
    for name, host, port in broker.addresses:
        shown = f"[{host}]" if ":" in host else host
        place = paths[name] or f"{shown}:{port}"
        # click.echo flushes: whoever waits for this line gets it through a pipe, too.
        click.echo(f"mqttcore {__version__} listening on {place} ({protocols[name]})")
