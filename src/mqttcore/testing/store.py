"""`StoreContract`: what every store has to do, as tests; `ControlledStore`: a store that fails and waits on command.

class TestMyStore(StoreContract):
def make_store(self, place):
return MyStore(place / "my.db")

def set_format(self, place, version):
...

def out_of_space(self, store):
...
"""

from __future__ import annotations

import array
import asyncio
import contextlib
from abc import abstractmethod
from typing import TYPE_CHECKING

import pytest

from mqttcore.errors import StoreError
from mqttcore.store import records
from mqttcore.store.contract import SessionStore, StoreBatch
from mqttcore.store.memory import MemoryStore
from mqttcore.store.transfer import export_lines, import_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mqttcore.errors import StoreErrorKind
    from mqttcore.store.contract import ValueChange

__all__ = ["ControlledStore", "StoreContract", "make_batch", "pack_keys", "sample_records"]


def pack_keys(keys: Iterable[int]) -> bytes:
    """Return keys as `SessionStore.read` and `StoreBatch.deleted` take them."""
    return array.array("Q", sorted(keys)).tobytes()


def make_batch(
    number: int,
    put: Iterable[tuple[int, records.Record]] = (),
    deleted: Iterable[int] = (),
    values: Iterable[ValueChange] = (),
) -> StoreBatch:
    """Return a batch of records with their keys, ascending."""
    rows = list(put)
    return StoreBatch(
        number,
        b"".join(records.encode(key, record) for key, record in rows),
        len(rows),
        rows[0][0] if rows else 0,
        rows[-1][0] if rows else 0,
        pack_keys(deleted),
        tuple(values),
    )


def sample_records() -> list[tuple[int, records.Record]]:
    """Return one record of each kind, and two messages whose bytes look like frames."""
    payload = records.encode(77, records.ReceivedRecord(session=1, packet_id=9)) * 3
    return [
        (
            1,
            records.SessionRecord(
                number=1,
                session_expiry_s=0xFFFFFFFF,
                is_connected=False,
                expires_at=0,
                will_message=3,
                will_delay_s=5,
                will_due_at=1_700_000_000_000,
                client_id="träumer\U0001f634",
                user_name="",
                identity_name="who",
                mount_point="träume/",
            ),
        ),
        (2, records.SubscriptionRecord(session=1, options=0x2E, subscription_id=268_435_455, topic_filter="a/+/#")),
        (3, _message("will", payload)),
        (5, _message("", b"")),
        (
            8,
            records.EntryRecord(
                session=1,
                message=5,
                queued_at=1_700_000_000_001,
                packet_id=0,
                state=0,
                qos=1,
                flags=0x81,
                subscription_ids=b"\x0b\x01",
                share="$share/g/a/#",
            ),
        ),
        (9, records.ReceivedRecord(session=1, packet_id=65535)),
        (1_000_000, records.RetainedRecord(message=5)),
    ]


def _message(topic: str, payload: bytes) -> records.MessageRecord:
    return records.MessageRecord(
        expires_at=0,
        received_at=1_700_000_000_000,
        node_epoch=2**64 - 1,
        number=1,
        expiry_place=0,
        qos=1,
        retain=False,
        is_utf8=False,
        topic=topic,
        publisher="träumer",
        identity_name="",
        ordering_key="",
        properties=b"\x01\x00",
        payload=payload,
    )


