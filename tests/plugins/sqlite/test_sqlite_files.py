"""The file of the SQLite store: whose it is, who may open it, and what happens when it is not as it was left."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from mqttcore_plugins.sqlite import SqliteConfig, SqliteStore, open_file
from mqttcore_plugins.sqlite.database import APPLICATION_ID, SCHEMA_VERSION

from mqttcore import StoreError, records
from mqttcore.testing.store import make_batch, sample_records

Alarms = list[tuple[str, bool]]
ROWS = sample_records()
VALUES = [("bans", b"name", b"value" * 50), ("bans", b"other", b"x")]


def make(path: Path, **settings: object) -> SqliteStore:
    return open_file(SqliteConfig(path=str(path), **settings))  # type: ignore[arg-type]


@asynccontextmanager
async def opened(path: Path, alarms: Alarms | None = None, **settings: object) -> AsyncIterator[SqliteStore]:
    store = make(path, **settings)

    def alarm(name: str, is_raised: bool, text: str) -> None:
        assert alarms is not None, f"{name}: {text}"
        alarms.append((name, is_raised))

    await store.open(alarm)
    try:
        yield store
    finally:
        await store.close()


async def contents(store: SqliteStore) -> tuple[dict[int, records.Record], list[tuple[bytes, bytes]]]:
    found: dict[int, records.Record] = {}
    async for chunk in store.load():
        found.update(records.decode(chunk))
    return found, [value async for value in store.values("bans")]


async def fill(path: Path, batches: int = 1) -> None:
    async with opened(path) as store:
        await store.commit(make_batch(1, ROWS, values=VALUES))
        for number in range(2, batches + 1):
            key = 2_000_000 + number
            await store.commit(make_batch(number, [(key, ROWS[-3][1])], deleted=[key - 1]))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0, 0o777])
async def test_files_are_for_their_owner_alone(tmp_path: Path, umask: int):
    path = tmp_path / "var" / "broker.db"
    path.parent.parent.mkdir(exist_ok=True)
    before = os.umask(umask & 0o077)
    try:
        async with opened(path) as store:
            await store.commit(make_batch(1, ROWS))
            found = {name: mode(path.parent / name) for name in names(path.parent)}
    finally:
        os.umask(before)
    assert set(found) == {"broker.db", "broker.db-wal", "broker.db-shm", "broker.db-lock"}
    assert set(found.values()) == {0o600}
    assert mode(path.parent) == 0o700


async def test_wide_rights_are_narrowed(tmp_path: Path):
    path = tmp_path / "broker.db"
    await fill(path)
    path.chmod(0o666)
    async with opened(path):
        assert mode(path) == 0o600
        assert mode(tmp_path / "broker.db-wal") == 0o600


async def test_file_is_opened_once(tmp_path: Path):
    path = tmp_path / "broker.db"
    async with opened(path):
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}") as caught:
            await make(path).open(lambda *_: None)
        assert caught.value.kind == "io"
    async with opened(path):
        pass  # closing lets others in


async def test_place_that_cannot_be_had_says_why(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file") as caught:
        await make(tmp_path / "file" / "broker.db").open(lambda *_: None)
    assert caught.value.kind == "io"


async def test_database_of_others_is_left_alone(tmp_path: Path):
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another application"):
        await make(path).open(lambda *_: None)
    assert path.read_bytes() == before
    assert aside_of(path) == []


async def test_newer_schema_is_refused(tmp_path: Path):
    path = tmp_path / "broker.db"
    await fill(path)
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"schema {SCHEMA_VERSION + 1}") as caught:
        await make(path).open(lambda *_: None)
    assert caught.value.kind == "version"
    assert path.read_bytes() == before


def as_format_1(key: int, record: records.Record) -> bytes:
    """Return a record as version 1 of the format had it: sessions without a mount point."""
    framed = records.encode(key, record)
    if not isinstance(record, records.SessionRecord):
        return framed
    framed = framed[: -2 - len(record.mount_point.encode())]
    return len(framed).to_bytes(4, "little") + framed[4:]


def write_schema_1(path: Path) -> None:
    """Write a file of schema 1, records of format 1: no checksums, and deletions in their log alone."""
    old = sqlite3.connect(path)
    old.executescript(
        f"""
        PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1; PRAGMA journal_mode=WAL;
        CREATE TABLE segments (first_key INTEGER PRIMARY KEY, last_key INTEGER, count INTEGER, records BLOB);
        CREATE TABLE deletions (number INTEGER PRIMARY KEY, keys BLOB);
        CREATE TABLE plugin_values (namespace TEXT, name BLOB, value BLOB, PRIMARY KEY (namespace, name)) WITHOUT ROWID;
        CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
        INSERT INTO meta VALUES ('format_version', 1), ('last_key', 7_000_000);
    """.replace("_000_000", "000000")
    )
    chunk = b"".join(as_format_1(*row) for row in ROWS)
    old.execute("INSERT INTO segments VALUES (?, ?, ?, ?)", (ROWS[0][0], ROWS[-1][0], len(ROWS), chunk))
    old.execute("INSERT INTO deletions VALUES (1, ?)", ((5).to_bytes(8, "little"),))
    old.executemany("INSERT INTO plugin_values VALUES (?, ?, ?)", VALUES)
    old.commit()
    old.close()


async def test_schema_1_is_upgraded(tmp_path: Path):
    path = tmp_path / "broker.db"
    write_schema_1(path)
    for _ in range(2):
        async with opened(path) as store:
            found, values = await contents(store)
            session = msgspec.structs.replace(ROWS[0][1], mount_point="")
            assert found == {1: session} | {key: record for key, record in ROWS if key not in (1, 5)}
            assert values == [value[1:] for value in VALUES]
            assert store.last_key == 7_000_000
            assert await store.check() == []
    async with opened(path) as store:
        await store.commit(make_batch(1, [(7_000_001, ROWS[-1][1])]))


async def test_upgrade_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "broker.db"
    write_schema_1(path)
    from mqttcore_plugins.sqlite import upgrades

    with monkeypatch.context() as patch:
        patch.setattr(upgrades, "_TO_2", (*upgrades._TO_2[:-1], "INSERT INTO nowhere VALUES (1)"))
        with pytest.raises(StoreError, match="nowhere"):
            await make(path).open(lambda *_: None)
    async with opened(path) as store:
        assert len((await contents(store))[0]) == len(ROWS) - 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data[:100], id="100 bytes"),
        pytest.param(lambda data: b"no database at all, but long enough to be one" * 99, id="text"),
        pytest.param(lambda data: bytes(len(data)), id="zeros"),  # what a power cut made of mosquitto's
        pytest.param(lambda data: data[:16384] + bytes(8192) + data[24576:], id="a page of zeros"),
    ],
)
async def test_damaged_file_is_put_aside(tmp_path: Path, damage):
    path = tmp_path / "broker.db"
    await fill(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(StoreError) as caught:
        await make(path, when_damaged="refuse").open(lambda *_: None)
    assert caught.value.kind == "corrupt"
    assert path.read_bytes() == damaged
    alarms: Alarms = []
    async with opened(path, alarms) as store:
        assert alarms == [("store_quarantined", True)]
        assert await contents(store) == ({}, [])
        assert store.last_key == 0
        await store.commit(make_batch(1, ROWS))
    (aside,) = aside_of(path)
    assert aside.read_bytes() == damaged
    async with opened(path) as store:
        assert (await contents(store))[0] == dict(ROWS)


async def test_flipped_bits_are_seen_or_change_nothing(tmp_path: Path):
    """Every byte that says anything is covered by a checksum or by the structure of the file."""
    whole = tmp_path / "whole.db"
    await fill(whole)
    data = whole.read_bytes()
    expected = dict(ROWS), [value[1:] for value in VALUES]
    rng = random.Random(5)
    seen = 0
    # Unused space of a page may be anything; half of the flips go where there is something.
    used = [at for at, byte in enumerate(data) if byte]
    for number in range(150):
        path = tmp_path / f"{number}.db"
        at = rng.choice(used) if number % 2 else rng.randrange(len(data))
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        store = make(path, when_damaged="refuse")
        try:
            await store.open(lambda *_: None)
        except StoreError as error:
            assert error.kind in ("corrupt", "version", "io")  # noqa: PT017
            seen += 1
            continue
        try:
            assert await contents(store) == expected, at
        finally:
            await store.close()
    assert seen > 30


def names(folder: Path) -> set[str]:
    return {child.name for child in folder.iterdir()}


def size(path: Path) -> int:
    return path.stat().st_size


def aside_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.corrupt-*"))


def crashed_copy(path: Path, to: Path) -> Path:
    """Copy the file and its log as they are now, as if the process ended here."""
    to.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", to / f"broker.db{suffix}")
    return to / "broker.db"


async def test_log_without_its_end_is_the_end_of_a_crash(tmp_path: Path):
    path = tmp_path / "broker.db"
    async with opened(path) as store:
        for number in range(1, 6):
            await store.commit(make_batch(number, [(number, ROWS[2][1])]))
        complete = size(tmp_path / "broker.db-wal")
        await store.commit(make_batch(6, [(6, ROWS[2][1])]))
        copy = crashed_copy(path, tmp_path / "copy")
    os.truncate(f"{copy}-wal", complete + 5000)
    async with opened(copy) as store:
        assert list((await contents(store))[0]) == [1, 2, 3, 4, 5]


def flip_middle(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return bytes(data)


async def test_log_with_a_flip_in_its_middle_is_damage(tmp_path: Path):
    """SQLite would take the log up to the flip, and throw what was acknowledged behind it away without a word."""
    path = tmp_path / "broker.db"
    async with opened(path) as store:
        for number in range(1, 9):
            await store.commit(make_batch(number, [(number, ROWS[2][1])]))
        copy = crashed_copy(path, tmp_path / "copy")
    data = flip_middle(copy.with_name("broker.db-wal"))
    alarms: Alarms = []
    async with opened(copy, alarms) as store:
        assert alarms == [("store_quarantined", True)]
        assert store.last_key == 0
    assert aside_of(copy)[-1].read_bytes() == data


async def test_stopped_store_leaves_one_file(tmp_path: Path):
    path = tmp_path / "broker.db"
    await fill(path, batches=20)
    assert names(tmp_path) == {"broker.db", "broker.db-lock"}
