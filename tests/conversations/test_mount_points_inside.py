"""Mount points as plugins and services meet them: with whole topics, given by identities, and kept."""

import logging
from typing import Any

import pytest

from mqttcore import trace_entries as te
from mqttcore.codec import Auth, PubAck, Publish, Will
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.engine.watch import Watch
from mqttcore.events import Subscribed, Unsubscribed
from mqttcore.handlers import CONSUMED, PublishChange, Recipients
from mqttcore.identity import Action, Identity, Permission, Quotas, Refusal

from .conftest import Start
from .harness import World
from .tenants import MOUNTS, heard, lasting, suback, unsuback

DENIED = ReasonCode.NOT_AUTHORIZED
DROP = Authorization(refused_publish="drop")


class Users:
    """Authentication by client id: the identity that stands for it."""

    def __init__(self, identities: dict[str, Any], **hooks: Any) -> None:
        self.identities = identities
        self.hooks = HookTable(authenticate=self.authenticate, **hooks)

    def authenticate(self, client: Any, connect: Any) -> Any:
        assert client.mount_point == ""
        return self.identities.get(client.client_id, Identity("admin"))


async def test_identity_has_its_own_mount_point(start_clocked: Start):
    users = Users({"a": Identity("a", mount_point="mine/${client_id}/"), "b": Identity("b", mount_point="")})
    world = await start_clocked(hooks=users.hooks)
    watch = await world.connect("watch")
    await watch.subscribe("#")
    for client_id, topic in (("a", "mine/a/x"), ("b", "x"), ("c", "t/x")):
        peer = await world.connect(client_id, mount_point="t/")
        await peer.publish("x", b"")
        assert (await heard(watch))[0] == topic


@pytest.mark.parametrize("wrong", ["mine", "$SYS/", "a/${what}/", 7, b"a/"])
async def test_identity_with_a_wrong_mount_point_is_refused(
    start_clocked: Start, version: int, wrong: Any, caplog: Any
):
    world = await start_clocked(hooks=Users({"a": Identity("a", mount_point=wrong)}).hooks)
    code = ReasonCode.UNSPECIFIED_ERROR if version == 5 else ReasonCode.SERVER_UNAVAILABLE
    await world.connect("a", version, expect=code)
    assert "is no mount point" in caplog.text
    assert world.metrics["sessions"] == 0


async def test_placeholders_refuse_unfit_clients(start: Start, version: int, caplog: Any):
    caplog.set_level(logging.INFO, "mqttcore")
    world = await start(mount_points=("${client_id}/", "u/${user_name}/"))
    bad_id, bad_name = ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, ReasonCode.BAD_USER_NAME_OR_PASSWORD
    for client_id in ("a/b", "+", "$a"):
        await world.connect(client_id, version, mount_point="${client_id}/", expect=bad_id)
    for user_name in ("a/b", "#", "", None):
        await world.connect("c", version, mount_point="u/${user_name}/", user_name=user_name, expect=bad_name)
    assert caplog.text.count("mount point: ") == 7
    assert world.metrics["sessions"] == 0
    peer = await world.connect("c", version, mount_point="${client_id}/")
    await peer.subscribe("x")
    assert world.engine.session("c").topic_filters == ("c/x",)
    await world.connect("d", version, mount_point="u/${user_name}/", user_name="anna")
    assert world.engine.session("d").mount_point == "u/anna/"


async def test_assigned_client_id_is_put_in(start: Start):
    world = await start(mount_points=("${client_id}/",))
    peer = await world.connect("", mount_point="${client_id}/")
    assert peer.connack is not None
    client_id = peer.connack.properties[PropertyId.ASSIGNED_CLIENT_IDENTIFIER]
    assert world.engine.session(client_id).mount_point == f"{client_id}/"


