"""How much memory there is and what is left of it: what the system says, and what is made of that."""

import builtins
import ctypes
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from mqttcore.errors import ConfigError
from mqttcore.memory_guard import MemoryGuard
from mqttcore.net import memory
from mqttcore.net.memory import MemoryWatch, available_bytes, resident_bytes


class Readings:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: int | None = 0
        self.trims = 0
        monkeypatch.setattr(memory, "resident_bytes", lambda: self.now)
        monkeypatch.setattr(memory, "_trim", self._trim)

    def _trim(self) -> None:
        self.trims += 1

    def look(self, watch: MemoryWatch, *values: int) -> list[tuple[bool, bool, bool]]:
        found = []
        for value in values:
            self.now = value
            found.append((watch.look(), watch.is_short, watch.is_full))
        return found


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Readings:
    return Readings(monkeypatch)


def test_states_end_lower_than_they_begin(readings: Readings):
    watch = MemoryWatch(1000)
    assert readings.look(watch, 100, 899, 900, 899, 850, 849) == [
        (False, False, False),
        (False, False, False),
        (True, True, False),
        (False, True, False),
        (False, True, False),
        (True, False, False),
    ]
    assert readings.look(watch, 1000, 999, 950, 949, 849) == [
        (True, True, True),
        (False, True, True),
        (False, True, True),
        (True, True, False),
        (True, False, False),
    ]


def test_metrics_say_how_it_stands(readings: Readings):
    watch = MemoryWatch(1000)
    readings.look(watch, 950)
    assert watch.metrics() == {
        "memory_resident_bytes": 950,
        "memory_maximum_bytes": 1000,
        "memory_short": 1,
        "memory_full": 0,
    }


def test_zero_is_no_maximum(readings: Readings):
    watch = MemoryWatch(0)
    assert readings.look(watch, 1 << 60) == [(False, False, False)]


def test_another_maximum_counts_from_the_next_look(readings: Readings):
    watch = MemoryWatch(1000)
    readings.look(watch, 1000)
    watch.set_maximum(10_000)
    assert readings.look(watch, 1000) == [(True, False, False)]


def test_reading_that_fails_leaves_the_last_one(readings: Readings):
    watch = MemoryWatch(1000)
    readings.look(watch, 950)
    readings.now = None
    assert not watch.look()
    assert (watch.resident_bytes, watch.is_short) == (950, True)


def test_memory_is_given_back_while_it_is_short_and_not_all_the_time(
    readings: Readings, monkeypatch: pytest.MonkeyPatch
):
    now_s = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    watch = MemoryWatch(1000)
    readings.look(watch, 100)
    assert readings.trims == 0
    readings.look(watch, 900, 900, 900)
    assert readings.trims == 1
    now_s += 10
    readings.look(watch, 900, 900)
    assert readings.trims == 2


def test_default_is_a_share_of_what_there_is(readings: Readings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    assert MemoryWatch(None).maximum_bytes == 800
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    assert MemoryWatch(None).maximum_bytes == 0


def test_system_that_does_not_tell_can_have_no_maximum(readings: Readings):
    readings.now = None
    assert MemoryWatch(None).maximum_bytes == MemoryWatch(0).maximum_bytes == 0
    with pytest.raises(ConfigError, match=r"memory_maximum_bytes.*psutil"):
        MemoryWatch(1000)


class Loop:
    """Takes down what is to be called when."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Any]] = []

    def call_later(self, delay_s: float, function: Any) -> Any:
        self.calls.append((delay_s, function))
        return SimpleNamespace(cancel=self.calls.clear)


class Told:
    """Stands for the engine and the broker's alarms."""

    def __init__(self) -> None:
        self.states: list[tuple[bool, bool]] = []
        self.alarms: list[str] = []

    def set_memory(self, *, is_short: bool, is_full: bool) -> None:
        self.states.append((is_short, is_full))

    def raise_alarm(self, name: str, text: str) -> None:
        self.alarms.append(f"{name}: {text}")

    def clear_alarm(self, name: str, text: str) -> None:
        self.alarms.append(f"{name} ended: {text}")


def test_guard_looks_more_often_where_the_maximum_is_not_far(readings: Readings):
    loop, told = Loop(), Told()
    guard = MemoryGuard(100 << 20, told)  # type: ignore[arg-type]
    readings.now = 74 << 20
    guard.start(told, loop)  # type: ignore[arg-type]
    for mib in (75, 91, 101, 74):
        (delay_s, look) = loop.calls.pop()
        assert delay_s == (0.1 if readings.now == 74 << 20 else 0.01)
        readings.now = mib << 20
        look()
    assert told.states == [(True, False), (True, True), (False, False)]
    assert told.alarms == [
        "memory: 91 of 100 MiB are resident: there are no new sessions",
        "memory: 101 of 100 MiB are resident: nothing may grow",
        "memory ended: 74 of 100 MiB are resident",
    ]
    guard.stop()
    assert not loop.calls


# --- what the system says ---------------------------------------------------------------------------------------------


def test_resident_memory_is_what_psutil_says(monkeypatch: pytest.MonkeyPatch):
    ballast = bytearray(b"x") * (32 << 20)
    said = psutil.Process().memory_info().rss
    found = resident_bytes()
    assert found is not None
    assert abs(found - said) < 4 << 20
    monkeypatch.setattr(sys, "platform", "darwin")
    found = resident_bytes()
    assert found is not None
    assert abs(found - said) < 4 << 20
    del ballast


@pytest.mark.parametrize("error", [ImportError, NotImplementedError])
def test_resident_memory_without_psutil_is_unknown_elsewhere(monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    find = builtins.__import__

    def without(name: str, *others: Any) -> Any:
        if name == "psutil":
            raise error(name)
        return find(name, *others)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(builtins, "__import__", without)
    assert resident_bytes() is None


def test_resident_memory_without_descriptors_is_unknown(monkeypatch: pytest.MonkeyPatch):
    def fail(_: Path) -> bytes:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert resident_bytes() is None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "5000000", "memory.max": "9000000"}, 5_000_000),
        ("0::/a/b", {"a/b/memory.max": "4000000", "a/memory.max": "5000000"}, 4_000_000),
        ("0::/", {"memory.max": "3000000"}, 3_000_000),
        ("0::/gone/elsewhere", {"memory.max": "3000000"}, 3_000_000),
        ("4:cpu,memory:/a", {"memory/a/memory.limit_in_bytes": "2000000"}, 2_000_000),
        ("4:cpu:/a\n0::/", {"cpu/a/memory.limit_in_bytes": "1"}, None),
        ("0::/a", {"a/memory.max": "max", "memory.max": "nonsense"}, None),
    ],
)
def test_control_groups_may_allow_less(tmp_path: Path, line: str, files: dict[str, str], expected: int | None):
    write(tmp_path / "proc/self/cgroup", f"{line}\n")
    write(tmp_path / "memory.max", "1")  # above the groups: nobody's
    for name, text in files.items():
        write(tmp_path / "groups" / name, f"{text}\n")
    whole = psutil.virtual_memory().total
    assert available_bytes(tmp_path / "proc", tmp_path / "groups") == (whole if expected is None else expected)


def test_machine_without_control_groups(tmp_path: Path):
    assert available_bytes(tmp_path, tmp_path) == psutil.virtual_memory().total


def test_memory_that_was_freed_is_given_back():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("not glibc")
    held = [bytes(2000) for _ in range(40_000)]
    before = psutil.Process().memory_info().rss
    held = held[::50]  # holes between what stays
    memory._trim()
    assert psutil.Process().memory_info().rss < before - (20 << 20)
