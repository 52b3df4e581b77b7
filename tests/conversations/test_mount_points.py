"""Mount points: clients say and hear topics without the prefix that everybody else knows them by."""

import logging
from typing import Any

import pytest

from mqttcore.codec import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.events import Subscribed, Unsubscribed
from mqttcore.handlers import CONSUMED, PublishChange, Recipients
from mqttcore.identity import Action, Identity, Permission, Quotas, Refusal

from .conftest import Start
from .harness import Peer, World

DENIED = ReasonCode.NOT_AUTHORIZED
INVALID = ReasonCode.TOPIC_NAME_INVALID
MOUNTS = ("", "t/", "u/")
DROP = Authorization(refused_publish="drop")
LONGEST = 65535


def lasting(version: int) -> dict[str, Any]:
    """Fields of a CONNECT that keep the session."""
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}
    return {"clean_start": False, "properties": properties} if version == 5 else {"clean_start": False}


def raw_publish(version: int, topic: str) -> bytes:
    """Return a PUBLISH of QoS 1 whatever the topic."""
    text = topic.encode()
    body = len(text).to_bytes(2) + text + b"\0\1" + (b"\0" if version == 5 else b"")
    return bytes([0x32, len(body)]) + body


async def suback(peer: Peer, *filters: str) -> list[int]:
    """Subscribe; the reason codes that came back."""
    await peer.send(Subscribe(9, [Subscription(topic_filter, 1) for topic_filter in filters]))
    answer = await peer.receive()
    assert isinstance(answer, SubAck)
    return list(answer.reason_codes)


async def unsuback(peer: Peer, *filters: str) -> list[int]:
    """Unsubscribe; the reason codes that came back."""
    await peer.send(Unsubscribe(9, list(filters)))
    answer = await peer.receive()
    assert isinstance(answer, UnsubAck)
    return list(answer.reason_codes)


async def heard(peer: Peer) -> tuple[str, bytes]:
    """Take the next message."""
    message = await peer.receive_publish()
    return message.topic, message.payload


# --- both ways


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_prefix_is_added_and_taken_away(start: Start, any_version: int, qos: int):
    world = await start(mount_points=MOUNTS)
    inside = await world.connect("inside", any_version, mount_point="t/")
    outside = await world.connect("outside", any_version)
    other = await world.connect("other", any_version, mount_point="u/")
    for peer in (inside, outside, other):
        await peer.subscribe("#")
    await inside.publish("a/b", b"1", qos=qos)
    assert await heard(inside) == ("a/b", b"1")
    assert await heard(outside) == ("t/a/b", b"1")
    await outside.publish("t/c", b"2", qos=qos)
    assert await heard(inside) == ("c", b"2")
    assert await heard(outside) == ("t/c", b"2")
    await outside.publish("a/b", b"3", qos=qos)
    assert await heard(outside) == ("a/b", b"3")
    for peer in (inside, outside, other):
        await peer.expect_nothing()
    assert world.engine.session("inside").topic_filters == ("t/#",)
    assert world.engine.session("inside").mount_point == "t/"
    assert world.engine.session("outside").mount_point == ""


async def test_frames_are_shared_by_all(start: Start, version: int):
    world = await start(mount_points=MOUNTS)
    peers = [
        await world.connect(f"c{number}", version, mount_point=mount_point)
        for number, mount_point in enumerate(MOUNTS * 3)
    ]
    for peer, mount_point in zip(peers, MOUNTS * 3, strict=True):
        await peer.subscribe("u/x" if mount_point == "" else "x")
    await peers[2].publish("x", b"p" * 20000)
    for peer, mount_point in zip(peers, MOUNTS * 3, strict=True):
        if mount_point == "":
            assert await heard(peer) == ("u/x", b"p" * 20000)
        elif mount_point == "u/":
            assert await heard(peer) == ("x", b"p" * 20000)
        await peer.expect_nothing()