async def test_permissions_are_of_whole_topics(start_clocked: Start, version: int):
    rules = (Permission(Action.ALL, "t/ok/#"), Permission(Action.ALL, "x/#"))
    world = await start_clocked(hooks=Users({"a": Identity("a", rules)}).hooks, authorization=DROP)
    watch = await world.connect("watch", version)
    await watch.subscribe("#")
    peer = await world.connect("a", version, mount_point="t/")
    assert await suback(peer, "ok/#", "x/#", "#") == [1, *[DENIED if version == 5 else 0x80] * 2]
    await peer.publish("ok/1", b"")
    await peer.publish("x/1", b"")
    assert (await heard(watch))[0] == "t/ok/1"
    assert (await heard(peer))[0] == "ok/1"
    await watch.expect_nothing()
    await peer.expect_nothing()


async def test_messages_are_checked_by_their_whole_topics(start_clocked: Start):
    rules = (Permission(Action.ALL, "t/no", is_allowed=False), Permission(Action.ALL, "t/+"))
    world = await start_clocked(
        hooks=Users({"a": Identity("a", rules)}).hooks, authorization=Authorization(subscribe_check="at_delivery")
    )
    peer = await world.connect("a", mount_point="t/")
    assert await suback(peer, "#") == [1]
    outside = await world.connect("outside")
    for topic in ("t/no", "t", "t/$x", "t/yes"):
        await outside.publish(topic, b"")
    assert (await heard(peer))[0] == "yes"
    assert world.engine.session("a").dropped == 1


async def test_quotas_on_topics_are_of_what_was_said(start_clocked: Start):
    quotas = Quotas(topic_bytes_maximum=4, topic_characters="abcdx")
    rules = (Permission(Action.ALL, "#"),)
    world = await start_clocked(hooks=Users({"a": Identity("a", rules, quotas)}).hooks)
    peer = await world.connect("a", mount_point="T_1/")
    for _ in range(2):
        for topic in ("abcd", "a/b"):
            await peer.publish(topic, b"", qos=1)
        for topic in ("abcda", "/a", "T", "a//b", "T_1/"):
            await peer.send(Publish(topic, qos=1, packet_id=1))
            await peer.expect(PubAck(1, DENIED))
    assert await suback(peer, "abcd", "abcda") == [1, DENIED]
    other = await world.connect("b", mount_point="")
    await other.publish("T_1/abcda", b"")
    again = await world.connect("a", mount_point="T_1/")
    await again.expect_nothing()


async def test_hooks_see_whole_topics(start_clocked: Start):
    seen: list[tuple[str, str]] = []

    def note(name: str) -> Any:
        def hook(client: Any, what: Any, *rest: Any) -> None:
            assert client.mount_point == ("t/" if client.client_id == "a" else "")
            seen.append((name, what if isinstance(what, str) else what.topic))

        return hook

    names = ("authorize_publish", "authorize_subscribe", "authorize_deliver", "transform_publish")
    world = await start_clocked(hooks=Users({}, **{name: note(name) for name in names}).hooks)
    peer = await world.connect("a", mount_point="t/", will=Will("w"))
    await peer.subscribe("x", "$share/g/y")
    assert await suback(peer, "$SYS/#") == [DENIED]
    await peer.publish("x", b"")
    assert (await heard(peer))[0] == "x"
    assert seen == [
        ("authorize_publish", "t/w"),
        ("authorize_subscribe", "t/x"),
        ("authorize_subscribe", "t/y"),
        ("authorize_publish", "t/x"),
        ("transform_publish", "t/x"),
        ("authorize_deliver", "t/x"),
    ]


async def test_changed_topics_are_whole(start_clocked: Start):
    topics = iter(["t/" + "y" * 10, "u/z", "$SYS/x"])
    hooks = Users({}, transform_publish=lambda client, message: PublishChange(topic=next(topics))).hooks
    world = await start_clocked(hooks=hooks, topic_bytes_maximum=10)
    watch = await world.connect("watch", mount_point="u/")
    await watch.subscribe("#")
    peer = await world.connect("a", mount_point="t/")
    await peer.subscribe("#")
    await peer.publish("x", b"", qos=1)
    assert (await heard(peer))[0] == "y" * 10
    await peer.publish("x", b"", qos=1)
    assert (await heard(watch))[0] == "z"
    await peer.send(Publish("x", qos=1, packet_id=1))
    await peer.expect(PubAck(1, DENIED))


