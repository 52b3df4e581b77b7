"""Identities through the broker's services: what a plugin gives, what is replaced, what a reload changes."""

import asyncio
import time
from typing import Any

import pytest

from mqttcore import (
    Action,
    Authorization,
    Broker,
    Config,
    Connect,
    Identity,
    Limits,
    Listener,
    Permission,
    Quotas,
    ReasonCode,
    hookimpl,
)
from mqttcore.codec import Publish, Subscription
from mqttcore.errors import ConnectionLost
from network.clients import Raw, join, until

pytestmark = pytest.mark.usefixtures("driver")


class Users:
    """A plugin: whoever comes is the user of its client id, with what stands for it; others may do everything."""

    def __init__(self, **identities: Identity) -> None:
        self.identities = identities

    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Identity:
        return self.identities.get(connect.client_id, Identity(connect.client_id))


def config(**settings: Any) -> Config:
    return Config(listeners=[Listener(port=0)], sys_interval_s=0, shutdown_timeout_s=1.0, overload_lag_ms=0, **settings)


def may(*topic_filters: str) -> tuple[Permission, ...]:
    return tuple(Permission(Action.ALL, topic_filter) for topic_filter in topic_filters)


async def test_identity_is_told_and_replaced():
    plugin = Users(a=Identity("user", may("a/%c/#")))
    async with Broker(config(), plugins=[plugin]) as broker, await join(broker, "a") as client:
        assert broker.identity("a") is plugin.identities["a"]
        assert broker.identity("nobody") is None
        codes = await client.subscribe([Subscription("a/a/#", 1), Subscription("b", 1)])
        assert codes == (1, ReasonCode.NOT_AUTHORIZED)
        assert broker.set_identity("a", Identity("user", may("b")))
        assert await client.subscribe([Subscription("b", 1)]) == (1,)
        info = broker.client("a")
        assert info is not None
        assert info.subscriptions == ("b",)
        assert not broker.set_identity("nobody", Identity("x"))
        with pytest.raises(ValueError, match="permission"):
            broker.set_identity("a", Identity("user", may("#/")))


async def test_identity_expires_by_the_wall_clock():
    class Brief:
        @hookimpl
        def authenticate(self, client: Any, connect: Connect) -> Identity:
            return Identity("user", expires_at_s=time.time() + 0.3)

    async with Broker(config(), plugins=[Brief()]) as broker, await join(broker, "a") as client:
        async with asyncio.timeout(60):
            with pytest.raises(ConnectionLost) as lost:
                await client.receive()
        assert lost.value.reason_code == ReasonCode.NOT_AUTHORIZED


async def test_rates_hold_over_sockets():
    plugin = Users(a=Identity("user", quotas=Quotas(messages_per_s=100)))
    async with Broker(config(), plugins=[plugin]) as broker, await Raw.open(broker) as client:
        await client.send(Connect("a"))
        await client.receive()
        await client.send(*[Publish("t", b"x")] * 150)  # at once, however slow the machine
        await until(lambda: broker.metrics()["messages_received_qos0"] == 150)
        assert broker.metrics()["rate_limited"] >= 1


async def test_reload_changes_what_becomes_of_refused_messages():
    plugin = Users(a=Identity("user", ()))
    async with Broker(config(), plugins=[plugin]) as broker:
        changed = config(authorization=Authorization(refused_publish="drop"), limits=Limits(messages_per_s=1000))
        await broker.reload(changed)
        async with await join(broker, "a") as client:
            await client.publish("t", b"x", qos=0)
            await until(lambda: broker.metrics()["messages_dropped_not_authorized"] == 1)
            assert broker.metrics()["sessions_connected"] == 1
