"""Maintenance of the SQLite store: whatever it moves, drops and folds, the store says the same as a dict."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqttcore_plugins.sqlite import SqliteConfig, SqliteStore, maintenance, open_file
from mqttcore_plugins.sqlite.segments import Segment, SegmentIndex

from mqttcore import records
from mqttcore.store.memory import MemoryStore
from mqttcore.testing.store import make_batch, pack_keys, sample_records


def message(key: int, size: int) -> records.Record:
    return msgspec.structs.replace(sample_records()[2][1], topic=f"t/{key}", payload=bytes([key % 251]) * size)


async def everything(store: SqliteStore | MemoryStore) -> dict[int, records.Record]:
    found: dict[int, records.Record] = {}
    async for chunk in store.load():
        found.update(records.decode(chunk))
    return found


def no_alarm(name: str, is_raised: bool, text: str) -> None:
    raise AssertionError(text)


async def start(path: Path) -> SqliteStore:
    store = open_file(SqliteConfig(path=str(path), synchronous="off", checkpoint_bytes=65_536))
    await store.open(no_alarm)
    return store


@pytest.mark.parametrize("seed", range(6))
async def test_store_stays_equal_to_a_dict(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch):
    """Random batches, gaps between keys, deletions of any kind, maintenance that has much to do, restarts."""
    for name, value in (("_YOUNG", 3), ("_FOLD_BYTES", 400), ("_LOOK_EVERY", 2), ("_DROPPED_AT_ONCE", 4)):
        monkeypatch.setattr(maintenance, name, value)
    rng = random.Random(seed)
    path = tmp_path / "broker.db"
    store = await start(path)
    model = MemoryStore(is_durable=True)
    await model.open(no_alarm)
    alive: list[int] = []
    key = 0
    number = merged = 0
    for step in range(400):
        number += 1
        put = []
        phantom = rng.randrange(1, key + 2)
        key += 1
        for _ in range(rng.choice((0, 1, 1, 3, 40))):
            key += rng.choice((1, 1, 1, 2, 50))
            put.append((key, message(key, rng.choice((0, 20, 300)))))
        rng.shuffle(alive)
        gone = sorted([*alive[: rng.choice((0, 1, 2, len(alive) // 3))], phantom])
        gone = list(dict.fromkeys(gone))
        alive = [one for one in alive if one not in set(gone)] + [one for one, _ in put]
        batch = make_batch(number, put, deleted=gone)
        await model.commit(batch)
        future = store.commit(batch)
        if rng.random() < 0.3:
            await future
        if rng.random() < 0.1:
            wanted = pack_keys(rng.sample(alive, len(alive) // 2))
            assert await store.read(wanted) == await model.read(wanted)
        if step % 97 == 96:
            await store.gc()
            assert await everything(store) == await everything(model)
            assert (await store.info()).records == len(alive)
        if step % 130 == 129:
            merged += int((await store.info()).details["merged_bytes"])
            await store.close()
            store = await start(path)
            number = 0
            assert await everything(store) == await everything(model)
    assert await store.check() == []
    assert merged > 0
    await store.close()


async def test_small_rows_become_few(tmp_path: Path):
    """A row for each message of a quiet broker does not stay a row for each."""
    store = await start(tmp_path / "broker.db")
    for number in range(1, 2001):
        future = store.commit(make_batch(number, [(number, message(number, 100))]))
        if number % 3 == 0:
            await future  # or one transaction would take them all
    await future
    await store.gc()
    info = await store.info()
    assert info.records == 2000
    assert info.details["segments"] <= 4
    await store.close()


async def test_space_of_the_dead_is_used_again(tmp_path: Path):
    """A queue that is filled and emptied again and again takes the space of one filling."""
    store = await start(tmp_path / "broker.db")
    size = []
    key = 1
    number = 0
    for _ in range(12):
        keys = range(key, key + 2000)
        key += 2000
        for first in range(keys[0], key, 100):
            number += 1
            await store.commit(make_batch(number, [(one, message(one, 500)) for one in range(first, first + 100)]))
        for first in range(keys[0], key, 100):
            number += 1
            await store.commit(make_batch(number, deleted=range(first, first + 100)))
        size.append((await store.info()).used_bytes)
    assert max(size[2:]) <= 2.5 * size[0]
    await store.close()


async def test_readers_do_not_delay_commits_for_long(tmp_path: Path):
    """A session that pages through a long queue costs other clients' acknowledgements little."""
    store = await start(tmp_path / "broker.db")
    for number in range(1, 101):
        keys = range(number * 1000, number * 1000 + 1000)
        await store.commit(make_batch(number, [(key, message(key, 200)) for key in keys]))
    number = 100

    async def commit() -> None:
        nonlocal number
        number += 1
        await store.commit(make_batch(number, [(1_000_000 + number, message(1, 10))]))

    began = time.perf_counter()
    for _ in range(20):
        await commit()
    alone_s = (time.perf_counter() - began) / 20
    reads = [store.read(pack_keys(range(first, first + 300))) for first in range(1000, 100_000, 300)]

    async def page() -> int:
        return sum([records.check(await read) for read in reads])

    paging = asyncio.ensure_future(page())
    before, began = number, time.perf_counter()
    while not paging.done():
        await commit()
    paging_s = (time.perf_counter() - began) / (number - before)
    assert paging.result() == 99_000
    assert paging_s < max(20 * alone_s, 0.05)  # the machine's mood; not the time of all reads
    await store.close()


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=8), st.data())
def test_index_counts_what_is_alive(shape: list[tuple[int, int]], data: st.DataObject):
    """Dense segments: exact, whatever is deleted, twice or never put."""
    index = SegmentIndex()
    alive: set[int] = set()
    key = 1
    for count, gap in shape:
        index.add(Segment(key, key + count - 1, count, 10 * count))
        alive |= set(range(key, key + count))
        key += count + gap
    total = len(alive)
    for _ in range(4):
        gone = data.draw(st.sets(st.integers(1, key + 3)))
        index.bury(pack_keys(gone))
        alive -= gone
        for place in range(1, key + 4):
            segment = index.covering(place)
            if segment is not None:
                dead = set(memoryview(segment.dead_keys()).cast("Q"))
                assert (place in alive) == (place not in dead)
            else:
                assert place not in alive
    assert index.alive == len(alive)
    assert sum(segment.count for segment in index.finished) <= total