async def test_handlers_see_whole_topics(start: Start, any_version: int):
    world = await start(mount_points=MOUNTS)
    seen: list[tuple[str, str, str]] = []

    def handler(client: Any, message: Any) -> Any:
        seen.append((client.client_id, client.mount_point, message.topic))
        return CONSUMED

    world.engine.add_handler(b"t/cmd/+", handler)
    world.engine.add_handler(b"gone", handler)
    peer = await world.connect("a", any_version, mount_point="t/", will=Will("cmd/will"))
    await peer.publish("cmd/go", b"", qos=1)
    await (await world.connect("b", any_version, mount_point="u/")).publish("cmd/go", b"", qos=1)
    await peer.lose()
    assert seen == [("a", "t/", "t/cmd/go"), ("a", "t/", "t/cmd/will")]


async def test_named_recipients_hear_what_is_below_their_mount_point(start: Start, version: int):
    world = await start(mount_points=MOUNTS)
    calls = 0

    def p2p(client: Any, message: Any) -> Recipients:
        nonlocal calls
        calls += 1
        return Recipients([message.topic.rsplit("/", 1)[1]], is_fixed=True)

    world.engine.add_handler(b"+/x/p2p/+", p2p)
    sender = await world.connect("sender", version, mount_point="t/")
    inside = await world.connect("inside", version, mount_point="t/", **lasting(version))
    other = await world.connect("other", version, mount_point="u/")
    for number in range(2):
        await sender.publish("x/p2p/inside", b"%d" % number, qos=1)
        assert await heard(inside) == ("x/p2p/inside", b"%d" % number)
        await sender.send(Publish("x/p2p/other", qos=1, packet_id=1))
        code = ReasonCode.NO_MATCHING_SUBSCRIBERS if version == 5 else 0
        await sender.expect(PubAck(1, code))
    await other.expect_nothing()
    assert calls == 2
    await inside.lose()
    await sender.publish("x/p2p/inside", b"later", qos=1)
    inside = await world.connect("inside", version, mount_point="t/", session_present=True, **lasting(version))
    assert await heard(inside) == ("x/p2p/inside", b"later")


async def test_recipients_may_get_it_under_another_name(start: Start):
    world = await start(mount_points=MOUNTS)
    world.engine.add_handler(b"t/ask", lambda client, message: Recipients(["inside", "other"], topic="u/answer"))
    sender = await world.connect("sender", mount_point="t/")
    inside = await world.connect("inside", mount_point="t/")
    other = await world.connect("other", mount_point="u/")
    await sender.publish("ask", b"?", qos=1)
    assert await heard(other) == ("answer", b"?")
    await inside.expect_nothing()


async def test_broker_delivers_below_the_mount_point(start: Start, version: int):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("c", version, mount_point="t/", **lasting(version))
    assert world.engine.deliver("c", b"t/a", b"1", 1)
    for topic in (b"a", b"t", b"t/", b"t/$a", b"u/a"):
        assert not world.engine.deliver("c", topic, b"no", 1)
    assert await heard(peer) == ("a", b"1")
    await peer.lose()
    assert world.engine.deliver("c", b"t/a", b"2", 1)
    assert not world.engine.deliver("c", b"a", b"no", 1)
    peer = await world.connect("c", version, mount_point="t/", session_present=True, **lasting(version))
    assert await heard(peer) == ("a", b"2")


@pytest.mark.parametrize("identity", [None, Identity("c")])
async def test_broker_subscribes_a_client_below_its_mount_point(start_clocked: Start, identity: Identity | None):
    world = await start_clocked(hooks=HookTable(authenticate=lambda client, connect: identity))
    peer = await world.connect("c", mount_point="t/")
    for topic_filter in (b"#", b"+/a", b"u/#", b"t", b"t/$SYS", b"$share/g/a", b"$SYS/#"):
        assert world.engine.subscribe_client("c", topic_filter, 0, 0) == DENIED
    assert world.engine.subscribe_client("c", b"t/+", 0, 0) == 0
    assert world.engine.subscribe_client("c", b"$share/g/t/x", 0, 0) == 0
    assert await unsuback(peer, "+", "$share/g/x") == [0, 0]


