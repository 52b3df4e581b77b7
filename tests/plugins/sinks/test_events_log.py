"""Lines in a file that turns over."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from mqttcore_plugins.events_log import EventsLog
from mqttcore_plugins.events_log.rotated_file import RotatedFile

from mqttcore import ConfigError, MessageRecord
from plugins.doubles import Alarms


def message(payload: bytes, **more: Any) -> MessageRecord:
    given = {"key": "c", "time_ms": 1, "message_id": "0" * 32, "topic": "a/b", "payload": payload, "qos": 1}
    return MessageRecord(**(given | {"retain": False, "client_id": "c", "identity_name": None} | more))


async def test_messages_become_lines(tmp_path: Path):
    path = tmp_path / "log"
    config = msgspec.convert({"path": str(path), "linger_ms": 0}, EventsLog.Config)
    log = EventsLog(config)
    await log.startup(Alarms())
    await log.accept([message(b"warm\n"), message(b"\xff\x00", user_properties=[("k", "v")])])
    await log.shutdown(Alarms())
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "kind": "message",
        "message_id": "0" * 32,
        "time_ms": 1,
        "topic": "a/b",
        "qos": 1,
        "retain": False,
        "client_id": "c",
        "identity": None,
        "payload": "warm\n",
    }
    assert second["payload_base64"] == "/wA="
    assert second["user_properties"] == [["k", "v"]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_path_that_cannot_be_written_names_its_key(tmp_path: Path):
    log = EventsLog(EventsLog.Config(path=str(tmp_path / "no" / "such" / "log")))
    with pytest.raises(ConfigError) as caught:
        await log.startup(Alarms())
    assert caught.value.path == "plugins.events_log.path"
    log._disk.shutdown()


def test_file_is_put_aside_before_it_grows_too_large(tmp_path: Path):
    path = tmp_path / "log"
    file = RotatedFile(path, bytes_maximum=100, kept=2, syncs=True)
    for number in range(9):
        file.write(b"%d" % number * 39 + b"\n")
    file.close()
    kept = [path.with_name("log.2"), path.with_name("log.1"), path]
    assert b"".join(one.read_bytes() for one in kept) == b"".join(b"%d" % n * 39 + b"\n" for n in range(4, 9))
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_file_that_was_moved_away_is_made_again(tmp_path: Path):
    path = tmp_path / "log"
    file = RotatedFile(path, bytes_maximum=0, kept=0, syncs=False)
    file.write(b"one\n")
    path.rename(tmp_path / "moved")
    file.write(b"two\n")
    file.close()
    assert path.read_bytes() == b"two\n"
    assert (tmp_path / "moved").read_bytes() == b"one\n"


def test_nothing_is_kept_when_nothing_shall_be(tmp_path: Path):
    file = RotatedFile(tmp_path / "log", bytes_maximum=10, kept=0, syncs=False)
    for _ in range(3):
        file.write(b"12345678\n")
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log").read_bytes() == b"12345678\n"