async def test_retained_messages_are_those_below(start: Start, any_version: int):
    world = await start(mount_points=MOUNTS)
    outside = await world.connect("outside", any_version)
    for topic in ("t", "t/", "t/a", "t/a/b", "t/$a", "u/a", "a"):
        await outside.publish(topic, topic.encode(), retain=True)
    inside = await world.connect("inside", any_version, mount_point="t/")
    await inside.subscribe("#")
    assert sorted([await heard(inside), await heard(inside)]) == [("a", b"t/a"), ("a/b", b"t/a/b")]
    await inside.expect_nothing()
    await inside.publish("a", b"", retain=True)  # removes what is there
    assert world.engine.retained_message(b"t/a") is None
    assert world.engine.retained_message(b"a") is not None


async def test_what_the_prefix_makes_of_other_topics_is_not_heard(start: Start, any_version: int):
    # `#` in the mount point is `t/#`, which would cover `t`, too; below it a client may find `$`, and nothing.
    world = await start(mount_points=MOUNTS)
    inside = await world.connect("inside", any_version, mount_point="t/")
    await inside.subscribe("#", "+/x", "+")
    outside = await world.connect("outside", any_version)
    for qos in (0, 1, 2):
        for topic in ("t", "t/", "t/$SYS/x", "t/$x", "t/$x/x", "tt/a"):
            await outside.publish(topic, b"no", qos=qos)
    await inside.expect_nothing()
    assert world.engine.session("inside").dropped == 0
    assert world.metrics["queued"] == world.metrics["in_flight"] == 0
    await outside.publish("t/x$", b"yes")
    assert await heard(inside) == ("x$", b"yes")


async def test_empty_levels_stay(start: Start, any_version: int):
    world = await start(mount_points=("/", "t//"))
    for mount_point in ("/", "t//"):
        peer = await world.connect("c", any_version, mount_point=mount_point)
        await peer.subscribe("#")
        for topic in ("/", "/a", "a/", "//"):
            await peer.publish(topic, b"x")
            assert await heard(peer) == (topic, b"x")
        await peer.lose()


async def test_unsubscribing(start: Start, version: int):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("c", version, mount_point="t/")
    await peer.subscribe("a/+", "$share/g/b")
    assert world.engine.session("c").topic_filters == ("t/a/+", "$share/g/t/b")
    codes = await unsuback(peer, "t/a/+", "a/+", "$share/g/b")
    assert world.engine.session("c").topic_filters == ()
    if version == 5:
        assert codes == [ReasonCode.NO_SUBSCRIPTION_EXISTED, 0, 0]
        assert await unsuback(peer, "", "$share/g/", "$SYS/#", "a#") == [
            ReasonCode.TOPIC_FILTER_INVALID,
            ReasonCode.TOPIC_FILTER_INVALID,
            ReasonCode.NO_SUBSCRIPTION_EXISTED,
            ReasonCode.TOPIC_FILTER_INVALID,
        ]


async def test_shared_subscriptions_are_those_of_the_mount_point(start: Start, any_version: int):
    world = await start(mount_points=MOUNTS)
    members = [await world.connect(f"m{i}", any_version, mount_point="t/") for i in range(2)]
    other = await world.connect("other", any_version, mount_point="u/")
    for peer in (*members, other):
        await peer.subscribe("$share/g/#")
    sender = await world.connect("sender", any_version, mount_point="t/")
    for number in range(4):
        await sender.publish("a", b"%d" % number, qos=1)
    found = [await heard(peer) for peer in members for _ in range(2)]
    assert sorted(found) == [("a", b"%d" % number) for number in range(4)]
    await other.expect_nothing()
    outside = await world.connect("outside", any_version)
    await outside.subscribe("$share/g/t/#")  # the same group, by its whole name
    for number in range(3):
        await sender.publish("b", b"%d" % number)
    found = [await heard(peer) for peer in (outside, *members)]
    assert found[0][0] == "t/b"
    assert [topic for topic, _ in found[1:]] == ["b", "b"]
    assert sorted(payload for _, payload in found) == [b"0", b"1", b"2"]


async def test_other_members_get_what_a_member_left(start: Start, version: int):
    world = await start(mount_points=MOUNTS)
    one = await world.connect("one", version, mount_point="t/")
    await one.subscribe("$share/g/a", qos=1)
    sender = await world.connect("sender", version, mount_point="t/")
    await sender.publish("a", b"x", qos=1)
    assert (await one.receive_publish(acknowledge=False)).topic == "a"
    two = await world.connect("two", version)
    await two.subscribe("$share/g/t/a", qos=1)
    await one.lose()
    assert await heard(two) == ("t/a", b"x")


