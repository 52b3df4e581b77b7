"""Opening the file: told apart from what is none of ours, repaired, looked through, upgraded; or put aside."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mqttcore import StoreError, records

from . import database
from .integrity import Contents, log_frames, read_contents
from .upgrades import upgrade_format, upgrade_schema

if TYPE_CHECKING:
    from .database import Synchronous

__all__ = ["NotOurs", "open_writer", "put_aside"]


class NotOurs(StoreError):
    """A file of another application: a slip in the configuration, so it must not be put aside."""


def open_writer(
    path: Path, synchronous: Synchronous, maximum_bytes: int, *, looks_at_log: bool
) -> tuple[sqlite3.Connection, Contents]:
    """Open the file at *path* for writing, made anew when it is not there, and say what is in it.

    looks_at_log: whether commits that cannot be read any more are damage; not behind a sync that failed.

    Everything that is in the log is in the file then, and synced; every checksum has been computed. Raises StoreError:
    corrupt (nothing is changed but that SQLite may have ended its recovery), version, io, full.
    """
    with database.translated():
        is_new = database.create(path)
        looks_at_log = looks_at_log and synchronous == "full" and not is_new
        log = log_frames(_log(path)) if looks_at_log else None
        if log is not None and log.commits:
            shutil.copyfile(_log(path), _saved_log(path))  # SQLite deletes it even when it takes none of it
        connection = database.connect(path)
        try:
            if is_new:
                database.lay_out(connection, records.FORMAT_VERSION)
            _identify(connection, path)
            database.prepare(connection, synchronous)
            _, taken, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if log is not None and log.lost(taken):
                raise StoreError("corrupt", f"{path}-wal: damaged, {log.lost(taken)} commits cannot be read")
            _saved_log(path).unlink(missing_ok=True)
            # From here on nothing depends on pages of the log that a failed sync may have left in memory alone.
            _checkpoint_whole(connection)
            upgrade_schema(connection)
            contents = read_contents(connection)
            if contents.format_version != records.FORMAT_VERSION:
                upgrade_format(connection, contents)
                contents = read_contents(connection)
            database.limit(connection, maximum_bytes)
            database.allow_commits(connection)
        except (TypeError, ValueError, struct.error) as error:  # a value of another type than it was written with
            connection.close()
            raise StoreError("corrupt", f"{path}: {error}") from error
        except BaseException:
            connection.close()
            raise
    return connection, contents


def _log(path: Path) -> Path:
    return Path(f"{path}-wal")


def _saved_log(path: Path) -> Path:
    return Path(f"{path}-wal-saved")


def _checkpoint_whole(connection: sqlite3.Connection) -> None:
    is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        raise StoreError("io", "somebody else reads the file, and does not end")


def _identify(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if application != database.APPLICATION_ID:
        if "segments" in tables:
            raise StoreError("corrupt", f"{path}: the header is damaged")
        raise NotOurs("corrupt", f"{path} is a database of another application")
    if version > database.SCHEMA_VERSION:
        raise StoreError(
            "version", f"{path} has schema {version}; this version of mqttcore knows {database.SCHEMA_VERSION}"
        )
    if version < 1 or "segments" not in tables:
        raise StoreError("corrupt", f"{path}: the header is damaged")


def put_aside(path: Path) -> Path:
    """Rename the file and its log, so that nothing is lost that somebody may want to rescue; the new name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while (aside := Path(f"{path}.corrupt-{stamp}{f'-{number}' if number else ''}")).exists():
        number += 1
    with database.translated():
        if _saved_log(path).exists():
            _saved_log(path).replace(_log(path))
        for suffix in database.SUFFIXES:
            old = Path(f"{path}{suffix}")
            if old.exists():
                old.rename(f"{aside}{suffix}")
        database.sync_folder(path.parent)
    return aside
