"""As an operator does it: the command line, one option, a sleeping client, and the plug pulled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from broker_process import LISTENING
from mqttcore.cli import main

SOURCE = Path(__file__).parents[2] / "src"


@contextmanager
def serving(store: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "mqttcore", "serve", "--port", "0", "--store", str(store)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        match = LISTENING.search(process.stdout.readline())
        assert match
        yield process, match["port"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def client(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mqttcore", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_sleeping_client_gets_its_messages_after_the_plug_was_pulled(tmp_path: Path):
    store = tmp_path / "var" / "broker.db"
    sleeper = ("sub", "-i", "sleeper", "-t", "news/#", "-q", "1", "-c")
    with serving(store) as (process, port):
        subscribed = client(*sleeper, "-p", port, "-E")
        assert subscribed.returncode == 0, subscribed.stderr
        for number in range(5):
            done = client("pub", "-p", port, "-t", "news/today", "-m", f"number {number}", "-q", "1", "-r")
            assert done.returncode == 0, done.stderr
        process.kill()
        process.wait()
    looked = CliRunner().invoke(main, ["store", "info", str(store)])
    assert "session_records: 1" in looked.stdout
    assert "entry_records: 5" in looked.stdout
    with serving(store) as (_, port):
        got = client(*sleeper, "-p", port, "-C", "5", "-W", "60")
        assert got.stdout.splitlines() == [f"number {number}" for number in range(5)], got.stderr
        retained = client("sub", "-p", port, "-t", "news/today", "-C", "1", "-W", "60")
        assert retained.stdout == "number 4\n"


def test_file_in_use_is_said_and_nothing_started(tmp_path: Path):
    store = tmp_path / "broker.db"
    with serving(store) as (process, _):
        second = subprocess.run(
            [sys.executable, "-m", "mqttcore", "serve", "--port", "0", "--store", str(store)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 1
        assert f"in use by process {process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