# --- aliases


async def test_topic_aliases_have_the_whole_name(start: Start):
    world = await start(mount_points=MOUNTS, topic_alias_maximum=4)
    outside = await world.connect("outside")
    await outside.subscribe("#")
    inside = await world.connect("inside", mount_point="t/")
    alias = {PropertyId.TOPIC_ALIAS: 3}
    await inside.publish("a", b"1", properties=alias)
    await inside.publish("", b"2", qos=1, properties=alias)
    await inside.publish("b", b"3", properties=alias)
    await inside.publish("", b"4", qos=2, properties=alias)
    assert [await heard(outside) for _ in range(4)] == [("t/a", b"1"), ("t/a", b"2"), ("t/b", b"3"), ("t/b", b"4")]
    await inside.send(Publish("", b"5", properties={PropertyId.TOPIC_ALIAS: 2}))
    await inside.expect_closed(ReasonCode.PROTOCOL_ERROR)


async def test_alias_of_a_refused_topic_is_refused_again(start: Start):
    world = await start(mount_points=MOUNTS)
    inside = await world.connect("inside", mount_point="t/")
    alias = {PropertyId.TOPIC_ALIAS: 1}
    for topic in ("$SYS/x", "", ""):
        await inside.send(Publish(topic, b"x", qos=1, packet_id=1, properties=alias))
        await inside.expect(PubAck(1, DENIED))
    await inside.publish("good", b"x", qos=1, properties=alias)
    await inside.expect_nothing()


async def test_aliases_out_are_of_what_is_heard(start: Start):
    world = await start(mount_points=MOUNTS, topic_alias_maximum_out=10)
    inside = await world.connect("inside", mount_point="t/", properties={PropertyId.TOPIC_ALIAS_MAXIMUM: 10})
    await inside.subscribe("#")
    outside = await world.connect("outside")
    for number in range(3):
        await outside.publish("t/temperature", b"%d" % number)
    first, *later = [await inside.receive_publish() for _ in range(3)]
    assert first.topic == "temperature"
    assert [message.topic for message in later] == ["", ""]
    assert {message.properties[PropertyId.TOPIC_ALIAS] for message in later} == {
        first.properties[PropertyId.TOPIC_ALIAS]
    }


async def test_response_topic_stays_as_it_was_said(start: Start):
    world = await start(mount_points=MOUNTS)
    asking = await world.connect("asking", mount_point="t/")
    answering = await world.connect("answering", mount_point="t/")
    await asking.subscribe("answers/1")
    await answering.subscribe("questions")
    await asking.publish("questions", b"?", properties={PropertyId.RESPONSE_TOPIC: "answers/1"})
    question = await answering.receive_publish()
    assert question.properties == {PropertyId.RESPONSE_TOPIC: "answers/1"}
    await answering.publish(question.properties[PropertyId.RESPONSE_TOPIC], b"!")
    assert await heard(asking) == ("answers/1", b"!")


# --- what is refused


@pytest.mark.parametrize("topic", ["$SYS/broker/uptime", "$x", "$", "$share/g/t"])
async def test_dollar_topics_do_not_exist(start: Start, topic: str):
    world = await start(mount_points=MOUNTS, sys_for_anonymous=True)
    outside = await world.connect("outside")
    await outside.subscribe("t/#")
    peer = await world.connect("inside", mount_point="t/")
    for _ in range(2):
        await peer.send(Publish(topic, b"x", qos=1, packet_id=1))
        await peer.expect(PubAck(1, DENIED))
        await peer.send(Publish(topic, b"x", qos=2, packet_id=2, retain=True))
        await peer.expect(PubRec(2, DENIED))
        await outside.publish(f"t/{topic}", b"whole")  # and it has a route now
        assert (await heard(outside)) == (f"t/{topic}", b"whole")
    assert world.metrics["awaiting_release"] == 0
    assert world.metrics["messages_dropped_not_authorized"] == 4
    await peer.send(Publish(topic, b"x"))
    await peer.expect_closed(DENIED)
    await outside.expect_nothing()


