"""Hooks on the packet path: what they are asked, what their answers do, and that they cannot break the broker."""

from typing import Any

import pytest

from mqttcore.codec import PingReq, PingResp, PubAck, Publish, SubAck, Subscribe, Subscription, Will
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.handlers import PublishChange
from mqttcore.identity import Action, Identity, Permission, Refusal

from .conftest import Start

DENIED = ReasonCode.NOT_AUTHORIZED
LASTING = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}


class Asked:
    """A hook that answers the same each time, or what a function says, and keeps what it was asked."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, client: Any, *arguments: Any) -> Any:
        self.calls.append((client.client_id, *arguments))
        answer = self.answer(client, *arguments) if callable(self.answer) else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer


def broken(*_: Any) -> Any:
    raise OSError("broken")


# --- the client as hooks see it


async def test_client_view(start_clocked: Start, any_version: int):
    views: list[Any] = []
    hooks = HookTable(
        authenticate=lambda client, connect: views.append(client) or Identity("me"),
        authorize_publish=lambda client, *_: views.append(client),
    )
    world = await start_clocked(hooks=hooks)
    peer = await world.connect("a", any_version, user_name="u", clean_start=True)
    await peer.publish("t")
    view, same = views
    assert view is same
    assert (view.client_id, view.user_name, view.protocol_version, view.clean_start) == ("a", "u", any_version, True)
    assert (view.address, view.listener, view.tls) == (("memory", 0), "memory", None)
    assert view.identity.name == "me"
    assert len(view.connection_id) == 32
    int(view.connection_id, 16)
    view.attributes["x"] = 1
    other = await world.connect("b", any_version)
    assert views[-1].connection_id != view.connection_id
    assert views[-1].attributes == {}
    world.engine.set_identity("a", Identity("new me"))
    assert view.identity.name == "new me"
    await peer.lose()
    assert view.is_gone
    assert view.client_id == "a"
    world.engine.accept(view, Identity("late"))  # without effect
    await other.expect_nothing()


async def test_client_view_has_the_assigned_client_id(start_clocked: Start):
    views: list[Any] = []
    hooks = HookTable(authenticate=lambda client, _: views.append(client) or Identity("me"))
    world = await start_clocked(hooks=hooks)
    peer = await world.connect("")
    assert views[0].client_id == peer.connack.properties[PropertyId.ASSIGNED_CLIENT_IDENTIFIER]


# --- admit


async def test_admit_turns_away_before_authentication(start_clocked: Start, any_version: int):
    admit = Asked(lambda client, connect: Refusal(ReasonCode.BANNED, "go") if client.client_id == "bad" else None)
    authenticate = Asked(Identity("me"))
    world = await start_clocked(hooks=HookTable(admit=admit, authenticate=authenticate))
    await world.connect("good", any_version)
    peer = await world.connect("bad", any_version, expect=ReasonCode.BANNED if any_version == 5 else DENIED)
    await peer.expect_closed()
    assert [call[0] for call in admit.calls] == ["good", "bad"]
    assert [call[0] for call in authenticate.calls] == ["good"]


@pytest.mark.parametrize("answer", [OSError("broken"), True, Identity("me")], ids=str)
async def test_admit_that_fails_refuses(start_clocked: Start, answer: Any):
    world = await start_clocked(hooks=HookTable(admit=Asked(answer)))
    peer = await world.connect("a", expect=ReasonCode.UNSPECIFIED_ERROR)
    await peer.expect_closed()


# --- authorize_publish


async def test_authorize_publish(start_clocked: Start):
    answers = {"yes": True, "none": None, "no": False, "full": ReasonCode.QUOTA_EXCEEDED, "ok": ReasonCode.SUCCESS}
    hook = Asked(lambda client, topic, qos, retain: answers[topic])
    world = await start_clocked(hooks=HookTable(authorize_publish=hook))
    peer = await world.connect("a")
    for topic, code in (("yes", 0x10), ("none", 0x10), ("no", DENIED), ("full", 0x97), ("ok", 0x10)):
        await peer.send(Publish(topic, b"x", qos=1, packet_id=1, retain=True))
        await peer.expect(PubAck(1, code))
    assert hook.calls[0] == ("a", "yes", 1, True)
    assert type(hook.calls[0][3]) is bool
    assert world.metrics["retained"] == 3


@pytest.mark.parametrize("answer", [OSError("broken"), "yes", 300, -1, ReasonCode.PACKET_TOO_LARGE], ids=str)
async def test_authorize_publish_that_fails_refuses(start_clocked: Start, answer: Any):
    world = await start_clocked(hooks=HookTable(authorize_publish=Asked(answer)))
    peer = await world.connect("a")
    await peer.send(Publish("t", b"x", qos=1, packet_id=1))
    await peer.expect(PubAck(1, ReasonCode.UNSPECIFIED_ERROR))


async def test_authorize_publish_is_asked_for_what_permissions_allow_only(start_clocked: Start):
    hook = Asked()
    identity = Identity("me", (Permission(Action.ALL, "mine/#"),))
    hooks = HookTable(authenticate=lambda *_: identity, authorize_publish=hook)
    world = await start_clocked(hooks=hooks, authorization=Authorization(refused_publish="drop"))
    peer = await world.connect("a")
    for topic in ("theirs", "mine/x", "mine/x", "$SYS/x"):
        await peer.publish(topic)
    assert [call[1] for call in hook.calls] == ["mine/x", "mine/x"]


async def test_authorize_publish_is_asked_about_wills(start_clocked: Start, version: int):
    hook = Asked(lambda client, topic, qos, retain: topic != "no")
    world = await start_clocked(hooks=HookTable(authorize_publish=hook))
    watch = await world.connect("watch")
    await watch.subscribe("#")
    refused = await world.connect("a", version, expect=DENIED, will=Will("no", b""))
    await refused.expect_closed()
    peer = await world.connect("a", version, will=Will("yes", b"1", qos=1, retain=True))
    await peer.lose()
    assert (await watch.receive_publish()).topic == "yes"
    assert hook.calls[1:] == [("a", "yes", 1, True)] * 2
    peer = await world.connect("a", version, will=Will("yes", b"2"))
    hook.answer = False
    await peer.lose()
    await watch.expect_nothing()


# --- authorize_subscribe


async def test_authorize_subscribe(start_clocked: Start, version: int):
    answers = {"yes": True, "none": None, "no": False, "one": 1, "zero": 0, "full": ReasonCode.QUOTA_EXCEEDED}
    hook = Asked(lambda client, topic_filter, qos: answers[topic_filter])
    world = await start_clocked(hooks=HookTable(authorize_subscribe=hook))
    peer = await world.connect("a", version)
    await peer.send(Subscribe(1, [Subscription(name, 2) for name in [*answers, "$share/g/no"]]))
    codes = [2, 2, DENIED, 1, 0, ReasonCode.QUOTA_EXCEEDED, DENIED]
    await peer.expect(SubAck(1, codes if version == 5 else [code if code < 3 else 0x80 for code in codes]))
    assert hook.calls[0] == ("a", "yes", 2)
    assert world.engine.session("a").topic_filters == ("yes", "none", "one", "zero")


@pytest.mark.parametrize("answer", [OSError("broken"), "yes", 300, 3, ReasonCode.PACKET_TOO_LARGE], ids=str)
async def test_authorize_subscribe_that_fails_refuses(start_clocked: Start, answer: Any):
    world = await start_clocked(hooks=HookTable(authorize_subscribe=Asked(answer)))
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription("t")]))
    await peer.expect(SubAck(1, [ReasonCode.UNSPECIFIED_ERROR]))


async def test_subscribe_decided_later_keeps_the_order(start_clocked: Start, version: int):
    hook = Asked(lambda client, topic_filter, qos: PENDING if topic_filter.startswith("later") else True)
    world = await start_clocked(hooks=HookTable(authorize_subscribe=hook))
    await (await world.connect("w")).publish("later/b", b"kept", retain=True)
    peer = await world.connect("a", version)
    wanted = [Subscription(name, 1) for name in ("now", "later/a", "later/b")]
    await peer.send(Subscribe(5, wanted), Publish("now", b"behind", qos=1, packet_id=8), PingReq())
    assert peer.connection.is_paused
    assert world.metrics["subscriptions"] == 0
    world.engine.answer_subscribe(peer.connection, False)
    world.engine.answer_subscribe(peer.connection, None)
    await peer.expect(SubAck(5, [1, DENIED if version == 5 else 0x80, 1]))
    got = [await peer.receive() for _ in range(4)]
    assert PubAck(8, 0) in got
    assert got.index(PubAck(8, 0)) < got.index(PingResp())
    assert [packet.payload for packet in got if isinstance(packet, Publish)] == [b"behind", b"kept"] or [
        packet.payload for packet in got if isinstance(packet, Publish)
    ] == [b"kept", b"behind"]
    assert not peer.connection.is_paused
    world.engine.answer_subscribe(peer.connection, True)  # nobody waits: without effect


async def test_subscribe_answered_from_within(start_clocked: Start):
    world: Any = None

    def authorize(client: Any, topic_filter: str, qos: int) -> Any:
        world.engine.answer_subscribe(client, topic_filter != "no")
        return PENDING

    world = await start_clocked(hooks=HookTable(authorize_subscribe=authorize))
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription("a"), Subscription("no"), Subscription("b")]))
    await peer.expect(SubAck(1, [0, DENIED, 0]))


async def test_client_that_goes_while_its_subscribe_is_decided(start_clocked: Start):
    views: list[Any] = []
    hook = Asked(lambda client, *_: views.append(client) or PENDING)
    world = await start_clocked(hooks=HookTable(authorize_subscribe=hook))
    peer = await world.connect("a", properties=LASTING)
    await peer.send(Subscribe(1, [Subscription("t")]))
    await peer.lose()
    world.engine.answer_subscribe(views[0], True)
    assert world.metrics["subscriptions"] == 0


async def test_rights_replaced_while_a_subscribe_is_decided_count(start_clocked: Start):
    hooks = HookTable(authenticate=lambda *_: Identity("me"), authorize_subscribe=lambda *_: PENDING)
    world = await start_clocked(hooks=hooks)
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription("ours", 2), Subscription("theirs", 2)]))
    world.engine.answer_subscribe(peer.connection, True)
    world.engine.set_identity("a", Identity("me", (Permission(Action.ALL, "ours", qos_maximum=1),)))
    world.engine.answer_subscribe(peer.connection, True)
    await peer.expect(SubAck(1, [1, DENIED]))


# --- authorize_deliver


async def test_authorize_deliver(start_clocked: Start, version: int):
    hook = Asked(lambda client, message: message.payload != b"no")
    world = await start_clocked(hooks=HookTable(authorize_deliver=hook))
    writer = await world.connect("w")
    for topic, payload in (("t/1", b"no"), ("t/2", b"kept")):
        await writer.publish(topic, payload, qos=1, retain=True)
    fields = {"clean_start": False, "properties": LASTING} if version == 5 else {"clean_start": False}
    peer = await world.connect("a", version, **fields)
    await peer.subscribe("t/#")
    assert (await peer.receive_publish()).payload == b"kept"
    for qos in (0, 1, 2):
        await writer.publish("t", b"no", qos=qos)
        await writer.publish("t", b"yes", qos=qos)
        message = await peer.receive_publish()
        assert (message.payload, message.qos) == (b"yes", qos)
    await writer.publish("t", b"again", qos=1)
    await peer.receive_publish(acknowledge=False)
    await peer.lose()
    for payload in (b"no", b"yes"):
        await writer.publish("t", payload, qos=1)
    hook.answer = lambda client, message: message.payload == b"yes"
    peer = await world.connect("a", version, session_present=True, **fields)
    assert (await peer.receive_publish()).payload == b"yes"
    await peer.expect_nothing()
    assert world.metrics["in_flight"] == world.metrics["queued"] == 0
    assert world.metrics["messages_dropped_not_authorized"] == 6


@pytest.mark.parametrize("answer", [OSError("broken"), "yes", 1], ids=str)
async def test_authorize_deliver_that_fails_drops(start_clocked: Start, answer: Any):
    world = await start_clocked(hooks=HookTable(authorize_deliver=Asked(answer)))
    peer = await world.connect("a")
    await peer.subscribe("t")
    await peer.publish("t", b"x")
    await peer.expect_nothing()


@pytest.mark.parametrize("deed", ["disconnect", "discard_session", "publish", "unsubscribe_all"])
@pytest.mark.parametrize("way", ["live", "shared", "queued", "in flight", "retained"])
async def test_authorize_deliver_may_do_anything(start_clocked: Start, deed: str, way: str):
    world: Any = None
    done: list[str] = []

    def hook(client: Any, message: Any) -> None:
        if client.client_id != "a" or len(done) > 3 or not armed:
            return
        done.append(deed)
        if deed == "disconnect":
            world.engine.disconnect("a", ReasonCode.ADMINISTRATIVE_ACTION)
        elif deed == "discard_session":
            world.engine.discard_session("a")
        elif deed == "publish":
            for number in range(20):  # more than the queue takes
                world.engine.publish_bytes(b"t", bytes([number]) * 1000, 1)
        else:
            world.engine.set_identity("a", Identity("me", ()))

    armed = False
    hooks = HookTable(authenticate=lambda *_: Identity("me"), authorize_deliver=hook)
    world = await start_clocked(hooks=hooks, queued_messages_maximum=5, in_flight_maximum=3, publisher_pause_ms=0)
    writer = await world.connect("w", properties=LASTING)
    fields: dict[str, Any] = {"clean_start": False, "properties": LASTING}
    peer = await world.connect("a", **fields)
    topic_filter = "$share/g/t" if way == "shared" else "t"
    if way != "retained":
        await peer.subscribe(topic_filter)
    else:
        await writer.publish("t", b"x", qos=1, retain=True)
    if way == "in flight":
        for _ in range(3):
            await writer.publish("t", b"x", qos=1)
            await peer.receive_publish(acknowledge=False)
    if way in ("queued", "in flight"):
        await peer.lose()
        if way == "queued":
            for _ in range(5):
                await writer.publish("t", b"x", qos=1)
        armed = True
        peer = await world.open()
        await peer.send(b"\x10\x13\x00\x04MQTT\x05\x00\x00\x00\x05\x11\x00\x00\x03\xe8\x00\x01a")
    elif way == "retained":
        armed = True
        await peer.send(Subscribe(1, [Subscription("t", 1)]))
    else:
        armed = True
        await writer.publish("t", b"x", qos=1)
    world.engine.flush()
    await writer.publish("other", b"x", qos=1)
    assert done


# --- transform_publish


async def test_transform_publish(start_clocked: Start):
    changes = {
        "payload": PublishChange(payload=b"new"),
        "topic": PublishChange(topic="moved"),
        "qos": PublishChange(qos=2, retain=True),
        "properties": PublishChange(properties={PropertyId.CONTENT_TYPE: "x"}),
        "expiry": PublishChange(properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 5}),
        "none": None,
    }
    hook = Asked(lambda client, message: changes[message.topic])
    world = await start_clocked(hooks=HookTable(transform_publish=hook))
    watch = await world.connect("watch")
    await watch.subscribe("#")
    peer = await world.connect("a")
    got = {}
    for topic in changes:
        await peer.publish(topic, b"old", qos=1, properties={PropertyId.RESPONSE_TOPIC: "r"})
        got[topic] = await watch.receive_publish()
    assert [message.topic for message in got.values()] == ["payload", "moved", "qos", "properties", "expiry", "none"]
    assert [message.payload for message in got.values()] == [b"new", b"old", b"old", b"old", b"old", b"old"]
    assert [message.qos for message in got.values()] == [1, 1, 2, 1, 1, 1]
    assert got["properties"].properties == {PropertyId.CONTENT_TYPE: "x"}
    assert got["expiry"].properties == {PropertyId.MESSAGE_EXPIRY_INTERVAL: 5}
    assert got["topic"].properties == {PropertyId.RESPONSE_TOPIC: "r"}
    assert world.metrics["retained"] == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (PublishChange(topic="theirs"), DENIED),
        (PublishChange(topic="$SYS/x"), DENIED),
        (PublishChange(topic="a/#"), ReasonCode.TOPIC_NAME_INVALID),
        (PublishChange(topic=""), ReasonCode.TOPIC_NAME_INVALID),
        (PublishChange(topic="asked"), DENIED),
        (PublishChange(qos=3), ReasonCode.UNSPECIFIED_ERROR),
        (PublishChange(payload="text"), ReasonCode.UNSPECIFIED_ERROR),  # type: ignore[arg-type]
        (PublishChange(properties={0x99: 1}), ReasonCode.UNSPECIFIED_ERROR),
        ("changed", ReasonCode.UNSPECIFIED_ERROR),
        (OSError("broken"), ReasonCode.UNSPECIFIED_ERROR),
    ],
    ids=str,
)
async def test_change_that_may_not_be_refuses(start_clocked: Start, change: Any, code: int):
    rules = (Permission(Action.PUBLISH, "mine"), Permission(Action.PUBLISH, "asked"))
    hooks = HookTable(
        authenticate=lambda client, _: Identity("me", rules if client.client_id == "a" else None),
        authorize_publish=lambda client, topic, qos, retain: topic != "asked",
        transform_publish=Asked(change),
    )
    world = await start_clocked(hooks=hooks)
    watch = await world.connect("watch")
    await watch.subscribe("#")
    peer = await world.connect("a")
    for qos in (1, 2):
        await peer.send(Publish("mine", b"x", qos=qos, packet_id=1))
        assert (await peer.receive()).reason_code == code
    await watch.expect_nothing()
    assert world.metrics["awaiting_release"] == 0


@pytest.mark.parametrize("hook", ["authorize_publish", "transform_publish"])
async def test_hook_that_ends_the_publisher(start_clocked: Start, hook: str):
    world: Any = None

    def cut(client: Any, *_: Any) -> None:
        world.engine.disconnect(client.client_id, ReasonCode.ADMINISTRATIVE_ACTION)

    world = await start_clocked(hooks=HookTable(**{hook: cut}))
    watch = await world.connect("watch")
    await watch.subscribe("#")
    peer = await world.connect("a")
    await peer.send(Publish("t", b"x", qos=1, packet_id=1, properties={PropertyId.TOPIC_ALIAS: 1}))
    await peer.expect_closed(ReasonCode.ADMINISTRATIVE_ACTION)
    await watch.expect_nothing()
