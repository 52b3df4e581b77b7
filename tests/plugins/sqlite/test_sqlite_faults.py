"""Disks that are full, slow or broken: what cannot be kept is refused, and what was kept stays."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from durability.power import Power, build

SCRIPT = Path(__file__).parent / "store_process.py"
SOURCE = Path(__file__).parents[3] / "src"


class StoreProcess:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.opened = self._line()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line.strip()

    def ask(self, *words: object) -> str:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self._line()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(
    path: Path, power: Power | None = None, prepare: Callable[[], None] | None = None, **settings: object
) -> Iterator[StoreProcess]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **(power.environment if power else {})}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), json.dumps({"path": str(path), **settings})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=prepare,
    )
    try:
        yield StoreProcess(process)
        if process.poll() is None:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert "Traceback" not in errors, errors
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream
            stream.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("power"))


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> tuple[Path, Power]:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "broker.db", Power(library, folder, tmp_path / "power")


def test_failed_sync_keeps_nothing_until_it_works(disk: tuple[Path, Power]):
    path, power = disk
    with running(path, power) as store:
        assert store.ask("commit", 1, 10, 100) == "ok"
        power.set(sync_errno=errno.EIO)
        for _ in range(3):
            assert store.ask("commit", 2, 20, 100).startswith("io: ")
        assert store.ask("commit", 3, 1, 1).startswith("closed: ")  # not past the one that failed
        assert power.failures >= 3
        power.set()
        assert store.ask("commit", 2, 20, 100) == "ok"
        assert store.ask("commit", 3, 30, 100) == "ok"
        assert int(store.ask("figure", "reopened")) >= 1
        assert store.ask("count") == "60"
        assert store.ask("check") == "0"


@pytest.mark.parametrize("seed", range(8))
def test_failed_sync_then_power_cut(disk: tuple[Path, Power], seed: int):
    """What a failed sync left in memory is gone with the power, though later syncs succeeded."""
    path, power = disk
    rng = random.Random(seed)
    kept = 0
    with running(path, power) as store:
        for number in range(1, 30):
            fails = rng.random() < 0.3
            power.set(sync_errno=errno.EIO if fails else 0)
            outcome = store.ask("commit", number, 10, rng.choice((10, 3000)))
            if outcome != "ok":
                power.set()
                assert outcome.startswith("io: ")
                assert store.ask("commit", number, 10, 10) == "ok"
            kept += 10
        store.kill()
    power.lose(rng)
    with running(path, power) as store:
        assert store.opened == "open"
        assert int(store.ask("count")) == kept
        assert store.ask("check") == "0"


def test_write_errors_are_survived(disk: tuple[Path, Power]):
    path, power = disk
    with running(path, power) as store:
        assert store.ask("commit", 1, 10, 100) == "ok"
        power.set(write_errno=errno.EIO)
        assert store.ask("commit", 2, 10, 100).startswith("io: ")
        power.set(write_errno=errno.ENOSPC)
        assert store.ask("commit", 2, 10, 100).startswith(("full: ", "io: "))
        power.set()
        assert store.ask("commit", 2, 10, 100) == "ok"
        power.set(write_errno=errno.ENOSPC)
        assert store.ask("commit", 3, 10, 100).startswith("full: ")
        power.set()
        assert store.ask("commit", 3, 10, 100) == "ok"
        assert store.ask("count") == "30"
        assert store.ask("check") == "0"


def test_slow_sync_is_waited_for(disk: tuple[Path, Power]):
    path, power = disk
    with running(path, power) as store:
        power.set(sync_delay_s=0.2)
        began = time.monotonic()
        assert store.ask("commit", 1, 10, 100) == "ok"
        assert time.monotonic() - began >= 0.2
        power.set()


def test_full_disk_refuses_and_recovers(tmp_path: Path):
    """On a real file system without space, where we may mount one."""
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a file system: {mounted.stderr.strip()}")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(3_000_000))
        with running(disk / "broker.db") as store:
            kept = 0
            for number in range(1, 100):
                outcome = store.ask("commit", number, 20, 5000)
                if outcome != "ok":
                    break
                kept += 20
            assert outcome.startswith("full: ")
            assert kept > 0
            assert store.ask("commit", number, 20, 5000).startswith("full: ")
            assert store.ask("count") == str(kept)
            ballast.unlink()
            assert store.ask("commit", number, 20, 5000) == "ok"
            assert store.ask("count") == str(kept + 20)
            assert store.ask("check") == "0"
        with running(disk / "broker.db") as store:
            assert store.opened == "open"
            assert store.ask("count") == str(kept + 20)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_limited_file_size_refuses(tmp_path: Path):
    """RLIMIT_FSIZE: what a quota does, without being root."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))

    with running(tmp_path / "broker.db", prepare=limited) as store:
        outcomes = [store.ask("commit", 1, 10, 100), store.ask("commit", 2, 500, 5000)]
        assert outcomes[0] == "ok"
        assert outcomes[1].startswith(("full: ", "io: "))
        assert store.ask("commit", 2, 10, 100) == "ok"
        assert store.ask("count") == "20"
        assert store.ask("check") == "0"


def test_maximum_bytes_refuses(tmp_path: Path):
    with running(tmp_path / "broker.db", maximum_bytes=1_000_000) as store:
        assert store.ask("commit", 1, 10, 100) == "ok"
        assert store.ask("commit", 2, 500, 5000).startswith("full: ")
        assert store.ask("commit", 2, 10, 100) == "ok"


@pytest.mark.parametrize("seed", range(10))
def test_power_cut_keeps_what_was_acknowledged(disk: tuple[Path, Power], seed: int):
    path, power = disk
    rng = random.Random(seed)
    kept = 0
    number = 0
    for _ in range(3):
        with running(path, power, checkpoint_bytes=65_536) as store:
            assert store.opened == "open"
            assert int(store.ask("count")) == kept
            for _ in range(rng.randrange(1, 15)):
                number += 1
                assert store.ask("commit", number, 10, rng.choice((10, 5000))) == "ok"
                kept += 10
            assert store.process.stdin
            store.process.stdin.write(f"commit {number + 1} 500 1000\n")  # under way
            store.process.stdin.flush()
            time.sleep(rng.random() * 0.03)
            store.kill()
        power.lose(rng)
        with running(path, power) as store:
            found = int(store.ask("count"))
            assert found in (kept, kept + 500)
            number += 1
            kept = found


def test_store_that_does_not_sync_is_caught(disk: tuple[Path, Power]):
    """The power cut is no empty ritual: with synchronous = "off" it loses what was acknowledged."""
    path, power = disk
    with running(path, power, synchronous="off") as store:
        for number in range(1, 6):
            assert store.ask("commit", number, 10, 100) == "ok"
        store.kill()
    assert power.lose(random.Random(1)) > 0
    with running(path, power) as store:
        assert store.opened != "open" or int(store.ask("count")) < 50
