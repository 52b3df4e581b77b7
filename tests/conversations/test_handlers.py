"""Topic handlers: what becomes of messages that they consume, or give to recipients; and delivery to one client."""

import logging
from typing import Any

import pytest

from mqttcore.codec import PubAck, PubComp, Publish, PubRec, PubRel, Subscription, Will
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.handlers import CONSUMED, Consumed, Recipients

from .conftest import Start
from .harness import World

EXPIRY = PropertyId.SESSION_EXPIRY_INTERVAL
LASTING = {"clean_start": False, "properties": {EXPIRY: 300}}


class Asked:
    """A handler that answers as told, and remembers what it was asked."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.messages: list[tuple[str, str, bytes]] = []

    def __call__(self, client: Any, message: Any) -> Any:
        self.messages.append((client.client_id, message.topic, message.payload))
        return self.answer(client, message) if callable(self.answer) else self.answer


class P2P:
    """Recipients by the topic's last level."""

    def __init__(self, world: World, **fields: Any) -> None:
        self.calls = 0
        self.fields = fields
        world.engine.add_handler(b"x/p2p/+", self)

    def __call__(self, client: Any, message: Any) -> Recipients:
        self.calls += 1
        return Recipients([message.topic.rsplit("/", 1)[1]], **{"is_fixed": True, **self.fields})


# --- consuming


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_consumed_message_goes_nowhere(start: Start, any_version: int, qos: int):
    world = await start()
    handler = Asked(CONSUMED)
    world.engine.add_handler(b"cmd/+", handler)
    watch = await world.connect("watch", any_version)
    await watch.subscribe("#")
    peer = await world.connect("a", any_version)
    await peer.publish("cmd/go", b"now", qos=qos, retain=True)
    assert handler.messages == [("a", "cmd/go", b"now")]
    await watch.expect_nothing()
    assert world.metrics["retained"] == 0
    assert world.metrics["messages_handled"] == 1
    assert world.metrics["messages_unmatched"] == 0


async def test_reason_code_reaches_the_publisher(start: Start):
    world = await start()
    world.engine.add_handler(b"cmd", Asked(Consumed(ReasonCode.QUOTA_EXCEEDED)))
    peer = await world.connect("a")
    await peer.send(Publish("cmd", qos=1, packet_id=3))
    await peer.expect(PubAck(3, ReasonCode.QUOTA_EXCEEDED))
    await peer.send(Publish("cmd", qos=2, packet_id=4))
    await peer.expect(PubRec(4, ReasonCode.QUOTA_EXCEEDED))
    assert world.metrics["awaiting_release"] == 0


async def test_no_opinion_goes_on(start: Start, any_version: int):
    world = await start()
    handler = Asked(None)
    world.engine.add_handler(b"#", handler)
    peer = await world.connect("a", any_version)
    await peer.subscribe("t")
    await peer.publish("t", b"1", retain=True)
    assert (await peer.receive_publish()).payload == b"1"
    assert handler.messages == [("a", "t", b"1")]
    assert world.metrics["retained"] == 1


async def test_first_answer_counts_in_order(start: Start):
    world = await start()
    asked: list[str] = []

    def named(name: str, answer: Any) -> Any:
        return lambda client, message: asked.append(name) or answer

    world.engine.add_handler(b"t", named("third", CONSUMED), order=3)
    world.engine.add_handler(b"#", named("second", CONSUMED), order=2)
    world.engine.add_handler(b"+", named("first", None), order=1)
    world.engine.add_handler(b"t", named("itself", None), order=9, is_authorized_by_itself=True)
    peer = await world.connect("a")
    await peer.publish("t", qos=1)
    assert asked == ["itself", "first", "second"]


async def test_messages_of_the_broker_are_not_asked_for(start: Start):
    world = await start()
    handler = Asked(CONSUMED)
    world.engine.add_handler(b"#", handler)
    peer = await world.connect("a")
    await peer.subscribe("t")
    world.engine.publish_bytes(b"t", b"1")
    assert (await peer.receive_publish()).payload == b"1"
    assert handler.messages == []