async def test_dollar_topics_below_mqtt_5(start: Start):
    world = await start(mount_points=MOUNTS, authorization=DROP)
    peer = await world.connect("inside", 4, mount_point="t/")
    await peer.subscribe("#")
    for qos in (0, 1, 2):
        await peer.publish("$SYS/x", b"x", qos=qos)  # taken, and dropped
    await peer.expect_nothing()
    assert world.metrics["messages_dropped_not_authorized"] == 3
    assert world.metrics["awaiting_release"] == 0


async def test_refused_publish_closes_below_mqtt_5(start: Start):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("inside", 4, mount_point="t/")
    await peer.send(Publish("$SYS/x", b"x", qos=1, packet_id=1))
    await peer.expect_closed()


async def test_filters_for_dollar_topics_are_refused(start: Start, version: int):
    world = await start(mount_points=MOUNTS, sys_for_anonymous=True)
    peer = await world.connect("inside", version, mount_point="t/")
    filters = ["$SYS/#", "$x", "$share/g/$SYS/#", "$shared/g", "a", "$share/g/b"]
    denied = DENIED if version == 5 else 0x80
    assert await suback(peer, *filters) == [denied] * 4 + [1, 1]
    assert world.metrics["subscriptions_refused"] == 4
    assert world.engine.session("inside").topic_filters == ("t/a", "$share/g/t/b")


async def test_refused_filters_may_disconnect(start: Start):
    world = await start(mount_points=MOUNTS, authorization=Authorization(refused_subscribe="disconnect"))
    peer = await world.connect("inside", mount_point="t/")
    await peer.send(Subscribe(1, [Subscription("$SYS/#")]))
    await peer.expect_closed(DENIED)


async def test_what_is_no_filter_stays_none(start: Start):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("inside", mount_point="t/")
    wrong = ["", "a#", "#/a", "+a", "$share/g/", "$share/g", "$share//a", "$share/+/a"]
    assert await suback(peer, *wrong) == [ReasonCode.TOPIC_FILTER_INVALID] * len(wrong)
    assert world.engine.session("inside").topic_filters == ()


@pytest.mark.parametrize("topic", ["", "a/+", "#", "$x/#"])
async def test_what_is_no_topic_closes(start: Start, any_version: int, topic: str):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("inside", any_version, mount_point="t/")
    await peer.send(raw_publish(any_version, topic))
    await peer.expect_closed(None if any_version < 5 else ReasonCode.PROTOCOL_ERROR if topic == "" else INVALID)


async def test_too_long_with_the_prefix(start: Start):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("inside", mount_point="t/")
    await peer.subscribe("a" * (LONGEST - 2))
    await peer.publish("a" * (LONGEST - 2), b"just")
    assert await heard(peer) == ("a" * (LONGEST - 2), b"just")
    alias = {PropertyId.TOPIC_ALIAS: 1}
    for topic in ("a" * (LONGEST - 1), "", "a" * LONGEST):
        await peer.send(Publish(topic, b"x", qos=1, packet_id=1, properties=alias))
        await peer.expect(PubAck(1, INVALID))
    assert (
        await suback(peer, "a" * (LONGEST - 1), "$share/g/" + "a" * (LONGEST - 10))
        == [ReasonCode.TOPIC_FILTER_INVALID] * 2
    )
    assert await unsuback(peer, "a" * LONGEST) == [ReasonCode.NO_SUBSCRIPTION_EXISTED]


async def test_limit_on_topics_counts_what_was_said(start: Start):
    world = await start(mount_points=MOUNTS, topic_bytes_maximum=10)
    outside = await world.connect("outside")
    await outside.subscribe("#")
    peer = await world.connect("inside", mount_point="t/")
    for _ in range(2):
        await peer.publish("0123456789", b"x", qos=1)
        assert await heard(outside) == ("t/0123456789", b"x")
        await peer.send(Publish("0123456789a", b"x", qos=1, packet_id=1))
        await peer.expect(PubAck(1, INVALID))
    assert await suback(peer, "0123456789", "0123456789a") == [1, ReasonCode.TOPIC_FILTER_INVALID]


# --- wills


