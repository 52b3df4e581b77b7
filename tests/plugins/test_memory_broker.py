"""`mqttcore.testing`: the broker and client in memory do what the real ones do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mqttcore import (
    Broker,
    Config,
    Connect,
    Identity,
    Listener,
    PluginError,
    PropertyId,
    ReasonCode,
    Refusal,
    Will,
    hookimpl,
)
from mqttcore.codec import PingReq
from mqttcore.store.memory import MemoryStore
from mqttcore.testing import MemoryBroker


class Slow:
    """Lets in after a minute, whoever says so."""

    @hookimpl
    async def authenticate(self, client: Any, connect: Connect) -> Identity | Refusal:
        await asyncio.sleep(int(connect.user_name or "0"))
        return Identity("slow") if connect.password == b"good" else Refusal()


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_go_round(version: int, qos: int):
    async with MemoryBroker() as broker:
        subscriber = await broker.connect("s", version=version)
        assert await subscriber.subscribe("a/+", "b") == [2, 2]
        publisher = await broker.connect("p", version=version)
        assert await publisher.publish("a/1", b"one", qos=qos) == 0
        message = await subscriber.message()
        assert (message.topic, message.payload, message.qos) == ("a/1", b"one", qos)
        await subscriber.expect_nothing()
        await subscriber.unsubscribe("a/+")
        await broker.publish("a/1", b"two")
        await subscriber.expect_nothing()
        await publisher.disconnect()
        assert publisher.is_closed
        assert broker.client("p") is None


async def test_will_when_a_client_is_lost():
    async with MemoryBroker() as broker:
        watcher = await broker.connect("w")
        await watcher.subscribe("gone")
        client = await broker.connect("c", will=Will("gone", b"c"))
        await client.lose()
        assert (await watcher.message()).payload == b"c"


async def test_time_is_set_ahead_for_engine_loop_and_time():
    async with MemoryBroker(plugins=[Slow()]) as broker:
        before = time.time(), time.monotonic()
        client = await broker.connect("c", keep_alive_s=10, user_name="0", password=b"good")
        await broker.advance(14)
        assert not client.is_closed
        await broker.advance(2)
        await client.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)
        assert time.time() - before[0] >= 16
        assert time.monotonic() - before[1] >= 16
        waiting = broker.open()
        await waiting.send(Connect("d", user_name="2", password=b"good"))
        assert broker.metrics()["authentications_waiting"] == 1
        await broker.advance(2)
        assert (await waiting.receive()).reason_code == 0
    assert time.time() - before[0] < 10


async def test_calls_of_hooks_are_recorded():
    async with MemoryBroker(plugins=[Slow()]) as broker:
        await broker.connect("c", password=b"bad", expect=ReasonCode.NOT_AUTHORIZED)
        (call,) = broker.hook_calls("authenticate")
        assert (call.plugin, call.arguments[0].client_id, call.arguments[1].password) == ("slow", "c", b"bad")


async def test_what_does_not_come_is_said():
    async with MemoryBroker() as broker:
        client = await broker.connect("c")
        await client.send(PingReq())
        with pytest.raises(AssertionError, match="not closed, but"):
            await client.expect_closed()
        with pytest.raises(AssertionError, match="CONNACK says 0x00, not 0x87"):
            await broker.connect("d", expect=ReasonCode.NOT_AUTHORIZED)
        await client.send(b"\xff\x00")
        await client.expect_closed(ReasonCode.MALFORMED_PACKET)
        with pytest.raises(AssertionError, match="the broker closed"):
            await client.receive()


async def test_listeners_are_told_apart():
    config = Config(
        listeners=[Listener(name="in", plugins=[]), Listener(name="out")], allow_anonymous=True, sys_interval_s=0
    )
    async with MemoryBroker(config, plugins=[Slow()]) as broker:
        await broker.connect("a", listener="in")
        await broker.connect("a", listener="out", expect=ReasonCode.NOT_AUTHORIZED)
        with pytest.raises(ValueError, match="no listener x"):
            broker.open(listener="x")


async def test_it_is_a_broker_and_leaves_nothing():
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 60}
    async with MemoryBroker() as broker:
        assert isinstance(broker, Broker)
        assert broker.addresses == []
        client = await broker.connect("a", properties=properties)
        await client.subscribe("t", qos=1)
        await client.lose()
        await broker.publish("t", b"kept", qos=1)
        client = await broker.connect("a", properties=properties, clean_start=False)
        assert client.connack is not None
        assert client.connack.session_present
        assert (await client.message()).payload == b"kept"
        await client.lose()
        await broker.advance(61)
        assert broker.clients() == []
    assert not broker.is_running


class Gives:
    """Gives a store."""

    def __init__(self, store: Any, name: str = "gives") -> None:
        self.store, self.name = store, name

    @hookimpl
    def open_store(self) -> Any:
        return self.store


async def test_store_of_a_plugin_is_used_and_two_are_refused():
    store = MemoryStore()
    async with MemoryBroker(plugins=[Gives(store)]) as broker:
        assert broker._store is store
        await broker.connect("a", properties={PropertyId.SESSION_EXPIRY_INTERVAL: 600})
    with pytest.raises(PluginError, match="plugin other, hook open_store: gives gives a store already"):
        await MemoryBroker(plugins=[Gives(store), Gives(store, "other")]).start()