async def test_events_have_whole_topics(start_clocked: Start):
    world: World = await start_clocked()
    world.engine.events.observe((Subscribed, Unsubscribed), lambda: None, 10)
    peer = await world.connect("c", mount_point="t/")
    await peer.subscribe("a")
    await unsuback(peer, "a")
    assert [event.topic_filter for event in world.engine.events.take(0)] == ["t/a", "t/a"]


# --- identities that are replaced


async def test_mount_point_stays_when_the_identity_is_replaced(start_clocked: Start):
    world = await start_clocked(hooks=Users({"a": Identity("a", mount_point="t/")}).hooks)
    peer = await world.connect("a")
    for other in ("u/", "", "t", "${user_name}/"):
        with pytest.raises(Exception, match="mount point"):
            world.engine.set_identity("a", Identity("a", mount_point=other))
    assert world.engine.session("a").mount_point == "t/"
    for same in ("t/", None):
        assert world.engine.set_identity("a", Identity("a", mount_point=same))
        await peer.subscribe("x")
        await peer.publish("x", b"")
        assert (await heard(peer))[0] == "x"


@pytest.mark.parametrize(("mount_point", "is_taken"), [("t/", True), (None, True), ("u/", False), ("", False)])
async def test_re_authentication_does_not_change_it(start_clocked: Start, mount_point: str | None, is_taken: bool):
    method = {PropertyId.AUTHENTICATION_METHOD: "m"}
    hooks = HookTable(
        authenticate=lambda client, connect: Identity("a"),
        continue_authentication=lambda client, auth: Identity("a", mount_point=mount_point),
    )
    world = await start_clocked(hooks=hooks)
    peer = await world.connect("a", mount_point="t/", properties=method)
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, method))
    if is_taken:
        assert (await peer.receive()).reason_code == 0
        await peer.expect_nothing()
    else:
        await peer.expect_closed(DENIED)


async def test_refused_client_has_no_mount_point(start_clocked: Start):
    world = await start_clocked(hooks=Users({"a": Refusal(DENIED)}).hooks)
    await world.connect("a", mount_point="t/", expect=DENIED)


async def test_traces_have_packets_as_they_are_and_all_else_whole(start_clocked: Start):
    world = await start_clocked()
    entries: list[Any] = []
    watch = Watch("client_id", "c", entries.append, lambda error: None)
    world.engine.add_watch(watch)
    peer = await world.connect("c", mount_point="t/")
    await peer.subscribe("#")
    await peer.publish("a", b"", qos=1)
    assert (await heard(peer))[0] == "a"
    world.engine.publish_bytes(b"t", b"above", 1)
    await peer.send(Publish("$a", b"", qos=1, packet_id=1))
    assert (await peer.receive()).reason_code == DENIED
    packets = [one for one in entries if isinstance(one, te.PacketSeen)]
    assert [(one.direction, one.topic) for one in packets if one.packet_type == "publish"] == [
        ("in", "a"),
        ("out", "a"),
        ("in", "$a"),
    ]
    assert [one.topic_filters for one in packets if one.packet_type == "subscribe"] == [["#"]]
    assert [one.topic_filter for one in entries if isinstance(one, te.Subscribed)] == ["t/#"]
    assert [one.topic for one in entries if isinstance(one, te.Published)] == ["t/a"]
    assert [one.topic for one in entries if isinstance(one, te.PublishRefused)] == ["t/$a"]
    assert [(one.topic, one.reason) for one in entries if isinstance(one, te.MessagePassedBy)] == [("t", "mount_point")]
    world.engine.remove_watch(watch)


async def test_trace_of_a_topic_is_of_its_whole_name(start_clocked: Start):
    world = await start_clocked()
    entries: list[Any] = []
    watch = Watch("topic_filter", "t/a", entries.append, lambda error: None)
    world.engine.add_watch(watch)
    peer = await world.connect("c", mount_point="t/")
    await peer.subscribe("a")
    await peer.publish("a", b"")
    assert (await heard(peer))[0] == "a"
    assert {type(one) for one in entries} >= {te.Published, te.PacketSeen}
    world.engine.remove_watch(watch)