async def test_removed_handler_is_not_asked(start: Start):
    world = await start()
    handler = Asked(CONSUMED)
    hung = world.engine.add_handler(b"t", handler)
    peer = await world.connect("a")
    await peer.subscribe("t")
    await peer.publish("t", b"1")
    world.engine.remove_handler(hung)
    world.engine.remove_handler(hung)
    await peer.publish("t", b"2")
    assert (await peer.receive_publish()).payload == b"2"
    assert len(handler.messages) == 1
    assert world.metrics["handlers"] == 0


async def test_alias_is_resolved_before(start: Start):
    world = await start()
    handler = Asked(CONSUMED)
    world.engine.add_handler(b"long/topic", handler)
    peer = await world.connect("a")
    await peer.publish("long/topic", b"1", properties={PropertyId.TOPIC_ALIAS: 1})
    await peer.publish("", b"2", properties={PropertyId.TOPIC_ALIAS: 1})
    assert handler.messages == [("a", "long/topic", b"1"), ("a", "long/topic", b"2")]


@pytest.mark.parametrize("topic_filter", [b"", b"a/#/b", b"$share/g/t"])
async def test_bad_filter_is_refused(start: Start, topic_filter: bytes):
    world = await start()
    with pytest.raises(ValueError, match=r"is no Topic Filter|shares with nobody"):
        world.engine.add_handler(topic_filter, Asked())


# --- $SYS


async def test_control_topic_is_for_its_handler_only(start: Start, any_version: int):
    world = await start(authorization=Authorization(refused_publish="drop"))
    handler = Asked(CONSUMED)
    world.engine.add_handler(b"$SYS/uploadToken", handler, is_authorized_by_itself=True)
    world.engine.add_handler(b"#", Asked(None))
    peer = await world.connect("a", any_version)
    await peer.publish("$SYS/uploadToken", b"{}", qos=1)
    assert handler.messages == [("a", "$SYS/uploadToken", b"{}")]
    await peer.publish("$SYS/other", b"{}", qos=0)
    assert world.metrics["messages_dropped_not_authorized"] == 1


async def test_control_topic_without_a_taker_is_refused(start: Start):
    world = await start()
    world.engine.add_handler(b"$SYS/a", Asked(None))
    peer = await world.connect("a")
    for packet_id, topic in enumerate(["$SYS/a", "$SYS/b"], 1):
        await peer.send(Publish(topic, qos=1, packet_id=packet_id))
        await peer.expect(PubAck(packet_id, ReasonCode.NOT_AUTHORIZED))


# --- handlers that fail


@pytest.mark.parametrize(
    "answer",
    [
        lambda client, message: 1 // 0,
        lambda client, message: "yes",
        Consumed(0x42),
        Recipients("a"),
        Recipients(["a"], qos_maximum=3),
        Recipients(["a"], topic="x/#"),
        Recipients([7]),  # type: ignore[list-item]
        Recipients(5),  # type: ignore[arg-type]
    ],
)
async def test_failing_handler_refuses(start: Start, caplog: pytest.LogCaptureFixture, answer: Any):
    world = await start()
    hung = world.engine.add_handler(b"t", Asked(answer), owner="broken")
    peer = await world.connect("a")
    await peer.subscribe("t")
    with caplog.at_level(logging.CRITICAL, "mqttcore.engine"):
        await peer.send(Publish("t", qos=1, packet_id=1, retain=True))
        await peer.expect(PubAck(1, ReasonCode.UNSPECIFIED_ERROR))
        await peer.send(Publish("t", qos=2, packet_id=2))
        await peer.expect(PubRec(2, ReasonCode.UNSPECIFIED_ERROR))
        await peer.publish("t")
    await peer.expect_nothing()
    assert hung.failures == hung.calls == 3
    assert world.metrics["handler_failures"] == 3
    assert world.metrics["retained"] == 0


