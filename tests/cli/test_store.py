"""`mqttcore store`: files of brokers that do not run."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mqttcore_plugins.sqlite import SqliteConfig, open_file

from mqttcore.cli import main
from mqttcore.testing.store import make_batch, sample_records


def call(*words: object, given: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["store", *map(str, words)], input=given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with records and values in it."""
    path = tmp_path / "broker.db"

    async def fill() -> None:
        store = open_file(SqliteConfig(path=str(path)))
        await store.open(lambda *_: None)
        await store.commit(make_batch(1, sample_records(), values=[("bans", b"\x00", b"v"), ("other", b"k", b"v")]))
        await store.close()

    asyncio.run(fill())
    return path


def test_info_counts(path: Path):
    done = call("info", path)
    assert done.exit_code == 0, done.output
    figures = dict(line.split(": ") for line in done.stdout.splitlines())
    assert figures["place"] == str(path)
    assert figures["records"] == "7"
    assert figures["values"] == "2"
    assert figures["last_key"] == "1000000"
    assert figures["message_records"] == "2"
    assert figures["session_records"] == "1"


def test_check_finds_nothing_wrong(path: Path):
    done = call("check", path)
    assert (done.exit_code, done.stdout) == (0, "nothing is wrong\n")


def test_check_says_what_is_wrong_and_leaves_it(path: Path):
    data = bytearray(path.read_bytes())
    place = data.index(b"topic" if b"topic" in data else b"who")
    data[place] ^= 1
    path.write_bytes(data)
    done = call("check", path)
    assert done.exit_code == 1
    assert "checksum" in done.stderr
    assert path.read_bytes() == data


def test_export_and_import_make_an_equal_file(path: Path, tmp_path: Path):
    exported = call("export", path)
    assert exported.exit_code == 0, exported.output
    copy = tmp_path / "folder" / "copy.db"
    imported = call("import", copy, given=exported.stdout_bytes)
    assert (imported.exit_code, imported.stdout) == (0, "9 records and values\n")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert call("export", copy).stdout_bytes == exported.stdout_bytes
    again = call("import", copy, given=exported.stdout_bytes)
    assert again.exit_code == 1
    assert "empty" in again.stderr


def test_import_names_the_line(tmp_path: Path):
    done = call("import", tmp_path / "new.db", given=b'{"kind":"store","format_version":1}\n\n{"kind":"nonsense"}\n')
    assert done.exit_code == 1
    assert "line 2" in done.stderr


def test_gc_says_what_it_gave_back(path: Path):
    done = call("gc", path)
    assert done.exit_code == 0
    assert done.stdout.endswith(" bytes given back\n")


def test_file_in_use_is_left_alone(path: Path):
    async def use() -> Result:
        store = open_file(SqliteConfig(path=str(path)))
        await store.open(lambda *_: None)
        try:
            return await asyncio.to_thread(call, "check", path)
        finally:
            await store.close()

    done = asyncio.run(use())
    assert done.exit_code == 1
    assert "in use" in done.stderr


@pytest.mark.parametrize("command", ["info", "check", "gc", "export"])
def test_missing_file_is_not_made(tmp_path: Path, command: str):
    done = call(command, tmp_path / "none.db")
    assert done.exit_code == 2
    assert not (tmp_path / "none.db").exists()
