"""A broker with plugins that raise, hang, talk nonsense and flood serves its clients all the same."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mqttcore import (
    Broker,
    Client,
    Config,
    Connect,
    ConnectionRefused,
    Identity,
    Listener,
    PluginError,
    Recipients,
    Refusal,
    TopicHandler,
    hookimpl,
    open_client,
)
from mqttcore.codec import Subscription
from mqttcore.testing import MemoryBroker

SERVED_S = 60.0


class Good:
    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Identity | None:
        return Identity("good") if connect.client_id.startswith("good") else None


class Raises:
    """In every hook that it can."""

    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Any:
        raise KeyError(connect.client_id)

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Any:
        return [TopicHandler("bad/raises", self.handle)]

    def handle(self, client: Any, message: Any) -> Any:
        raise RuntimeError(message.topic)

    @hookimpl
    def observe(self, events: Any) -> Any:
        raise OSError("disk full")

    @hookimpl
    def shutdown(self) -> Any:
        raise RuntimeError("no end")


class Hangs:
    @hookimpl
    async def authenticate(self, client: Any, connect: Connect) -> Any:
        await asyncio.Event().wait()

    @hookimpl
    async def observe(self, events: Any) -> Any:
        await asyncio.Event().wait()

    @hookimpl
    async def shutdown(self) -> Any:
        await asyncio.Event().wait()


class Junk:
    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Any:
        return {"result": "allow"}

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Any:
        return [TopicHandler("bad/junk", lambda client, message: "consumed")]

    @hookimpl
    def observe(self, events: Any) -> Any:
        return 5


class Floods:
    """Publishes as fast as it can, as long as the broker lives."""

    def __init__(self) -> None:
        self.published = 0

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        self.task = asyncio.create_task(self.flood(broker))

    async def flood(self, broker: Broker) -> None:
        while True:
            for _ in range(100):
                await broker.publish("flood", bytes(100), qos=1)
                self.published += 1
            await asyncio.sleep(0)

    @hookimpl
    async def shutdown(self) -> None:
        self.task.cancel()


@pytest.mark.parametrize("bad", [Raises, Hangs, Junk, Floods])
async def test_others_are_served(bad: Any):
    plugin = bad()
    config = Config(
        listeners=[Listener(port=0)],
        authentication_timeout_s=0.05,
        plugin_timeout_s=0.05,
        shutdown_timeout_s=0.2,
        sys_interval_s=0,
        overload_lag_ms=0,  # a busy machine is no reason to refuse a client
    )
    async with asyncio.timeout(100):
        async with Broker(config, plugins=[Good(), plugin]) as broker:
            host, port = broker.addresses[0][1:]
            began_s = time.monotonic()

            async def client(client_id: str) -> Client:
                return await open_client(Connect(client_id), host=host, port=port)

            async with await client("good-1") as one, await client("good-2") as two:
                await two.subscribe([Subscription("t", 1)])
                for number in range(20):
                    await one.publish("t", str(number).encode(), qos=1)
                    assert (await two.receive()).payload == str(number).encode()
                await one.publish(f"bad/{bad.__name__.lower()}", b"x", qos=0)
                assert time.monotonic() - began_s < SERVED_S
                for _ in range(3):
                    with pytest.raises(ConnectionRefused):
                        await client("bad")
                await one.publish("t", b"after", qos=1)
                assert (await two.receive()).payload == b"after"
            name = f"plugin_{bad.__name__.lower()}_errors"
            assert (broker.metrics()[name] > 0) == (bad is not Floods)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_flooded_subscriber_loses_messages_and_nobody_else():
    plugin = Floods()
    async with MemoryBroker(plugins=[plugin]) as broker:
        flooded = await broker.connect("flooded")
        await flooded.subscribe("flood", qos=1)
        other = await broker.connect("other")
        await other.subscribe("t")
        while plugin.published < 5_000:
            await broker.settle()
        await broker.publish("t", b"x")
        assert (await other.message()).payload == b"x"
        record = broker.client("flooded")
        assert record is not None
        assert record.queued <= broker.config.limits.queued_messages_maximum
        assert record.dropped > 0


async def test_handler_that_fails_refuses_the_message_and_is_counted():
    async with MemoryBroker(plugins=[Good(), Raises(), Junk()]) as broker:
        client = await broker.connect("good")
        await client.subscribe("#")
        assert await client.publish("bad/raises", qos=1) == 0x80
        assert await client.publish("bad/junk", qos=1) == 0x80
        await client.expect_nothing()
        assert broker.metrics()["plugin_junk_errors"] == 1
        assert broker.metrics()["plugin_raises_errors"] >= 1


@pytest.mark.parametrize(
    "handlers",
    [
        ["nothing"],
        5,
        [TopicHandler("a/#/b", lambda client, message: Recipients(()))],
        [TopicHandler("$share/g/a", lambda client, message: Recipients(()))],
        [TopicHandler("a", Hangs().authenticate)],
    ],
)
async def test_handlers_that_cannot_hang_stop_the_start(handlers: Any):
    class Plugin:
        name = "wrong"

        @hookimpl
        def topic_handlers(self) -> Any:
            return handlers

    broker = MemoryBroker(plugins=[Plugin()])
    with pytest.raises(PluginError, match=r"^plugin wrong, hook topic_handlers: "):
        async with broker:
            pass
    assert not broker.is_running


@pytest.mark.parametrize("hook", ["event_types", "http_routes", "topic_handlers", "open_store"])
async def test_wiring_that_raises_stops_the_start(hook: str):
    def fail(self: Any) -> Any:
        raise LookupError("gone")

    plugin = type("Wiring", (), {hook: hookimpl(fail)})()
    config = Config(listeners=[Listener(port=0, protocol="http")], sys_interval_s=0)
    with pytest.raises(PluginError, match=f"^plugin wiring, hook {hook}: LookupError: gone"):
        await Broker(config, plugins=[plugin]).start()


async def test_refusals_of_one_plugin_do_not_leak_into_another():
    class Refuses:
        @hookimpl
        def authenticate(self, client: Any, connect: Connect) -> Refusal:
            return Refusal(0x8A, "because")

    async with MemoryBroker(plugins=[Refuses(), Good()]) as broker:
        client = await broker.connect("good", expect=0x8A)
        assert client.connack is not None
        assert client.connack.properties[0x1F] == "because"
        assert [call.plugin for call in broker.hook_calls("authenticate")] == ["refuses"]
