"""SqliteStore keeps what the contract of stores says."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mqttcore_plugins.sqlite import SqliteConfig, SqliteStore, open_file
from mqttcore_plugins.sqlite.database import put_meta

from mqttcore import SessionStore
from mqttcore.testing.store import StoreContract


class TestSqliteStore(StoreContract):
    def make_store(self, place: Path) -> SessionStore:
        return open_file(SqliteConfig(path=str(place / "broker.db")))

    def set_format(self, place: Path, version: int) -> None:
        connection = sqlite3.connect(place / "broker.db", isolation_level=None)
        put_meta(connection, "format_version", version)
        connection.close()

    @contextmanager
    def out_of_space(self, store: SessionStore) -> Iterator[None]:
        assert isinstance(store, SqliteStore)
        store.limit(1_000_000)
        yield
        store.limit(0)
