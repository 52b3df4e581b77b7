"""sqlite: sessions, messages and plugin data in one SQLite file, synced before they are acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from mqttcore import SessionStore, hookimpl

from .store import SqliteStore
from .writer import WriterOptions

if TYPE_CHECKING:
    from mqttcore import Broker

__all__ = ["SqliteConfig", "SqlitePlugin", "SqliteStore", "open_file"]


class SqliteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[plugins.sqlite]`."""

    path: Annotated[
        str, Meta(min_length=1, description="The file. Made when it is not there, 0600, and its folder, 0700.")
    ]
    synchronous: Annotated[
        Literal["full", "normal", "off"],
        Meta(
            description="full: what is acknowledged survives loss of power; normal: the end of the process, and after "
            "loss of power the file is whole but may lack the last seconds; off: the end of the process alone."
        ),
    ] = "full"
    commit_bytes: Annotated[
        int, Meta(ge=1, le=2**30, description="Most that one transaction takes of batches that wait together.")
    ] = 4_194_304
    checkpoint_bytes: Annotated[
        int, Meta(ge=65_536, le=2**40, description="Size of the write-ahead log from which on it goes into the file.")
    ] = 4_194_304
    maximum_bytes: Annotated[
        int, Meta(ge=0, le=2**53 - 1, description="Size that the file may have, its log aside; 0: no limit of its own.")
    ] = 0
    when_damaged: Annotated[
        Literal["quarantine", "refuse"],
        Meta(description="quarantine: put a damaged file aside, raise an alarm and begin anew; refuse: do not start."),
    ] = "quarantine"


def open_file(config: SqliteConfig) -> SqliteStore:
    """Return the store of a configuration, not opened yet."""
    options = WriterOptions(
        path=Path(config.path),
        synchronous=config.synchronous,
        commit_bytes=config.commit_bytes,
        checkpoint_bytes=config.checkpoint_bytes,
        maximum_bytes=config.maximum_bytes,
    )
    return SqliteStore(options, quarantines=config.when_damaged == "quarantine")


class SqlitePlugin:
    """Gives the broker its store."""

    Config = SqliteConfig

    def __init__(self, config: SqliteConfig) -> None:
        self._config = config

    @hookimpl
    def open_store(self, broker: Broker) -> SessionStore:
        """Give the store in the configured file."""
        return open_file(self._config)
