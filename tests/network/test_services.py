"""`Broker`'s services for plugins and embedders: clients, subscriptions, retained messages, handlers."""

import pytest

from mqttcore import (
    CONSUMED,
    Broker,
    ClientView,
    Config,
    Message,
    MqttCoreError,
    PropertyId,
    QuotaExceeded,
    Recipients,
    SubscriptionInfo,
    TopicHandler,
)
from mqttcore.codec import Subscription
from network.clients import join
from network.conftest import quiet_config

pytestmark = pytest.mark.usefixtures("driver")


async def test_deliver(config: Config):
    async with Broker(config) as broker:
        assert not broker.deliver("a", "$SYS/notice", b"early", qos=1)
        async with await join(broker, "a") as client:
            assert broker.deliver("a", "$SYS/notice", b"{}", qos=1, properties={PropertyId.CONTENT_TYPE: "json"})
            message = await client.receive()
            assert (message.topic, message.payload, message.qos) == ("$SYS/notice", b"{}", 1)
            with pytest.raises(ValueError, match="is no Topic Name"):
                broker.deliver("a", "t/#")


async def test_is_connected(config: Config):
    async with Broker(config) as broker:
        assert not broker.is_connected("a")
        client = await join(broker, "a", properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60})
        assert broker.is_connected("a")
        broker.disconnect("a")
        assert not broker.is_connected("a")
        assert broker.client("a") is not None
        await client.close()


async def test_handlers_of_the_application(config: Config):
    asked: list[tuple[str, str]] = []

    def to_owner(client: ClientView, message: Message) -> Recipients:
        asked.append((client.client_id, message.topic))
        return Recipients(["owner"], is_fixed=True)

    async with Broker(config) as broker, await join(broker, "owner") as owner, await join(broker, "guest") as guest:
        hung = broker.add_handler(TopicHandler("mail/+", to_owner))
        eaten = broker.add_handler(TopicHandler("mail/spam", lambda client, message: CONSUMED), order=-1)
        for payload in (b"1", b"2"):
            await guest.publish("mail/in", payload, qos=1)
            assert (await owner.receive()).payload == payload
        await guest.publish("mail/spam", b"buy", qos=1)
        broker.remove_handler(eaten)
        await guest.publish("mail/spam", b"buy more", qos=1)
        assert (await owner.receive()).payload == b"buy more"
        broker.remove_handler(hung)
        await guest.publish("mail/in", b"3", qos=1)
        assert asked == [("guest", "mail/in"), ("guest", "mail/spam")]
        assert broker.metrics()["handlers"] == 0
        assert broker.metrics()["messages_handled"] == 4


async def test_subscriptions_of_a_client_and_to_a_filter(config: Config):
    async with Broker(config) as broker, await join(broker, "a") as first, await join(broker, "b") as second:
        await first.subscribe([Subscription("t/+", 1), Subscription("$share/g/t", 2)])
        await second.subscribe([Subscription("t/+", 0, no_local=True)])
        broker.tap("t/+", lambda batch: None)  # no client
        both = [SubscriptionInfo("a", "t/+", 1, 0), SubscriptionInfo("b", "t/+", 0b100, 0)]
        assert sorted(broker.subscriptions(topic_filter="t/+"), key=lambda one: one.client_id) == both
        shared = SubscriptionInfo("a", "$share/g/t", 2, 0)
        assert broker.subscriptions(topic_filter="$share/g/t") == [shared]
        assert broker.subscriptions(client_id="a") == [both[0], shared]
        assert broker.subscriptions(client_id="a", topic_filter="t/+") == both[:1]
        assert broker.subscriptions(client_id="nobody") == []
        assert broker.subscriptions(topic_filter="t/x") == []
        assert shared.qos == 2
        with pytest.raises(ValueError, match="which client"):
            broker.subscriptions()


async def test_subscribing_on_a_clients_behalf(config: Config):
    async with Broker(config) as broker, await join(broker, "a") as client:
        await broker.publish("t", b"kept", retain=True)
        assert broker.subscribe_client("a", "t", 1, subscription_id=7) == 1
        message = await client.receive()
        assert (message.payload, message.retain) == (b"kept", True)
        assert message.properties == {PropertyId.SUBSCRIPTION_IDENTIFIER: [7]}
        assert broker.subscriptions(client_id="a") == [SubscriptionInfo("a", "t", 1, 7)]
        assert broker.subscribe_client("a", "t/#/x") == 0x8F
        assert broker.subscribe_client("a", "$share/g/t", no_local=True) == 0x82
        assert broker.unsubscribe_client("a", "t")
        assert not broker.unsubscribe_client("a", "t")
        assert not broker.unsubscribe_client("nobody", "t")
        with pytest.raises(MqttCoreError, match="has no session"):
            broker.subscribe_client("nobody", "t")
        with pytest.raises(ValueError, match="0 to 2"):
            broker.subscribe_client("a", "t", 3)


async def test_retained_messages_one_by_one():
    async with Broker(quiet_config(retained_messages_maximum=1)) as broker, broker.subscribe("#") as messages:
        broker.set_retained("t", b"1", qos=1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 60})
        kept = broker.retained_message("t")
        assert kept is not None
        assert (kept.payload, kept.qos, kept.client_id) == (b"1", 1, None)
        assert kept.properties == {PropertyId.MESSAGE_EXPIRY_INTERVAL: 60}
        with pytest.raises(QuotaExceeded):
            broker.set_retained("u", b"2")
        with pytest.raises(ValueError, match="has a payload"):
            broker.set_retained("t", b"")
        assert broker.delete_retained("t")
        assert not broker.delete_retained("t")
        assert broker.retained_message("t") is None
        await broker.publish("last")
        assert (await anext(messages)).topic == "last"


async def test_ordering_key_lasts_as_long_as_the_connection(config: Config):
    lasting = {PropertyId.SESSION_EXPIRY_INTERVAL: 9}
    async with Broker(config) as broker, broker.subscribe("t") as messages:
        assert not broker.set_ordering_key("a", "a")
        for key in (None, "a"):
            async with await join(broker, "a", clean_start=False, properties=lasting) as a:
                await a.publish("t", qos=1)
                assert (await anext(messages)).ordering_key is None
                assert broker.set_ordering_key("a", key)
                await a.publish("t", qos=1)
                message = await anext(messages)
                assert (message.ordering_key, message.client_id) == (key, "a")
        assert len(message.message_id) == 32
