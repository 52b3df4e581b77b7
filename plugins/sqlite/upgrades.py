"""What makes an older file one of today: its tables (schema), and the records in them (format)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mqttcore import StoreError, records

from .database import SCHEMA_VERSION, checksum, put_meta, transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from .integrity import Contents

__all__ = ["upgrade_format", "upgrade_schema"]

# Each makes of schema N one of N + 1, inside a transaction. They say what they need in their own words: what the
# current schema is may change, what version 2 was does not.

_TO_2 = (
    "ALTER TABLE segments RENAME TO segments_1",
    "ALTER TABLE deletions RENAME TO deletions_1",
    "ALTER TABLE plugin_values RENAME TO plugin_values_1",
    "ALTER TABLE meta RENAME TO meta_1",
    """CREATE TABLE segments (first_key INTEGER PRIMARY KEY, last_key INTEGER NOT NULL, count INTEGER NOT NULL,
       checksum INTEGER NOT NULL, records BLOB NOT NULL)""",
    "CREATE TABLE deletions (number INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, keys BLOB NOT NULL)",
    "CREATE TABLE dead (first_key INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, keys BLOB NOT NULL)",
    """CREATE TABLE plugin_values (namespace TEXT NOT NULL, name BLOB NOT NULL, checksum INTEGER NOT NULL,
       value BLOB NOT NULL, PRIMARY KEY (namespace, name)) WITHOUT ROWID""",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, checksum INTEGER NOT NULL, value INTEGER NOT NULL) WITHOUT ROWID",
    """INSERT INTO segments SELECT first_key, last_key, count, crc(records, first_key, last_key, count), records
       FROM segments_1""",
    "INSERT INTO deletions SELECT number, crc(keys, number), keys FROM deletions_1",
    "INSERT INTO plugin_values SELECT namespace, name, crc(value, namespace, name), value FROM plugin_values_1",
    "INSERT INTO meta SELECT name, crc(x'', name, value), value FROM meta_1",
    "DROP TABLE segments_1",
    "DROP TABLE deletions_1",
    "DROP TABLE plugin_values_1",
    "DROP TABLE meta_1",
)


def _to_2(connection: sqlite3.Connection) -> None:
    """Give every row a checksum, and dead keys a table."""
    for statement in _TO_2:
        connection.execute(statement)


_STEPS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _to_2}


def upgrade_schema(connection: sqlite3.Connection) -> None:
    """Bring the tables to SCHEMA_VERSION, all steps or none. Takes as much space as the file, for a while."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    connection.create_function("crc", -1, checksum, deterministic=True)
    with transaction(connection):
        for number in range(version, SCHEMA_VERSION):
            _STEPS[number](connection)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def upgrade_format(connection: sqlite3.Connection, contents: Contents) -> None:
    """Bring all records to `records.FORMAT_VERSION`, or none. Raises StoreError (version) when that cannot be done."""
    records.upgrade(b"", contents.format_version)
    with transaction(connection):
        for segment in contents.index.from_place(0):
            (old,) = connection.execute(
                "SELECT records FROM segments WHERE first_key = ?", (segment.first_key,)
            ).fetchone()
            new = records.upgrade(old, contents.format_version)
            if records.check(new) != segment.count:
                raise StoreError("version", f"the upgrade of records changes their number at key {segment.first_key}")
            connection.execute(
                "UPDATE segments SET checksum = ?, records = ? WHERE first_key = ?",
                (checksum(new, segment.first_key, segment.last_key, segment.count), new, segment.first_key),
            )
        put_meta(connection, "format_version", records.FORMAT_VERSION)
