"""Hooks of the packet path: one plugin alone, several folded, and what goes wrong in either."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mqttcore import (
    Broker,
    ClientView,
    Config,
    Listener,
    Message,
    PropertyId,
    PublishChange,
    ReasonCode,
    Refusal,
    hookimpl,
)
from mqttcore.codec import PingReq, PingResp, SubAck, Subscribe, Subscription
from mqttcore.testing import MemoryBroker, MemoryClient


def plugin(name: str, **hooks: Any) -> Any:
    """Return a plugin whose hooks are these functions, without self."""
    made = {"name": name}
    for hook, function in hooks.items():
        made[hook] = hookimpl(HOOKS[hook](function))
    return type("Made", (), made)()


def _of_publish(function: Any) -> Any:
    def authorize_publish(self: Any, client: ClientView, topic: str, qos: int, retain: bool) -> Any:
        return function(client, topic, qos, retain)

    return authorize_publish


def _of_subscribe(function: Any) -> Any:
    def authorize_subscribe(self: Any, client: ClientView, topic_filter: str, qos: int) -> Any:
        return function(client, topic_filter, qos)

    return authorize_subscribe


def _of_message(function: Any) -> Any:
    def of_message(self: Any, client: ClientView, message: Message) -> Any:
        return function(client, message)

    return of_message


def _of_connect(function: Any) -> Any:
    def admit(self: Any, client: ClientView, connect: Any) -> Any:
        return function(client, connect)

    return admit


HOOKS = {
    "admit": _of_connect,
    "authorize_publish": _of_publish,
    "authorize_subscribe": _of_subscribe,
    "authorize_deliver": _of_message,
    "transform_publish": _of_message,
}

BEFORE = plugin("before", **{hook: lambda *arguments: None for hook in HOOKS})


def alone_and_folded(bad: Any) -> list[list[Any]]:
    return [[bad], [BEFORE, bad]]


def fail(*arguments: Any) -> Any:
    raise RuntimeError("broken")


def junk(*arguments: Any) -> Any:
    return "yes"


async def pair(broker: MemoryBroker) -> tuple[MemoryClient, MemoryClient]:
    subscriber = await broker.connect("s")
    await subscriber.subscribe("#")
    return await broker.connect("p"), subscriber


def test_one_plugin_is_called_by_the_engine_itself():
    one = plugin("one", authorize_publish=lambda *arguments: None)
    broker = Broker(Config(listeners=[Listener(port=0)], overload_lag_ms=0), plugins=[one])
    table = broker._load_plugins().hook_table()
    assert table.authorize_publish == one.authorize_publish
    assert (table.authorize_deliver, table.transform_publish, table.admit, table.authenticate) == (None,) * 4


@pytest.mark.parametrize("act", [fail, junk])
@pytest.mark.parametrize("index", [0, 1])
async def test_failing_at_publish_refuses(act: Any, index: int):
    plugins = alone_and_folded(plugin("bad", authorize_publish=act))[index]
    async with MemoryBroker(plugins=plugins) as broker:
        publisher, subscriber = await pair(broker)
        assert await publisher.publish("t", qos=1) == ReasonCode.UNSPECIFIED_ERROR
        await subscriber.expect_nothing()
        assert broker.metrics()["plugin_bad_errors"] == 1


@pytest.mark.parametrize("act", [fail, junk])
@pytest.mark.parametrize("index", [0, 1])
async def test_failing_at_deliver_drops(act: Any, index: int):
    plugins = alone_and_folded(plugin("bad", authorize_deliver=act))[index]
    async with MemoryBroker(plugins=plugins) as broker:
        publisher, subscriber = await pair(broker)
        assert await publisher.publish("t", qos=1) in (0, ReasonCode.NO_MATCHING_SUBSCRIBERS)
        await subscriber.expect_nothing()
        assert broker.metrics()["plugin_bad_errors"] == 1
        assert broker.metrics()["messages_dropped_not_authorized"] == 1


@pytest.mark.parametrize("act", [fail, junk])
@pytest.mark.parametrize("index", [0, 1])
async def test_failing_at_transform_refuses(act: Any, index: int):
    plugins = alone_and_folded(plugin("bad", transform_publish=act))[index]
    async with MemoryBroker(plugins=plugins) as broker:
        publisher, subscriber = await pair(broker)
        assert await publisher.publish("t", qos=1) == ReasonCode.UNSPECIFIED_ERROR
        await subscriber.expect_nothing()
        assert broker.metrics()["plugin_bad_errors"] == 1
        assert broker.metrics().get("plugin_before_errors", 0) == 0


@pytest.mark.parametrize("act", [fail, junk])
async def test_failing_at_admit_refuses(act: Any):
    async with MemoryBroker(plugins=[plugin("bad", admit=act)]) as broker:
        await broker.connect("a", expect=ReasonCode.UNSPECIFIED_ERROR)
        assert broker.metrics()["plugin_bad_errors"] == 1


async def test_first_to_admit_otherwise_decides():
    first = plugin("first", admit=lambda *arguments: Refusal(ReasonCode.BANNED))
    async with MemoryBroker(plugins=[BEFORE, first, plugin("bad", admit=fail)]) as broker:
        await broker.connect("a", expect=ReasonCode.BANNED)
        assert broker.metrics()["plugin_bad_errors"] == 0


async def test_first_answer_to_publish_counts():
    allows = plugin("allows", authorize_publish=lambda client, topic, qos, retain: topic == "good" or None)
    denies = plugin("denies", authorize_publish=lambda *arguments: ReasonCode.QUOTA_EXCEEDED)
    async with MemoryBroker(plugins=[BEFORE, allows, denies]) as broker:
        publisher, _ = await pair(broker)
        assert await publisher.publish("good", qos=1) == 0
        assert await publisher.publish("bad", qos=1) == ReasonCode.QUOTA_EXCEEDED


async def test_each_transforms_what_the_one_before_made():
    def louder(client: ClientView, message: Message) -> PublishChange:
        return PublishChange(payload=message.payload + b"!", topic=f"{message.topic}/x")

    def typed(client: ClientView, message: Message) -> PublishChange:
        assert (message.topic, message.payload) == ("t/x", b"hi!")
        return PublishChange(payload=message.payload * 2, properties={PropertyId.CONTENT_TYPE: "text"})

    plugins = [plugin("a", transform_publish=louder), BEFORE, plugin("b", transform_publish=typed)]
    async with MemoryBroker(plugins=plugins) as broker:
        publisher, subscriber = await pair(broker)
        assert await publisher.publish("t", b"hi", qos=1) == 0
        message = await subscriber.message()
        assert (message.topic, message.payload) == ("t/x", b"hi!hi!")
        assert message.properties[PropertyId.CONTENT_TYPE] == "text"


async def test_subscribing_waits_for_its_answer_and_keeps_order():
    gate = asyncio.Event()

    async def slow(client: ClientView, topic_filter: str, qos: int) -> int | None:
        await gate.wait()
        return 1 if topic_filter == "one" else None

    denies = plugin("denies", authorize_subscribe=lambda client, topic_filter, qos: topic_filter != "no")
    async with MemoryBroker(plugins=[plugin("slow", authorize_subscribe=slow), denies]) as broker:
        client = await broker.connect("a")
        wanted = [Subscription(name, 2) for name in ("one", "two", "no")]
        await client.send(Subscribe(5, wanted), PingReq())
        other = await broker.connect("b")
        await other.expect_nothing()
        assert broker.metrics()["subscriptions"] == 0
        gate.set()
        assert await client.expect(SubAck) == SubAck(5, [1, 2, ReasonCode.NOT_AUTHORIZED])
        await client.expect(PingResp)


@pytest.mark.parametrize("act", [fail, junk])
async def test_failing_at_subscribe_refuses(act: Any):
    async def later(*arguments: Any) -> Any:
        return act(*arguments)

    for one in (act, later):
        async with MemoryBroker(plugins=[plugin("bad", authorize_subscribe=one)]) as broker:
            client = await broker.connect("a")
            assert await client.subscribe("t") == [ReasonCode.UNSPECIFIED_ERROR]
            assert broker.metrics()["plugin_bad_errors"] == 1


async def test_late_and_too_many_subscriptions_are_refused():
    async def hang(*arguments: Any) -> Any:
        await asyncio.Event().wait()

    config = Config(authentication_timeout_s=5.0, authentications_maximum=1, sys_interval_s=0)
    async with MemoryBroker(config, plugins=[plugin("slow", authorize_subscribe=hang)]) as broker:
        first, second = await broker.connect("a"), await broker.connect("b")
        await first.send(Subscribe(5, [Subscription("t", 2)]))
        assert await second.subscribe("t") == [ReasonCode.QUOTA_EXCEEDED]
        await broker.advance(5)
        assert await first.expect(SubAck) == SubAck(5, [ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR])
        assert broker.metrics()["authentications_timed_out"] == 1
        assert broker.metrics()["authentications_refused_busy"] == 1


async def test_client_that_goes_while_it_is_asked_about():
    async def hang(*arguments: Any) -> Any:
        await asyncio.Event().wait()

    async with MemoryBroker(plugins=[plugin("slow", authorize_subscribe=hang)]) as broker:
        client = await broker.connect("a")
        await client.send(Subscribe(5, [Subscription("t", 2)]))
        await client.lose()
        await broker.advance(0.1)
        assert broker.metrics()["authentications_waiting"] == 0
        assert broker.metrics()["plugin_slow_errors"] == 0
