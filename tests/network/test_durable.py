"""A broker with a store: stopped and started, or cut off, failing, slow."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from mqttcore import Broker, Config, PropertyId, QuotaExceeded, ReasonCode, StoreError
from mqttcore.codec import Connect, Publish, PubRec, Subscription, Will
from mqttcore.config import StoreSettings
from mqttcore.errors import ConnectionLost, ConnectionRefused
from mqttcore.store import records
from mqttcore.testing.store import ControlledStore
from network.clients import Raw, join, until
from network.conftest import quiet_config

pytestmark = pytest.mark.usefixtures("driver")

DURABLE = {PropertyId.SESSION_EXPIRY_INTERVAL: 3600}


@pytest.fixture
def store() -> ControlledStore:
    return ControlledStore()


def config_with(*, shutdown_timeout_s: float = 60) -> Config:
    return msgspec.structs.replace(
        quiet_config(shutdown_timeout_s=shutdown_timeout_s), store=StoreSettings(retry_s=0.02)
    )


async def durable(broker: Broker, client_id: str, **connect: object):
    return await join(broker, client_id, clean_start=False, properties=DURABLE, **connect)


async def test_sessions_messages_and_retained_survive_a_restart(config: Config, store: ControlledStore):
    async with Broker(config, store=store) as broker:
        async with await durable(broker, "sleeper") as client:
            await client.subscribe([Subscription("a/+", 2)])
        async with await join(broker, "writer") as client:
            for number in range(300):
                await client.publish("a/1", b"%d" % number, qos=1 + number % 2)
            await client.publish("r", b"kept", qos=1, retain=True)
        await broker.publish("a/2", b"ours", qos=1)
    assert store.batches
    async with Broker(config, store=store) as broker:
        assert [message.payload for message in broker.retained()] == [b"kept"]
        info = broker.client("sleeper")
        assert info is not None
        assert (info.queued, info.subscriptions) == (301, ("a/+",))
        client = await durable(broker, "sleeper")
        async with client:
            found = [await client.receive() for _ in range(301)]
        by_qos = {qos: [int(one.payload) for one in found if one.qos == qos and one.topic == "a/1"] for qos in (1, 2)}
        assert by_qos == {1: list(range(0, 300, 2)), 2: list(range(1, 300, 2))}
    async with Broker(config, store=store) as broker:
        assert broker.client("sleeper").queued == 0  # type: ignore[union-attr]
        assert broker.metrics()["store_failing"] == 0


async def test_stop_answers_who_waits_and_keeps_wills_and_expiry(store: ControlledStore):
    async with Broker(config_with(), store=store) as broker:
        async with await durable(broker, "watcher") as watcher:
            await watcher.subscribe([Subscription("will", 1)])
        await durable(broker, "mortal", will=Will("will", b"gone", qos=1))
        writer = await Raw.open(broker)
        await writer.send(Connect("writer"))
        await writer.receive()
        store.is_held = True
        await writer.send(Publish("will", b"late", qos=1, packet_id=7))
        await until(lambda: broker.metrics()["messages_received_qos1"] >= 1)
        asyncio.get_running_loop().call_later(0.1, unhold, store)
        await broker.stop()
        assert (await writer.receive()).packet_id == 7  # type: ignore[union-attr]
        writer.close()
    rows = [row for chunk in store._chunks() for _, row in records.decode(chunk)]
    assert sorted(row.payload for row in rows if isinstance(row, records.MessageRecord)) == [b"gone", b"late"]
    assert all(row.expires_at for row in rows if isinstance(row, records.SessionRecord))


def unhold(store: ControlledStore) -> None:
    store.is_held = False
    store.release()


async def test_publish_returns_when_the_message_is_safe(store: ControlledStore):
    async with Broker(config_with(), store=store) as broker:
        async with await durable(broker, "sleeper") as client:
            await client.subscribe([Subscription("a", 1)])
        await until(lambda: broker.metrics()["store_pending_bytes"] == 0)
        store.is_held = True
        publishing = asyncio.create_task(broker.publish("a", b"m", qos=1))
        await until(lambda: len(store._waiting) == 1)
        assert not publishing.done()
        assert await broker.publish("a", b"m", qos=0) == 1
        assert await broker.publish("nobody", b"m", qos=1) == 0
        unhold(store)
        assert await publishing == 1
        store.fails_with = "full"
        with pytest.raises(StoreError, match="full"):
            await broker.publish("a", b"m", qos=1)
        with pytest.raises(StoreError, match="full"):
            await broker.publish("a", b"m", qos=1)  # before it is even tried
        store.fails_with = None
        await until(lambda: not broker.metrics()["store_failing"])
        assert await broker.publish("a", b"m", qos=1) == 1


async def test_failing_store_is_an_alarm_until_it_recovers(store: ControlledStore):
    async with Broker(config_with(), store=store) as broker:
        async with await durable(broker, "sleeper") as client:
            await client.subscribe([Subscription("a", 1)])
        async with await join(broker, "writer") as writer:
            store.fails_with = "io"
            assert await writer.publish("a", b"m", qos=1) == ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
            await until(lambda: "store_failing" in broker.alarms)
            assert broker.metrics()["store_failing"] == 1
            assert await writer.publish("a", b"m", qos=1) == ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
            assert await writer.publish("b", b"m", qos=1) == ReasonCode.NO_MATCHING_SUBSCRIBERS
            with pytest.raises(ConnectionRefused):
                await durable(broker, "new")
            store.fails_with = None
            await until(lambda: not broker.alarms)
            assert await writer.publish("a", b"m", qos=1) == ReasonCode.SUCCESS
            assert broker.metrics()["store_commit_failures"] >= 1
    assert broker.is_running is False


async def test_store_that_fails_at_the_end_does_not_hold_up_the_stop(store: ControlledStore):
    broker = Broker(config_with(shutdown_timeout_s=0.5), store=store)
    await broker.start()
    async with await durable(broker, "sleeper") as client:
        await client.subscribe([Subscription("a", 1)])
    store.is_held = True
    with contextlib.suppress(StoreError):
        async with asyncio.timeout(60):
            waiting = asyncio.create_task(broker.publish("a", b"m", qos=1))
            await asyncio.sleep(0)
            await broker.stop()
            await waiting
    assert waiting.done()
    store.release()


async def test_slow_store_holds_up_durable_publishers_only(store: ControlledStore):
    async with Broker(config_with(), store=store) as broker, await join(broker, "reader") as reader:
        await reader.subscribe([Subscription("clean", 1)])
        async with await durable(broker, "sleeper") as client:
            await client.subscribe([Subscription("a", 1)])
        await until(lambda: broker.metrics()["store_pending_bytes"] == 0)
        store.is_held = True
        async with await join(broker, "slow") as slow, await join(broker, "fast") as fast:
            held = asyncio.create_task(slow.publish("a", b"m", qos=1))
            for number in range(50):
                assert await fast.publish("clean", b"%d" % number, qos=1) == ReasonCode.SUCCESS
                assert (await reader.receive()).payload == b"%d" % number
            assert not held.done()
            unhold(store)
            assert await held == ReasonCode.SUCCESS


async def test_long_queue_is_paged_in(store: ControlledStore):
    config = quiet_config(
        queued_messages_maximum=100_000, queued_resident_messages=50, queued_total_bytes_maximum=2**30
    )
    async with Broker(config, store=store) as broker:
        async with await durable(broker, "sleeper") as client:
            await client.subscribe([Subscription("a", 1)])
        for number in range(2000):
            broker.publish_nowait("a", b"%d" % number, qos=1)
        async with await durable(broker, "sleeper") as client:
            found = [int((await client.receive()).payload) for _ in range(1000)]
        assert found == list(range(1000))
    async with Broker(config, store=store) as broker:
        async with await durable(broker, "sleeper") as client:
            rest: list[int] = []
            while not rest or rest[-1] != 1999:
                rest.append(int((await client.receive()).payload))
        assert rest == list(range(rest[0], 2000))
        assert rest[0] <= 1000
        assert broker.metrics()["queued_paged_in"] > 500
        assert broker.metrics()["store_reads"] > 10


async def test_data_of_plugins(store: ControlledStore):
    for turn in range(2):
        async with Broker(config_with(), store=store) as broker:
            data = broker.plugin_data("bans")
            assert await data.get(b"a") == (b"1" if turn else None)
            await data.set(b"a", b"1")
            store.is_held = True
            changes = [data.set(b"b", b"2"), data.set(b"c", b"3"), data.delete(b"a"), data.set(b"0", b"0")]
            assert await data.get(b"b") == b"2"
            assert await data.get(b"a") is None
            assert [pair async for pair in data.items()] == [(b"0", b"0"), (b"b", b"2"), (b"c", b"3")]
            unhold(store)
            await asyncio.gather(*changes)
            await data.delete(b"b")
            assert [pair async for pair in data.items(b"c")] == [(b"c", b"3")]
            assert await broker.plugin_data("other").get(b"c") is None
            await data.set(b"a", b"1")
            store.fails_with = "full"
            with pytest.raises(StoreError, match="full"):
                await data.set(b"d", b"4")
            store.fails_with = None


async def test_data_of_plugins_without_a_store(config: Config):
    async with Broker(config) as broker:
        data = broker.plugin_data("p")
        await data.set(b"k", b"v")
        assert await data.get(b"k") == b"v"
        async with await durable(broker, "sleeper") as client:
            await client.subscribe([Subscription("a", 1)])
        await broker.publish("a", b"m", qos=1)
        assert broker.metrics()["store_records_written"] == 0
    async with Broker(config) as broker:
        assert await broker.plugin_data("p").get(b"k") is None


async def test_full_queue_refuses_its_publisher(store: ControlledStore):
    config = quiet_config(queue_drop="refuse", queued_messages_maximum=1)
    async with Broker(config, store=store) as broker:
        async with await durable(broker, "sleeper") as client:
            await client.subscribe([Subscription("a", 1)])
        await broker.publish("a", b"m", qos=1)
        with pytest.raises(QuotaExceeded):
            await broker.publish("a", b"m", qos=1)
        async with await join(broker, "five") as five:
            assert await five.publish("a", b"m", qos=1) == ReasonCode.QUOTA_EXCEEDED
            assert await five.publish("a", b"m", qos=2) == ReasonCode.QUOTA_EXCEEDED
        four = await join(broker, "four", protocol_version=4)
        with pytest.raises(ConnectionLost):
            await four.publish("a", b"m", qos=1)
        with pytest.raises(ConnectionLost):
            await four.wait_closed()


async def test_store_of_another_kind_is_refused(config: Config):
    with pytest.raises(Exception, match="no SessionStore"):
        await Broker(config, store=object()).start()  # type: ignore[arg-type]


async def test_corrupt_store_stops_the_start(config: Config, store: ControlledStore):
    async with Broker(config, store=store) as broker:
        await broker.publish("r", b"m", qos=1, retain=True)
    key, record = next(iter(store._records.items()))
    store._records[key] = record[:-1] + b""
    with pytest.raises(StoreError, match="corrupt"):
        await Broker(config, store=store).start()
    store._records[key] = record
    async with Broker(config, store=store) as broker:
        assert len(broker.retained()) == 1


async def test_qos_2_is_complete_over_restarts(store: ControlledStore):
    config = config_with()
    for turn in range(3):
        async with Broker(config, store=store) as broker:
            if turn == 0:
                async with await durable(broker, "reader") as reader:
                    await reader.subscribe([Subscription("a", 2)])
            async with await Raw.open(broker) as writer:
                await writer.send(Connect("writer", clean_start=False, properties=DURABLE))
                await writer.receive()
                await writer.send(Publish("a", b"once", qos=2, packet_id=3, dup=turn > 0))
                assert await writer.receive() == PubRec(3)
            assert broker.client("reader").queued == 1  # type: ignore[union-attr]