async def test_will_has_the_whole_name(start: Start, any_version: int):
    world = await start(mount_points=MOUNTS)
    outside = await world.connect("outside", any_version)
    await outside.subscribe("#")
    inside = await world.connect("inside", any_version, mount_point="t/")
    await inside.subscribe("gone/+")
    dying = await world.connect("dying", any_version, mount_point="t/", will=Will("gone/dying", b"x", qos=1))
    await dying.lose()
    assert await heard(outside) == ("t/gone/dying", b"x")
    assert await heard(inside) == ("gone/dying", b"x")


@pytest.mark.parametrize(
    ("topic", "reason_code"), [("$SYS/x", DENIED), ("$x", DENIED), ("a" * LONGEST, ReasonCode.TOPIC_NAME_INVALID)]
)
async def test_will_that_cannot_be_is_refused(start: Start, topic: str, reason_code: int):
    world = await start(mount_points=MOUNTS)
    await world.connect("c", mount_point="t/", will=Will(topic), expect=reason_code)
    assert world.metrics["sessions"] == 0
    old = await world.open(4, "t/")
    await old.send(Connect("c", protocol_version=4, will=Will(topic)))
    assert isinstance(await old.receive(), ConnAck)
    await old.expect_closed()


# --- whose session it is


@pytest.mark.parametrize("clean_start", [True, False])
@pytest.mark.parametrize(("first", "second"), [("t/", "u/"), ("", "t/"), ("t/", "")])
async def test_session_is_not_touched_through_another_mount_point(
    start: Start, version: int, first: str, second: str, clean_start: bool
):
    world = await start(mount_points=MOUNTS)
    owner = await world.connect("c", version, mount_point=first, **lasting(version))
    await owner.subscribe("a", qos=1)
    code = ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    await world.connect("c", version, mount_point=second, clean_start=clean_start, expect=code)
    await owner.publish("a", b"1")
    assert await heard(owner) == ("a", b"1")
    await owner.lose()
    await world.connect("c", version, mount_point=second, clean_start=clean_start, expect=code)
    await (await world.connect("sender", version, mount_point=first)).publish("a", b"2", qos=1)
    again = await world.connect("c", version, mount_point=first, session_present=True, **lasting(version))
    assert await heard(again) == ("a", b"2")
    await again.lose()
    await (await world.connect("c", version, mount_point=first, clean_start=True)).lose()
    if world.metrics["sessions"] == 1:  # the sender's: it ended, and its client id is free
        await world.connect("c", version, mount_point=second)


async def test_queued_and_in_flight_messages_are_stripped(start: Start, version: int):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("c", version, mount_point="t/", **lasting(version))
    await peer.subscribe("#")
    outside = await world.connect("outside", version)
    await outside.publish("t/1", b"1", qos=1)
    await outside.publish("t/2", b"2", qos=2)
    for _ in range(2):
        assert (await peer.receive_publish(acknowledge=False)).topic in ("1", "2")
    await peer.lose()
    await outside.publish("t/3", b"3", qos=1)
    await outside.publish("t/$3", b"3", qos=1)
    assert world.engine.session("c").queued == 1
    peer = await world.connect("c", version, mount_point="t/", session_present=True, **lasting(version))
    messages = [await peer.receive_publish() for _ in range(3)]
    assert [(message.topic, message.dup) for message in messages] == [("1", True), ("2", True), ("3", False)]
    await peer.expect_nothing()


# --- what plugins see, and say


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


async def test_broker_subscribes_a_client_below_its_mount_point(start: Start):
    world = await start(mount_points=MOUNTS)
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


# --- QoS 2 to the end


async def test_exchange_of_qos_2_is_as_any(start: Start, version: int):
    world = await start(mount_points=MOUNTS)
    peer = await world.connect("c", version, mount_point="t/")
    await peer.subscribe("a")
    for dup in (False, True):
        await peer.send(Publish("a", b"x", qos=2, packet_id=5, dup=dup))
        if not dup:
            assert (await peer.receive_publish(acknowledge=False)).topic == "a"
        await peer.expect(PubRec(5))
    await peer.send(PubRel(5))
    await peer.expect(PubComp(5))
    await peer.send(Disconnect())