async def test_failures_are_logged_more_and_more_rarely(start: Start, caplog: pytest.LogCaptureFixture):
    world = await start()
    world.engine.add_handler(b"t", Asked(lambda client, message: 1 // 0), owner="broken")
    peer = await world.connect("a")
    for _ in range(10):
        await peer.publish("t")
    logged = [record for record in caplog.records if "broken failed" in record.getMessage()]
    assert len(logged) == 4
    assert logged[0].exc_info is not None


async def test_handler_that_ends_its_client(start: Start, any_version: int):
    world = await start()

    def cut(client: Any, message: Any) -> Any:
        world.engine.disconnect(client.client_id, ReasonCode.ADMINISTRATIVE_ACTION)

    world.engine.add_handler(b"t", cut)
    watch = await world.connect("watch", any_version)
    await watch.subscribe("t")
    peer = await world.connect("a", any_version)
    await peer.send(Publish("t", b"last", qos=1, packet_id=1))
    await peer.expect_closed(ReasonCode.ADMINISTRATIVE_ACTION if any_version == 5 else None)
    assert (await watch.receive_publish()).payload == b"last"


async def test_handler_that_ends_subscribers_and_itself(start: Start):
    world = await start()
    hung: list[Any] = []

    def clear(client: Any, message: Any) -> Any:
        world.engine.discard_session("victim")
        world.engine.remove_handler(hung[0])

    hung.append(world.engine.add_handler(b"t", clear))
    victim = await world.connect("victim")
    await victim.subscribe("t", "#")
    peer = await world.connect("a")
    await peer.send(Publish("t", qos=1, packet_id=1))
    await peer.expect(PubAck(1, ReasonCode.NO_MATCHING_SUBSCRIBERS))


# --- recipients


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_recipient_needs_no_subscription(start: Start, any_version: int, qos: int):
    world = await start()
    handler = P2P(world)
    receiver = await world.connect("b", any_version)
    watch = await world.connect("watch", any_version)
    await watch.subscribe("#", "x/p2p/b")
    peer = await world.connect("a", any_version)
    for payload in (b"1", b"2", b"3"):
        await peer.publish("x/p2p/b", payload, qos=qos, retain=True)
        message = await receiver.receive_publish()
        assert (message.topic, message.payload, message.qos, message.retain) == ("x/p2p/b", payload, qos, False)
    await watch.expect_nothing()
    assert handler.calls == 1
    assert world.metrics["retained"] == 0
    assert world.metrics["messages_handled"] == 3


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_recipient_may_be_the_publisher(start: Start, version: int, qos: int):
    world = await start()
    P2P(world)
    peer = await world.connect("a", version)
    for payload in (b"1", b"2"):
        await peer.publish("x/p2p/a", payload, qos=qos)
        assert (await peer.receive_publish()).payload == payload


async def test_unknown_recipient_is_acknowledged(start: Start):
    world = await start()
    handler = P2P(world)
    peer = await world.connect("a")
    for packet_id in (1, 2):
        await peer.send(Publish("x/p2p/nobody", qos=1, packet_id=packet_id))
        await peer.expect(PubAck(packet_id, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    await peer.send(Publish("x/p2p/nobody", qos=2, packet_id=3))
    await peer.expect(PubRec(3, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    await peer.send(PubRel(3))
    await peer.expect(PubComp(3))
    assert handler.calls == 1


async def test_recipient_that_comes_is_found(start: Start):
    world = await start()
    handler = P2P(world)
    peer = await world.connect("a")
    await peer.publish("x/p2p/late", qos=1)
    late = await world.connect("late")
    await peer.publish("x/p2p/late", b"1", qos=1)
    assert (await late.receive_publish()).payload == b"1"
    assert handler.calls == 2
    await late.disconnect()
    await peer.publish("x/p2p/late", b"2", qos=1)
    assert handler.calls == 3


async def test_takeover_needs_no_question(start: Start):
    world = await start()
    handler = P2P(world)
    peer = await world.connect("a")
    first = await world.connect("b", **LASTING)
    await peer.publish("x/p2p/b", b"1", qos=1)
    assert (await first.receive_publish()).payload == b"1"
    second = await world.connect("b", session_present=True, **LASTING)
    await peer.publish("x/p2p/b", b"2", qos=1)
    assert (await second.receive_publish()).payload == b"2"
    assert handler.calls == 1


async def test_clean_takeover(start: Start):
    world = await start()
    handler = P2P(world)
    peer = await world.connect("a")
    await world.connect("b", **LASTING)
    await peer.publish("x/p2p/b", b"1")
    second = await world.connect("b")
    await peer.publish("x/p2p/b", b"2", qos=1)
    await peer.publish("x/p2p/b", b"3", qos=1)
    assert (await second.receive_publish()).payload == b"2"
    assert (await second.receive_publish()).payload == b"3"
    assert handler.calls == 2


@pytest.mark.parametrize("queue_qos0_offline", [False, True])
async def test_offline_recipient_gets_qos_1_and_2_later(start: Start, queue_qos0_offline: bool):
    world = await start(queue_qos0_offline=queue_qos0_offline)
    P2P(world)
    peer = await world.connect("a")
    receiver = await world.connect("b", **LASTING)
    await receiver.disconnect()
    for qos in (0, 1, 2):
        await peer.publish("x/p2p/b", b"%d" % qos, qos=qos)
    again = await world.connect("b", session_present=True, **LASTING)
    for qos in (1, 2):
        message = await again.receive_publish()
        assert (message.payload, message.qos) == (b"%d" % qos, qos)
    await again.expect_nothing()


async def test_recipients_that_are_not_stored_for(start: Start):
    world = await start()
    P2P(world, stores_offline=False)
    peer = await world.connect("a")
    receiver = await world.connect("b", **LASTING)
    await receiver.disconnect()
    for packet_id in (1, 2):
        await peer.send(Publish("x/p2p/b", qos=1, packet_id=packet_id))
        await peer.expect(PubAck(packet_id, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    again = await world.connect("b", session_present=True, **LASTING)
    await again.expect_nothing()
    await peer.publish("x/p2p/b", b"now", qos=1)
    assert (await again.receive_publish()).payload == b"now"


async def test_recipients_that_are_stored_for_when_the_sender_would_be(start: Start):
    world = await start()
    handler = P2P(world, stores_offline=None)
    fleeting, lasting = await world.connect("a"), await world.connect("c", **LASTING)
    receiver = await world.connect("b", **LASTING)
    await receiver.disconnect()
    for sender, payload in ((fleeting, b"1"), (lasting, b"2"), (fleeting, b"3"), (lasting, b"4")):
        await sender.publish("x/p2p/b", payload, qos=1)
    again = await world.connect("b", session_present=True, **LASTING)
    assert [(await again.receive_publish()).payload for _ in range(2)] == [b"2", b"4"]
    await again.expect_nothing()
    assert handler.calls == 1


@pytest.mark.parametrize("is_fixed", [False, True])
async def test_qos_maximum_topic_and_several(start: Start, is_fixed: bool):
    world = await start()
    handler = Asked(Recipients(["b", "c", "b", "nobody"], qos_maximum=1, topic="in/box", is_fixed=is_fixed))
    world.engine.add_handler(b"out", handler)
    receivers = [await world.connect(name) for name in "bc"]
    peer = await world.connect("a")
    for payload in (b"1", b"2"):
        await peer.publish("out", payload, qos=2, properties={PropertyId.CONTENT_TYPE: "text"})
        for receiver in receivers:
            message = await receiver.receive_publish()
            assert (message.topic, message.payload, message.qos) == ("in/box", payload, 1)
            assert message.properties == {PropertyId.CONTENT_TYPE: "text"}
    assert len(handler.messages) == (1 if is_fixed else 2)


async def test_handler_before_the_one_that_is_remembered_is_asked_each_time(start: Start):
    world = await start()
    before = Asked(None)
    world.engine.add_handler(b"#", before, order=-1)
    handler = P2P(world)
    peer = await world.connect("a")
    for _ in range(3):
        await peer.publish("x/p2p/a", b"1")
        await peer.receive_publish()
    assert len(before.messages) == 3
    assert handler.calls == 1


async def test_subscriptions_do_not_disturb(start: Start):
    world = await start()
    handler = P2P(world)
    peer = await world.connect("a")
    for topic_filter in ("x/p2p/a", "x/#", "#", "y"):
        await peer.publish("x/p2p/a", b"1", qos=1)
        assert (await peer.receive_publish()).payload == b"1"
        await peer.subscribe(Subscription(topic_filter, 1))
    await peer.publish("x/p2p/a", b"1", qos=1)
    assert (await peer.receive_publish()).payload == b"1"
    await peer.expect_nothing()
    assert handler.calls <= 4


async def test_aliases_and_expiry_go_along(start_clocked: Start):
    world = await start_clocked(topic_alias_maximum_out=5)
    P2P(world)
    peer = await world.connect("a")
    receiver = await world.connect("b", **LASTING)
    await receiver.disconnect()
    alias = {PropertyId.TOPIC_ALIAS: 1, PropertyId.MESSAGE_EXPIRY_INTERVAL: 10}
    await peer.publish("x/p2p/b", b"1", qos=1, properties=alias)
    await peer.publish("", b"2", qos=1, properties=alias)
    await peer.publish("", b"3", qos=1, properties={**alias, PropertyId.MESSAGE_EXPIRY_INTERVAL: 2})
    world.advance(4000)
    again = await world.connect("b", session_present=True, **LASTING)
    for payload in (b"1", b"2"):
        message = await again.receive_publish()
        assert (message.topic, message.payload) == ("x/p2p/b", payload)
        assert message.properties == {PropertyId.MESSAGE_EXPIRY_INTERVAL: 6}
    await again.expect_nothing()


# --- wills


async def test_will_is_asked_for(start: Start, any_version: int):
    world = await start()
    P2P(world)
    consumer = Asked(CONSUMED)
    world.engine.add_handler(b"eaten", consumer)
    receiver = await world.connect("b", any_version)
    await receiver.subscribe("eaten")
    for topic in ("x/p2p/b", "eaten"):
        dying = await world.connect("dying", any_version, will=Will(topic, b"gone", qos=1, retain=True))
        await dying.lose()
    assert (await receiver.receive_publish()).payload == b"gone"
    await receiver.expect_nothing()
    assert consumer.messages == [("dying", "eaten", b"gone")]
    assert world.metrics["retained"] == 0


async def test_delayed_will_is_asked_for(start_clocked: Start):
    world = await start_clocked()
    seen: list[Any] = []
    world.engine.add_handler(b"t", lambda client, message: seen.append(client) or CONSUMED)
    will = Will("t", b"gone", properties={PropertyId.WILL_DELAY_INTERVAL: 5})
    dying = await world.connect("dying", will=will, user_name="dora", clean_start=False, properties={EXPIRY: 60})
    await dying.lose()
    world.advance(5500)
    [client] = seen
    assert (client.client_id, client.user_name, client.connection_id, client.address) == ("dying", "dora", "", None)


# --- delivery to one client


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_deliver(start: Start, any_version: int, qos: int):
    world = await start()
    peer = await world.connect("b", any_version)
    other = await world.connect("other", any_version)
    await other.subscribe("#")
    assert world.engine.deliver("b", b"$SYS/tokenExpireNotice", b"{}", qos, retain=True)
    message = await peer.receive_publish()
    assert (message.topic, message.payload, message.qos, message.retain) == ("$SYS/tokenExpireNotice", b"{}", qos, True)
    await other.expect_nothing()


async def test_deliver_to_who_is_not_there(start: Start):
    world = await start()
    assert not world.engine.deliver("b", b"t", b"1", 1)
    peer = await world.connect("b", **LASTING)
    await peer.disconnect()
    assert not world.engine.deliver("b", b"t", b"2", 0)
    assert not world.engine.deliver("b", b"t", b"3", 1, stores_offline=False)
    assert world.engine.deliver("b", b"t", b"4", 1, properties={PropertyId.CONTENT_TYPE: "text"})
    again = await world.connect("b", session_present=True, **LASTING)
    message = await again.receive_publish()
    assert (message.payload, message.properties) == (b"4", {PropertyId.CONTENT_TYPE: "text"})
    await again.expect_nothing()


@pytest.mark.parametrize(("topic", "qos"), [(b"a/#", 0), (b"", 0), (b"t", 3)])
async def test_deliver_checks_its_arguments(start: Start, topic: bytes, qos: int):
    world = await start()
    with pytest.raises(ValueError, match=r"is no Topic Name|is not 0, 1 or 2"):
        world.engine.deliver("b", topic, b"", qos)
