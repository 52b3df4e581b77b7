"""Mount points: clients say and hear topics without the prefix that everybody else knows them by."""

import pytest

from mqttcore.codec import (
    ConnAck,
    Connect,
    Disconnect,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Subscribe,
    Subscription,
    Will,
)
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start
from .tenants import MOUNTS, heard, lasting, suback, unsuback

DENIED = ReasonCode.NOT_AUTHORIZED
INVALID = ReasonCode.TOPIC_NAME_INVALID
DROP = Authorization(refused_publish="drop")
LONGEST = 65535


def raw_publish(version: int, topic: str) -> bytes:
    """Return a PUBLISH of QoS 1 whatever the topic."""
    text = topic.encode()
    body = len(text).to_bytes(2) + text + b"\0\1" + (b"\0" if version == 5 else b"")
    return bytes([0x32, len(body)]) + body


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
    assert world.engine.session("inside").dropped == 0
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
