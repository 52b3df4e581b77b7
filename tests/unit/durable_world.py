"""A broker without sockets over a disk made of dicts: commits happen when the test says so, and so do crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mqttcore.codec import Connect, Decoder, PubAck, PubComp, Publish, PubRec, PubRel, Subscribe, Subscription
from mqttcore.config import Limits
from mqttcore.constants import PropertyId
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.keeper import Keeper
from mqttcore.engine.restore import Restorer
from mqttcore.store import records

if TYPE_CHECKING:
    from mqttcore.engine.hooks import HookTable
    from mqttcore.errors import StoreErrorKind
    from mqttcore.store.contract import StoreBatch

WALL_MS = 1_800_000_000_000


class Door:
    """A listener."""

    name = "unit"
    allow_anonymous = True


class Disk:
    """Records by key, as a store keeps them. chunk_records: how many `load` gives at a time."""

    def __init__(self, chunk_records: int = 3) -> None:
        self.table: dict[int, bytes] = {}
        self.last_key = 0
        self.chunk_records = chunk_records
        self.written = 0

    def apply(self, batch: StoreBatch) -> None:
        assert records.check(batch.records) == batch.count
        keys = [key for key, *_ in records.index(batch.records)]
        if keys:
            assert (batch.first_key, batch.last_key) == (keys[0], keys[-1])
            assert keys[0] > self.last_key
            self.last_key = keys[-1]
        for key, _, start, end in records.index(batch.records):
            self.table[key] = batch.records[start:end]
            self.written += 1
        deleted = list(memoryview(batch.deleted).cast("Q"))
        assert deleted == sorted(set(deleted))
        for key in deleted:
            assert key in self.table, f"key {key} is deleted and was not there"
            del self.table[key]

    def load(self) -> list[bytes]:
        keys = sorted(self.table)
        return [
            b"".join(self.table[key] for key in keys[at : at + self.chunk_records])
            for at in range(0, len(keys), self.chunk_records)
        ]

    def read(self, keys: bytes) -> bytes:
        return b"".join(self.table.get(key, b"") for key in memoryview(keys).cast("Q"))

    def rows(self, kind: type[records.Record] = records.Record) -> list[Any]:
        found = [row for chunk in self.load() for _, row in records.decode(chunk)]
        return [row for row in found if isinstance(row, kind)]


class Peer:
    """A client that the test plays packet by packet."""

    def __init__(self, world: World, version: int) -> None:
        self.world = world
        self.version = version
        self.connection = Connection(world.engine, Door())
        self._decoder = Decoder(version, sender="server")

    def send(self, *packets: Any) -> None:
        self.connection.receive(b"".join(packet.encode(self.version) for packet in packets))
        self.world.engine.flush()

    def take(self) -> list[Any]:
        """Return what came from the broker since the last call."""
        found = []
        while data := self.connection.take_output():
            found += self._decoder.feed(data)
        return found

    def lose(self) -> None:
        self.connection.connection_lost()


class World:
    """One broker and its disk; `crash` makes a new broker of what the disk has."""

    def __init__(
        self,
        *,
        chunk_records: int = 3,
        keeps_retained: bool = True,
        bytes_maximum: int = 1 << 24,
        hooks: HookTable | None = None,
        **limits: Any,
    ):
        self.disk = Disk(chunk_records)
        self.limits = Limits(publisher_pause_ms=0, **limits)
        self.keeps_retained = keeps_retained
        self.bytes_maximum = bytes_maximum
        self.hooks = hooks
        self.wall_ms = WALL_MS
        self.counts: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        self.now_ms = 1_000
        self.engine = Engine(self.limits, self.hooks, now_ms=self.now_ms)
        self.keeper = Keeper(
            self.engine, wall_ms=self.wall_ms, bytes_maximum=self.bytes_maximum, keeps_retained=self.keeps_retained
        )
        self.waiting: list[StoreBatch] = []
        restorer = Restorer(self.keeper, last_key=self.disk.last_key)
        for chunk in self.disk.load():
            restorer.feed(chunk)
        while keys := restorer.wanted():
            restorer.supply(keys, self.disk.read(keys))
        self.counts = restorer.finish()

    # --- the disk

    def take(self) -> StoreBatch | None:
        """Hand the batch over that gathered; it waits to be written."""
        batch = self.keeper.take_batch()
        if batch is not None:
            self.waiting.append(batch)
        return batch

    def commit(self, count: int | None = None) -> int:
        """Write what was handed over, tell the engine, and page in what it asks for."""
        batches, self.waiting = self.waiting[:count], [] if count is None else self.waiting[count:]
        for batch in batches:
            self.disk.apply(batch)
            self.keeper.committed(batch.number)
        self.engine.flush()
        return len(batches)

    def settle(self) -> None:
        """Take, commit and read until nothing is left to do."""
        while self.take() is not None or self.waiting or self.keeper.has_work:
            self.commit()
            self.read()
        self.engine.flush()

    def read(self) -> int:
        """Page in what sessions ask for."""
        wanted = self.keeper.take_reads()
        for session, keys in wanted:
            self.keeper.page_in(session, keys, self.disk.read(keys))
        self.engine.flush()
        return len(wanted)

    def fail(self, kind: StoreErrorKind = "full") -> None:
        """Have the disk refuse what was handed over; it is to be committed again later."""
        self.take()
        assert self.waiting
        self.keeper.failed(self.waiting[0].number, kind)
        self.engine.flush()

    def crash(self, down_ms: int = 0) -> None:
        """Lose everything but the disk, and start again."""
        self.wall_ms += self.now_ms - 1_000 + down_ms
        self.start()

    def tick(self, ms: int) -> None:
        """Let time pass."""
        while ms > 0:
            step = min(ms, 100)
            self.now_ms += step
            ms -= step
            self.engine.advance(self.now_ms)
        self.engine.flush()

    # --- clients

    def peer(self, version: int = 5) -> Peer:
        return Peer(self, version)

    def connect(
        self, client_id: str, *, version: int = 5, clean: bool = False, expiry_s: int = 3600, **options: Any
    ) -> Peer:
        """Return a connected client, its CONNACK still to be taken."""
        peer = self.peer(version)
        properties = dict(options.pop("properties", {}))
        if version == 5 and expiry_s:
            properties[PropertyId.SESSION_EXPIRY_INTERVAL] = expiry_s
        peer.send(connect_packet(client_id, version, clean, properties, **options))
        return peer

    def durable(self, client_id: str, *topic_filters: str, qos: int = 2, version: int = 5, **options: Any) -> Peer:
        """Return a durable client that is connected and subscribed, all of it on disk."""
        peer = self.connect(client_id, version=version, **options)
        self.settle()
        if topic_filters:
            peer.send(Subscribe(1, [Subscription(topic_filter, qos) for topic_filter in topic_filters], {}))
            self.settle()
        peer.take()
        return peer

    def publisher(self, version: int = 5) -> Peer:
        """Return a clean client, connected."""
        peer = self.connect(f"publisher-{version}", version=version, clean=True, expiry_s=0)
        peer.take()
        return peer


def connect_packet(client_id: str, version: int, clean: bool, properties: dict[int, Any], **options: Any) -> Connect:
    return Connect(
        client_id=client_id,
        clean_start=clean,
        keep_alive_s=options.pop("keep_alive_s", 0),
        protocol_version=version,
        properties=properties,
        **options,
    )


def publish(topic: str, payload: bytes, qos: int = 1, packet_id: int = 1, **options: Any) -> Publish:
    return Publish(topic, payload, qos=qos, packet_id=packet_id if qos else 0, **options)


__all__ = [
    "WALL_MS",
    "Disk",
    "Peer",
    "PubAck",
    "PubComp",
    "PubRec",
    "PubRel",
    "World",
    "publish",
]
