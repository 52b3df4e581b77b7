"""The spool: a bounded queue that survives its process, torn writes and damage."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqttcore.sinks.records import EventRecord
from mqttcore.sinks.spool import Spool


def record(number: int, size: int = 10) -> EventRecord:
    return EventRecord(key=str(number % 3), time_ms=number, name="E", fields={"text": "x" * size})


def numbers(records: list) -> list[int]:
    return [one.time_ms for one in records]


def opened(folder: Path, bytes_maximum: int = 1_000_000, **more: int) -> Spool:
    return Spool(folder, bytes_maximum=bytes_maximum, **more)


def test_first_in_first_out_over_segments_and_restarts(tmp_path: Path):
    spool = opened(tmp_path / "s", segment_bytes=4096)
    for start in range(0, 500, 10):
        assert spool.append([record(n, 50) for n in range(start, start + 10)])
    assert len(list((tmp_path / "s").glob("*.spool"))) > 3
    first = spool.take(120, 1_000_000)
    spool.taken()
    spool.close()
    again = opened(tmp_path / "s", segment_bytes=4096)
    rest: list = []
    while not again.is_empty:
        rest += again.take(77, 1_000_000)
        again.taken()
    assert numbers(first) + numbers(rest) == list(range(500))
    assert again.bytes_held == 0
    assert not list((tmp_path / "s").glob("*.spool"))


def test_what_was_not_said_to_be_taken_comes_again(tmp_path: Path):
    spool = opened(tmp_path)
    spool.append([record(n) for n in range(5)])
    assert numbers(spool.take(3, 10_000)) == [0, 1, 2]
    assert numbers(spool.take(3, 10_000)) == [0, 1, 2]
    spool.taken()
    assert numbers(spool.take(9, 10_000)) == [3, 4]


def test_batches_end_at_the_bytes_but_have_one_record(tmp_path: Path):
    spool = opened(tmp_path)
    spool.append([record(n, 1000) for n in range(5)])
    assert numbers(spool.take(100, 2500)) == [0, 1]
    assert numbers(spool.take(100, 1)) == [0]


def test_full_spool_takes_nothing_and_says_so(tmp_path: Path):
    spool = opened(tmp_path, bytes_maximum=10_000)
    assert spool.append([record(0, 6000)])
    assert not spool.append([record(1, 6000)])
    assert spool.append([record(2, 100)])
    assert numbers(spool.take(10, 100_000)) == [0, 2]


def test_prepended_records_come_first(tmp_path: Path):
    spool = opened(tmp_path)
    spool.append([record(n) for n in range(3, 6)])
    spool.take(1, 1000)
    spool.taken()
    spool.prepend([record(n) for n in range(3)])
    spool.close()
    assert numbers(opened(tmp_path).take(10, 10_000)) == [0, 1, 2, 4, 5]


def test_prepending_to_an_empty_spool(tmp_path: Path):
    spool = opened(tmp_path)
    spool.prepend([record(1)])
    spool.append([record(2)])
    assert numbers(spool.take(10, 10_000)) == [1, 2]


def test_torn_end_is_cut_off_and_writing_goes_on(tmp_path: Path):
    spool = opened(tmp_path)
    spool.append([record(n) for n in range(10)])
    spool.close()
    segment = next(tmp_path.glob("*.spool"))
    os.truncate(segment, segment.stat().st_size - 5)
    again = opened(tmp_path)
    again.append([record(10)])
    assert numbers(again.take(100, 100_000)) == [*range(9), 10]
    assert again.damaged == 1


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_flipped_bits_never_give_a_wrong_record(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    folder = tmp_path_factory.mktemp("spool")
    spool = opened(folder)
    spool.append([record(n) for n in range(20)])
    spool.close()
    segment = next(folder.glob("*.spool"))
    content = bytearray(segment.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    segment.write_bytes(content)
    found = opened(folder).take(100, 100_000)
    assert found == [record(n) for n in range(len(found))]
    assert len(found) < 20


def test_damaged_position_reads_from_the_start(tmp_path: Path):
    spool = opened(tmp_path)
    spool.append([record(0), record(1)])
    spool.take(1, 1)
    spool.taken()
    spool.close()
    (tmp_path / "position").write_text("what?")
    assert numbers(opened(tmp_path).take(10, 10_000)) == [0, 1]


def test_only_the_owner_may_read(tmp_path: Path):
    spool = opened(tmp_path / "deep" / "spool")
    spool.append([record(0)])
    spool.take(1, 1)
    spool.taken()
    assert stat.S_IMODE((tmp_path / "deep" / "spool").stat().st_mode) == 0o700
    spool.append([record(1)])
    for path in (tmp_path / "deep" / "spool").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["append", "take", "taken", "reopen", "prepend"]), st.integers(1, 8))))
def test_it_is_a_queue_whatever_happens(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]):
    folder = tmp_path_factory.mktemp("spool")
    spool = opened(folder, segment_bytes=4096)
    model: list[int] = []
    pending = 0
    next_number = 0
    for step, count in steps:
        if step == "append":
            spool.append([record(n, 500) for n in range(next_number, next_number + count)])
            model += range(next_number, next_number + count)
            next_number += count
        elif step == "take":
            found = spool.take(count, 1_000_000)
            assert numbers(found) == model[:count]
            pending = len(found)
        elif step == "taken":
            spool.taken()
            del model[:pending]
            pending = 0
        elif step == "prepend":
            spool.prepend([record(n, 500) for n in range(next_number, next_number + count)])
            model[:0] = range(next_number, next_number + count)
            next_number += count
            spool.take(0, 0)
            pending = min(1, len(model))
        else:
            spool.close()
            spool = opened(folder, segment_bytes=4096)
            pending = 0
    spool.close()
    assert numbers(opened(folder).take(10_000, 10_000_000)) == model
