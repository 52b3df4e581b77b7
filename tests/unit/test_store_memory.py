"""The store in memory keeps the contract; so do the frames and the JSON lines, when they are broken."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from mqttcore.errors import StoreError
from mqttcore.store import records
from mqttcore.store.memory import MemoryStore
from mqttcore.store.transfer import import_lines
from mqttcore.testing.store import ControlledStore, StoreContract, make_batch, pack_keys, sample_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mqttcore.store.contract import SessionStore, StoreBatch


class SmallStore(ControlledStore):
    """Runs out of space on command, for commits above 1 MiB."""

    is_small = False
    has_failed = False

    def commit(self, batch: StoreBatch):
        if self.is_small:
            self.has_failed |= batch.size_bytes > 1_048_576
            self.fails_with = None if not self.has_failed else "full" if batch.size_bytes > 1_048_576 else "closed"
        return super().commit(batch)


class TestMemoryStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _places(self):
        self.stores: dict[Path, SmallStore] = {}

    def make_store(self, place: Path) -> SessionStore:
        return self.stores.setdefault(place, SmallStore())

    def set_format(self, place: Path, version: int) -> None:
        self.stores[place].format_version = version

    @contextlib.contextmanager
    def out_of_space(self, store: SessionStore) -> Iterator[None]:
        assert isinstance(store, SmallStore)
        store.is_small = True
        yield
        store.is_small, store.fails_with = False, None


def test_records_have_the_bytes_they_are_documented_to_have():
    record = records.ReceivedRecord(session=0x0102030405060708, packet_id=0x090A)
    assert records.encode(0x1112131415161718, record) == bytes.fromhex(
        "17000000 1817161514131211 05 0807060504030201 0a09"
    )


@pytest.mark.parametrize("row", sample_records(), ids=lambda row: type(row[1]).__name__)
def test_a_record_cut_short_is_corrupt(row):
    whole = records.encode(*row)
    assert list(records.decode(whole)) == [row]
    for size in range(1, len(whole)):
        with pytest.raises(StoreError, match="corrupt"):
            list(records.decode(whole[:size]))
        resized = size.to_bytes(4, "little") + whole[4:size]
        if not isinstance(row[1], records.MessageRecord):  # a payload may have any size
            with pytest.raises(StoreError, match="corrupt"):
                list(records.decode(resized))


def test_keys_that_do_not_ascend_are_corrupt():
    row = sample_records()[5][1]
    with pytest.raises(StoreError, match="key 4 behind 4"):
        records.check(records.encode(4, row) * 2)


def test_select_and_without_share_a_chunk():
    chunk = make_batch(1, sample_records()).records
    some = pack_keys([0, 2, 4, 8, 1_000_000, 2_000_000])
    assert [key for key, *_ in records.index(records.select(chunk, some))] == [2, 8, 1_000_000]
    assert [key for key, *_ in records.index(records.without(chunk, some))] == [1, 3, 5, 9]
    assert records.without(chunk, b"") == chunk
    assert records.select(chunk, b"") == records.select(b"", some) == b""


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([b"{"], "line 1"),
        ([b'{"kind":"received","key":1,"session":1,"packet_id":1}'], "before the header"),
        ([b'{"kind":"store","format_version":3}'], "format 3"),
        ([b'{"kind":"store","format_version":1}', b'{"kind":"else","key":1}'], "line 2"),
        (
            [b'{"kind":"store","format_version":1}', *[b'{"kind":"received","key":1,"session":1,"packet_id":1}'] * 2],
            "line 3: key 1 behind 1",
        ),
    ],
)
async def test_import_of_rubbish_says_where(lines, message):
    store = MemoryStore(is_durable=True)
    await store.open(StoreContract.no_alarm)
    with pytest.raises(StoreError, match=message):
        await import_lines(store, lines)