def _messages(keys: Iterable[int], size: int = 40) -> list[tuple[int, records.Record]]:
    return [(key, _message(f"topic/{key}", key.to_bytes(8, "big") * (size // 8))) for key in keys]


async def _all(store: SessionStore) -> dict[int, records.Record]:
    found: list[tuple[int, records.Record]] = []
    async for chunk in store.load():
        assert records.check(chunk) > 0
        found += records.decode(chunk)
    keys = [key for key, _ in found]
    assert keys == sorted(set(keys))  # ascending from chunk to chunk, none twice
    return dict(found)


class ControlledStore(MemoryStore):
    """A MemoryStore that the broker takes for a disk, and a test for a bad one.

    fails_with: kind of the error of every commit, or None. is_held: commits wait until `release`. batches: what was
    given to commit, failed ones included.
    """

    def __init__(self) -> None:
        super().__init__(is_durable=True)
        self.fails_with: StoreErrorKind | None = None
        self.is_held = False
        self.batches: list[StoreBatch] = []
        self._waiting: list[tuple[StoreBatch, asyncio.Future[None]]] = []

    def commit(self, batch: StoreBatch) -> asyncio.Future[None]:
        """Take a batch, to be done now or at `release`."""
        self.batches.append(batch)
        if self.is_held:
            done = asyncio.get_running_loop().create_future()
            self._waiting.append((batch, done))
            return done
        if self.fails_with is not None:
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreError(self.fails_with, "as the test wants it"))
            return failed
        return super().commit(batch)

    def release(self, count: int | None = None) -> int:
        """Complete the first *count* commits that wait, or all; how many there were."""
        released, self._waiting = self._waiting[:count], [] if count is None else self._waiting[count:]
        for place, (batch, done) in enumerate(released):
            if self.fails_with is None:
                error = super().commit(batch).exception()
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
            else:
                done.set_exception(StoreError("closed" if place else self.fails_with, "as the test wants it"))
        return len(released)


class StoreContract:
    """Inherit, and give what the three methods ask for; pytest finds the rest."""

    @abstractmethod
    def make_store(self, place: Path) -> SessionStore:
        """Return a store, not opened, of what the folder *place* keeps: nothing at first, everything after `close`."""

    @abstractmethod
    def set_format(self, place: Path, version: int) -> None:
        """Have the closed store in *place* say that its records were written in this format version."""

    @abstractmethod
    def out_of_space(self, store: SessionStore) -> AbstractContextManager[None]:
        """Return a context in which commits of more than 1 MiB fail with `full`, on a real limit if possible."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[SessionStore]:
        """Return an opened store of `tmp_path`."""
        store = self.make_store(tmp_path)
        await store.open(self.no_alarm)
        yield store
        await store.close()

    @staticmethod
    def no_alarm(name: str, is_raised: bool, text: str) -> None:
        """Fail the test: nothing is wrong."""
        assert not is_raised, f"{name}: {text}"

    async def reopened(self, store: SessionStore, place: Path) -> SessionStore:
        """Close a store and return another one, opened, of the same place."""
        await store.close()
        again = self.make_store(place)
        await again.open(self.no_alarm)
        return again

    async def test_new_store_is_empty(self, store: SessionStore) -> None:
        """Nothing comes of a new place."""
        assert store.last_key == 0
        assert await _all(store) == {}
        assert (await store.info()).records == 0
        assert await store.check() == []

    async def test_every_record_survives(self, store: SessionStore, tmp_path: Path) -> None:
        """What was put in comes back as it was, from the open store and from the next."""
        rows = sample_records()
        await store.commit(make_batch(1, rows))
        store = await self.reopened(store, tmp_path)
        try:
            assert await _all(store) == dict(rows)
            assert store.last_key == 1_000_000
            assert (await store.info()).records == len(rows)
            assert await store.check() == []
        finally:
            await store.close()

    async def test_deleted_records_are_gone(self, store: SessionStore, tmp_path: Path) -> None:
        """Deletions count across batches and blocks; unknown keys are passed over."""
        await store.commit(make_batch(1, _messages(range(1, 101))))
        await store.commit(make_batch(2, _messages(range(101, 201)), deleted=[1, 2, 99, 500]))
        await store.commit(make_batch(3, deleted=[3, 150, *range(20, 90)]))
        left = set(range(1, 201)) - {1, 2, 3, 99, 150, *range(20, 90)}
        assert (await store.info()).records == len(left)
        store = await self.reopened(store, tmp_path)
        try:
            assert set(await _all(store)) == left
            await store.commit(make_batch(1, deleted=left))
            assert await store.read(pack_keys(left)) == b""
        finally:
            await store.close()

    async def test_last_key_survives_its_record(self, store: SessionStore, tmp_path: Path) -> None:
        """The highest key stays known when nothing is left, also after gc."""
        await store.commit(make_batch(1, _messages([7, 8])))
        await store.commit(make_batch(2, deleted=[7, 8]))
        await store.gc()
        store = await self.reopened(store, tmp_path)
        store = await self.reopened(store, tmp_path)
        try:
            assert await _all(store) == {}
            assert store.last_key >= 8
        finally:
            await store.close()

    async def test_read_gives_what_is_there(self, store: SessionStore) -> None:
        """Reads see every batch committed before, in order of keys, without those that are not there."""
        await store.commit(make_batch(1, _messages(range(1, 50))))
        await store.commit(make_batch(2, _messages(range(50, 100)), deleted=[10, 11]))
        await store.commit(make_batch(3, deleted=[60]))
        found = dict(records.decode(await store.read(pack_keys([5, 10, 60, 75, 99, 4000]))))
        assert found == dict(_messages([5, 75, 99]))
        assert list(found) == [5, 75, 99]
        assert await store.read(b"") == b""

    async def test_read_behind_unfinished_commits(self, store: SessionStore) -> None:
        """A read waits for the batches that were given before it."""
        commits = [store.commit(make_batch(n, _messages([n]))) for n in range(1, 20)]
        assert records.check(await store.read(pack_keys(range(1, 20)))) == 19
        await asyncio.gather(*commits)

    async def test_commits_complete_in_order(self, store: SessionStore) -> None:
        """Batches under way together are done in the order of their numbers."""
        finished: list[int] = []
        commits = []
        for number in range(1, 51):
            future = store.commit(make_batch(number, _messages([number], size=40 * number)))
            future.add_done_callback(lambda _, number=number: finished.append(number))  # type: ignore[misc]
            commits.append(future)
        await asyncio.gather(*commits)
        await asyncio.sleep(0)
        assert finished == list(range(1, 51))

    async def test_batch_again_does_no_harm(self, store: SessionStore) -> None:
        """A batch whose fate was unknown may come again."""
        batch = make_batch(1, _messages([1, 2, 3]), values=[("n", b"k", b"v")])
        await store.commit(batch)
        await store.commit(batch)
        following = make_batch(2, _messages([4]), deleted=[1, 2])
        await store.commit(following)
        await store.commit(following)
        assert set(await _all(store)) == {3, 4}
        assert (await store.info()).records == 2

    async def test_much_comes_back_in_chunks(self, store: SessionStore, tmp_path: Path) -> None:
        """Big and many records come in chunks, not as one."""
        for number in range(20):
            first = number * 1000 + 1
            await store.commit(make_batch(number + 1, _messages(range(first, first + 1000), size=160)))
        await store.commit(make_batch(21, _messages([90_000], size=5_000_000)))
        gone = [key for key in range(1, 20_001) if key % 10]
        await store.commit(make_batch(22, deleted=gone))
        await store.gc()
        store = await self.reopened(store, tmp_path)
        try:
            chunks = [records.check(chunk) async for chunk in store.load()]
            assert len(chunks) > 1
            assert sum(chunks) == 2001
            wanted = [10, 5000, 20_000, 90_000]
            found = dict(records.decode(await store.read(pack_keys(wanted))))
            assert found == {**dict(_messages(wanted[:3], size=160)), **dict(_messages([90_000], size=5_000_000))}
            assert await store.check() == []
        finally:
            await store.close()

    async def test_gc_gives_space_back(self, store: SessionStore) -> None:
        """Dead records do not take their space for ever."""
        for number in range(1, 11):
            await store.commit(make_batch(number, _messages(range(number * 100, number * 100 + 100), size=8000)))
        before = (await store.info()).used_bytes
        await store.commit(make_batch(11, deleted=range(100, 1090)))
        await store.gc()
        after = (await store.info()).used_bytes
        assert after < before // 2
        assert set(await _all(store)) == set(range(1090, 1100))

    async def test_values_of_plugins(self, store: SessionStore, tmp_path: Path) -> None:
        """Values are kept by namespace, changed in the order of the batch, and given by prefix in order."""
        changes: list[ValueChange] = [
            ("a", b"x1", b"one"),
            ("a", b"x2", b"two"),
            ("b", b"x1", b"other"),
            ("a", b"y", b""),
            ("a", b"x2", b"second"),
            ("a", b"\xff\x00", b"\x00"),
            ("b", b"gone", b"1"),
            ("b", b"gone", None),
            ("b", b"never", None),
        ]
        await store.commit(make_batch(1, values=changes))
        store = await self.reopened(store, tmp_path)
        try:
            assert await store.value("a", b"x2") == b"second"
            assert await store.value("a", b"y") == b""
            assert await store.value("b", b"gone") is None
            assert await store.value("c", b"x1") is None
            assert [pair async for pair in store.values("a", b"x")] == [(b"x1", b"one"), (b"x2", b"second")]
            assert [key async for key, _ in store.values("a")] == [b"x1", b"x2", b"y", b"\xff\x00"]
            assert [key async for key, _ in store.values("a", b"\xff")] == [b"\xff\x00"]
            await store.commit(make_batch(1, values=[("a", b"x1", None)]))
            assert await store.value("a", b"x1") is None
            assert (await store.info()).values == 4
        finally:
            await store.close()

    async def test_records_and_values_are_one_batch(self, store: SessionStore) -> None:
        """A batch that does not fit leaves nothing behind: no record, no value, no deletion."""
        await store.commit(make_batch(1, _messages([1])))
        with self.out_of_space(store):
            big = make_batch(2, _messages(range(2, 500), size=16_384), deleted=[1], values=[("n", b"k", b"v")])
            following = make_batch(3, _messages([600]))
            outcomes = await asyncio.gather(store.commit(big), store.commit(following), return_exceptions=True)
            assert isinstance(outcomes[0], StoreError)
            assert outcomes[0].kind == "full"
            assert isinstance(outcomes[1], StoreError)  # not past the one that failed
            assert outcomes[1].kind == "closed"
            assert set(await _all(store)) == {1}
            assert await store.value("n", b"k") is None
        await store.commit(big)
        await store.commit(following)
        assert set(await _all(store)) == {*range(2, 500), 600}
        assert await store.value("n", b"k") == b"v"

    async def test_older_records_are_upgraded(
        self, store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Records of an older format pass through `records.upgrade`, once."""
        await store.commit(make_batch(1, _messages(range(1, 300))))
        await store.close()
        self.set_format(tmp_path, 0)
        upgraded: list[int] = []

        def step(chunk: bytes) -> bytes:
            upgraded.append(records.check(chunk))
            shouted = [(key, _message("UPGRADED", b"longer than before" * 9)) for key, *_ in records.index(chunk)]
            return b"".join(records.encode(*row) for row in shouted)

        monkeypatch.setitem(records.UPGRADES, 0, step)
        store = self.make_store(tmp_path)
        for _ in range(2):
            await store.open(self.no_alarm)
            found = await _all(store)
            assert len(found) == 299
            assert {record.topic for record in found.values() if isinstance(record, records.MessageRecord)} == {
                "UPGRADED"
            }
            await store.close()
            store = self.make_store(tmp_path)
        assert sum(upgraded) == 299

    async def test_newer_records_are_refused(self, store: SessionStore, tmp_path: Path) -> None:
        """A format from the future is left alone."""
        await store.commit(make_batch(1, _messages([1])))
        await store.close()
        self.set_format(tmp_path, records.FORMAT_VERSION + 1)
        newer = self.make_store(tmp_path)
        with pytest.raises(StoreError) as caught:
            await newer.open(self.no_alarm)
        assert caught.value.kind == "version"
        await newer.close()
        self.set_format(tmp_path, records.FORMAT_VERSION)
        again = self.make_store(tmp_path)
        await again.open(self.no_alarm)
        assert set(await _all(again)) == {1}
        await again.close()

    async def test_closed_store_says_so(self, store: SessionStore) -> None:
        """Nothing is taken and nothing given after `close`, and a second one does nothing."""
        unfinished = store.commit(make_batch(1, _messages([1])))
        await store.close()
        await unfinished  # close() completes what is under way
        await store.close()
        calls = [store.commit(make_batch(2, _messages([2]))), store.read(pack_keys([1])), store.value("a", b"k")]
        for call in (*calls, store.info()):
            with pytest.raises(StoreError) as caught:
                await call
            assert caught.value.kind == "closed"

    async def test_export_and_import(self, store: SessionStore) -> None:
        """What is exported makes an equal store."""
        rows = sample_records()
        await store.commit(make_batch(1, rows, values=[("bans", b"\x00k", b"v\xff"), ("other", b"k", b"v")]))
        lines = [line async for line in export_lines(store, ["bans"])]
        assert not any(b"\n" in line for line in lines)
        other = MemoryStore(is_durable=True)
        await other.open(self.no_alarm)
        assert await import_lines(other, lines) == len(rows) + 1
        assert await _all(other) == dict(rows)
        assert await other.value("bans", b"\x00k") == b"v\xff"
        assert [line async for line in export_lines(other, ["bans"])] == lines
        with contextlib.suppress(StoreError):
            await import_lines(store, lines)  # not empty
            pytest.fail("an import into a store that is in use")
