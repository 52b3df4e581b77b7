"""The file: how it is opened, locked and laid out, and what its errors mean.

    segments       rows of framed records, as batches brought them or as maintenance merged them
    deletions      keys deleted, as batches brought them: a log
    dead           the dead keys of each segment, where `deletions` was folded into
    plugin_values  values of plugins
    meta           version of the records; the highest key that was ever committed

Each row has a checksum over all it says: SQLite guards its log with checksums, and not the file itself.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mqttcore import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "APPLICATION_ID",
    "SCHEMA_VERSION",
    "SUFFIXES",
    "Lock",
    "Synchronous",
    "allow_commits",
    "checksum",
    "connect",
    "connect_reader",
    "create",
    "lay_out",
    "limit",
    "make_folder",
    "meta",
    "prepare",
    "put_meta",
    "sync_folder",
    "transaction",
    "translated",
]

Synchronous = Literal["full", "normal", "off"]

APPLICATION_ID = 0x4D51_5453  # "MQTS"; in the header of the file, for `file` and for us
SCHEMA_VERSION = 2
PAGE_BYTES = 8192
SUFFIXES = ("", "-wal", "-shm")

_SCHEMA = """\
CREATE TABLE segments (
    first_key INTEGER PRIMARY KEY, last_key INTEGER NOT NULL, count INTEGER NOT NULL, checksum INTEGER NOT NULL,
    records BLOB NOT NULL);
CREATE TABLE deletions (number INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, keys BLOB NOT NULL);
CREATE TABLE dead (first_key INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, keys BLOB NOT NULL);
CREATE TABLE plugin_values (
    namespace TEXT NOT NULL, name BLOB NOT NULL, checksum INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (namespace, name)) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, checksum INTEGER NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID;
"""

# A trigger makes one statement, and so one turn without the GIL, of everything that a usual commit does.
_COMMITS = """\
CREATE TEMP VIEW commits AS SELECT 0 AS first_key, 0 AS last_key, 0 AS count, 0 AS checksum, x'' AS records,
    0 AS number, 0 AS deletions_checksum, x'' AS keys;
CREATE TEMP TRIGGER commit_batch INSTEAD OF INSERT ON commits BEGIN
    INSERT INTO segments VALUES (NEW.first_key, NEW.last_key, NEW.count, NEW.checksum, NEW.records);
    INSERT INTO deletions VALUES (NEW.number, NEW.deletions_checksum, NEW.keys);
END;
"""

_CRC_SLICE = 5000  # from 5 KiB on zlib lets go of the GIL; getting it back costs more than going on


def checksum(data: bytes, *numbers: int | str | bytes) -> int:
    """Return the CRC-32 of *data* and of what stands beside it in its row."""
    found = 0
    for number in numbers:
        if isinstance(number, int):
            number = struct.pack("<Q", number)
        elif isinstance(number, str):
            number = number.encode() + b"\0"
        found = zlib.crc32(number, found)
    if len(data) <= _CRC_SLICE:
        return zlib.crc32(data, found)
    view = memoryview(data)
    for at in range(0, len(data), _CRC_SLICE):
        found = zlib.crc32(view[at : at + _CRC_SLICE], found)
    return found


@contextmanager
def translated() -> Iterator[None]:
    """Make StoreError of what SQLite and the system raise."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        text = f"{error} ({getattr(error, 'sqlite_errorname', 'SQLite')})"
        if code == sqlite3.SQLITE_FULL:
            raise StoreError("full", text) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreError("corrupt", text) from error
        raise StoreError("io", text) from error
    except OSError as error:
        raise StoreError("io", str(error)) from error


class Lock:
    """Keeps a second process, or a second object, from opening the same file. Released by the system if we die."""

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}-lock")
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError("io", f"{self._path}: {error.strerror}") from error
        try:
            _lock(self._file)
        except OSError as error:
            holder = ""
            with suppress(OSError):  # Windows: what is locked cannot be read, either
                holder = os.read(self._file, 32).decode(errors="replace").strip()
            os.close(self._file)
            raise StoreError("io", f"{path} is in use{f' by process {holder}' if holder else ''}") from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let others open it."""
        os.close(self._file)


try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
else:

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_folder(folder: Path) -> None:
    """Make *folder*, 0700, if it is not there."""
    if folder.is_dir():
        return
    with translated():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)


def create(path: Path) -> bool:
    """Make an empty file at *path* if there is none, 0600 whatever the umask; whether there was none.

    SQLite gives its log and shared memory the rights of the file.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return path.stat().st_size == 0
    os.close(file)
    path.chmod(0o600)  # a strict umask would have left less
    sync_folder(path.parent)
    return True


def sync_folder(folder: Path) -> None:
    """Make new names in *folder* survive loss of power."""
    if os.name == "nt":
        return
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file at *path*, which is there; `prepare` has to follow. One thread at a time may use it."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)


def prepare(connection: sqlite3.Connection, synchronous: Synchronous) -> None:
    """Set what holds for every connection."""
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA secure_delete=OFF")  # some systems have it on: every page freed is written
    connection.execute("PRAGMA wal_autocheckpoint=0")  # maintenance does it, when it fits
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA trusted_schema=OFF")


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the file for reading alone."""
    connection = connect(path)
    try:
        prepare(connection, "off")
        connection.execute("PRAGMA query_only=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def limit(connection: sqlite3.Connection, maximum_bytes: int) -> None:
    """Let the file grow to *maximum_bytes*, 0: as far as the disk goes. Smaller than it is: no further."""
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    pages = max(maximum_bytes // page_bytes, 1) if maximum_bytes else 0xFFFFFFFE
    connection.execute(f"PRAGMA max_page_count={pages}").fetchone()


def lay_out(connection: sqlite3.Connection, format_version: int) -> None:
    """Make the tables of a new file."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # both count before the first table only
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.executescript(
        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION};"
    )
    put_meta(connection, "format_version", format_version)
    put_meta(connection, "last_key", 0)
    connection.execute("COMMIT")


def allow_commits(connection: sqlite3.Connection) -> None:
    """Make the view that takes a batch by one statement; for this connection only."""
    connection.executescript(_COMMITS)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Make one commit of what is executed within, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def put_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Set a number of the table meta."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, checksum(b"", name, value), value))


def meta(connection: sqlite3.Connection, name: str) -> int:
    """Return a number of the table meta. Raises StoreError (corrupt) when it is not there or damaged."""
    row = connection.execute("SELECT checksum, value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None or not isinstance(row[1], int) or row[1] < 0 or row[0] != checksum(b"", name, row[1]):
        raise StoreError("corrupt", f"meta: {name} is missing or damaged")
    value: int = row[1]
    return value
