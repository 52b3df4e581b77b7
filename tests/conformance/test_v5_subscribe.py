"""SUBSCRIBE and SUBACK: MQTT 5 §3.8 and §3.9."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import PubAck, Publish, SubAck, Subscribe, Subscription, Will
from mqttcore.constants import PropertyId, ReasonCode

from .peers import expect_bytes, lasting


def subscribe(payload: bytes, *, first: int = 0x82, packet_id: int = 1) -> bytes:
    """Return a SUBSCRIBE without properties; *payload*: filters and options."""
    return bytes([first, 3 + len(payload)]) + packet_id.to_bytes(2) + b"\x00" + payload


@pytest.mark.mqtt5("3.8.1-1")
@pytest.mark.parametrize("flags", [f for f in range(16) if f != 2])
async def test_other_flags_are_malformed_and_close(start: Start, flags: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(b"\x00\x01t\x00", first=0x80 | flags))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)
    assert world.metrics["packets_sent_suback"] == 0


@pytest.mark.mqtt5("3.8.3-1")
@pytest.mark.parametrize("text", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"], ids=bytes.hex)
async def test_filter_that_is_not_utf8_closes(start: Start, text: bytes):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(len(text).to_bytes(2) + text + b"\x00"))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)


@pytest.mark.mqtt5("3.8.3-1")
async def test_filter_beyond_ascii_is_taken(start: Start):
    world = await start()
    peer = await world.connect("a")
    text = "größe/測/🚲".encode()
    await peer.send(subscribe(len(text).to_bytes(2) + text + b"\x00"))
    await expect_bytes(peer, b"\x90\x04\x00\x01\x00\x00")
    await peer.publish("größe/測/🚲", b"x")
    assert (await peer.receive_publish()).payload == b"x"


@pytest.mark.mqtt5("3.8.3-2")
async def test_no_filter_closes(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(b""))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("3.8.3-2")
async def test_filter_without_options_closes(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(b"\x00\x01t\x01\x00\x01u"))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)
    assert world.metrics["subscriptions"] == 0


@pytest.mark.mqtt5("3.8.3-3")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_no_local_keeps_own_messages_away_and_no_others(start: Start, qos: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(b"\x00\x01t" + bytes([0x04 | qos])))
    await expect_bytes(peer, b"\x90\x04\x00\x01\x00" + bytes([qos]))
    await peer.publish("t", b"own", qos=qos)
    await peer.expect_nothing()
    await (await world.connect("b")).publish("t", b"other", qos=qos)
    assert (await peer.receive_publish()).payload == b"other"
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.8.3-3")
async def test_no_local_holds_for_messages_on_their_way_while_away(start: Start):
    world = await start()
    peer = await lasting(world, "a")
    await peer.subscribe(Subscription("t", 1, no_local=True))
    other = await world.connect("b")
    await peer.send(Publish("t", b"own", qos=1, packet_id=1), b"\xe0\x00")
    await peer.expect(PubAck(1))
    await peer.expect_closed()
    await other.publish("t", b"other", qos=1)
    peer = await lasting(world, "a", present=True)
    assert (await peer.receive_publish()).payload == b"other"
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.8.3-3")
async def test_no_local_holds_for_the_own_will(start: Start):
    world = await start()
    watcher = await world.connect("watcher")
    await watcher.subscribe("t")
    peer = await lasting(world, "a", will=Will("t", b"will", qos=1))
    await peer.subscribe(Subscription("t", 1, no_local=True))
    await peer.lose()
    assert (await watcher.receive_publish()).payload == b"will"
    peer = await lasting(world, "a", present=True)
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.8.3-3")
async def test_no_local_holds_for_own_retained_messages(start: Start):
    world = await start()
    peer = await world.connect("a")
    other = await world.connect("b")
    await peer.publish("own", b"own", retain=True)
    await other.publish("other", b"other", retain=True)
    await peer.subscribe(Subscription("+", 1, no_local=True))
    assert (await peer.receive_publish()).payload == b"other"
    await peer.expect_nothing()
    await peer.disconnect()
    peer = await world.connect("a")  # the client id decides, not the session
    await peer.subscribe(Subscription("+", 1, no_local=True))
    assert (await peer.receive_publish()).payload == b"other"
    await peer.expect_nothing()
    await peer.subscribe(Subscription("+", 1))
    assert {(await peer.receive_publish()).payload for _ in range(2)} == {b"own", b"other"}


@pytest.mark.mqtt5("3.8.3-4")
@pytest.mark.parametrize("before", [b"", b"\x00\x01t\x00"], ids=["alone", "second"])
async def test_no_local_on_a_shared_subscription_closes(start: Start, before: bytes):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(before + b"\x00\x0a$share/g/t\x04"))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    assert world.metrics["subscriptions"] == 0


@pytest.mark.mqtt5("3.8.3-5")
@pytest.mark.parametrize("options", [0x40, 0x80, 0xC0, 0x41, 0x82], ids=hex)
@pytest.mark.parametrize("before", [b"", b"\x00\x01u\x00"], ids=["alone", "second"])
async def test_reserved_option_bits_are_malformed(start: Start, options: int, before: bytes):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(before + b"\x00\x01t" + bytes([options])))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)


@pytest.mark.parametrize("options", [0x03, 0x30], ids=["qos 3", "retain handling 3"])
async def test_option_values_that_do_not_exist_close(start: Start, options: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(b"\x00\x01t" + bytes([options])))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("3.8.4-1", "3.8.4-2", "3.9.2-1", "3.9.2-2")
@pytest.mark.parametrize("packet_id", [1, 0x1234, 0xFFFF], ids=hex)
@pytest.mark.parametrize("topic_filter", [b"t", b"a#"], ids=["granted", "refused"])
async def test_suback_has_the_packet_id_and_no_properties(start: Start, packet_id: int, topic_filter: bytes):
    world = await start()
    peer = await world.connect("a", properties={PropertyId.MAXIMUM_PACKET_SIZE: 16})
    code = 0x8F if b"#" in topic_filter else 0x01
    await peer.send(subscribe(len(topic_filter).to_bytes(2) + topic_filter + b"\x01", packet_id=packet_id))
    await expect_bytes(peer, b"\x90\x04" + packet_id.to_bytes(2) + b"\x00" + bytes([code]))


@pytest.mark.mqtt5("3.8.4-3")
async def test_identical_filter_replaces_qos_options_and_identifier(start: Start):
    world = await start()
    peer = await world.connect("a")
    other = await world.connect("b")
    await peer.subscribe(Subscription("t/+", 2, no_local=True), subscription_id=1)
    await peer.subscribe(Subscription("t/+", 1, retain_as_published=True), subscription_id=2)
    assert world.metrics["subscriptions"] == 1
    await peer.publish("t/x", b"own", qos=2)  # No Local is gone
    await other.publish("t/x", b"other", qos=2, retain=True)
    own, kept = await peer.receive_publish(), await peer.receive_publish()
    assert (own.qos, own.payload, own.properties) == (1, b"own", {PropertyId.SUBSCRIPTION_IDENTIFIER: [2]})
    assert (kept.qos, kept.payload, kept.retain) == (1, b"other", True)
    await peer.subscribe(Subscription("t/+", 0, retain_handling=2))
    await other.publish("t/x", b"last", qos=2, retain=True)
    last = await peer.receive_publish()
    assert (last.qos, last.payload, last.retain, last.properties) == (0, b"last", False, {})
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.8.4-4")
@pytest.mark.parametrize(("handling", "again"), [(0, True), (1, False), (2, False)])
async def test_replacing_sends_retained_messages_by_retain_handling(start: Start, handling: int, again: bool):
    world = await start()
    peer = await world.connect("a")
    await peer.publish("t/1", b"1", qos=1, retain=True)
    await peer.publish("t/2", b"2", qos=1, retain=True)
    await peer.subscribe("t/+")
    assert {(await peer.receive_publish()).payload for _ in range(2)} == {b"1", b"2"}
    await peer.subscribe(Subscription("t/+", 2, retain_handling=handling))
    if again:
        found = [await peer.receive_publish() for _ in range(2)]
        assert {(m.payload, m.retain) for m in found} == {(b"1", True), (b"2", True)}
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.8.4-4")
async def test_replacing_loses_no_message(start: Start):
    world = await start()
    peer = await lasting(world, "a", properties={PropertyId.RECEIVE_MAXIMUM: 2})
    await peer.subscribe("t")
    writer = await world.connect("w")
    for i in range(5):  # two in flight, three queued
        await writer.publish("t", b"%d" % i, qos=1)
    held = [await peer.receive() for _ in range(2)]
    await peer.send(Subscribe(7, [Subscription("t", 2)]))
    await peer.expect(SubAck(7, [2]))
    await writer.publish("t", b"5", qos=1)
    await peer.send(*[PubAck(m.packet_id) for m in held])
    rest = [(await peer.receive_publish()).payload for _ in range(4)]
    assert [m.payload for m in held] + rest == [b"%d" % i for i in range(6)]


@pytest.mark.mqtt5("3.8.4-5", "3.8.4-6", "3.9.3-1")
async def test_several_filters_count_one_after_another_and_get_one_suback(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(subscribe(b"\x00\x01a\x00\x00\x02a#\x01\x00\x01b\x02\x00\x01a\x01\x00\x01c\x02"))
    await expect_bytes(peer, b"\x90\x08\x00\x01\x00" + b"\x00\x8f\x02\x01\x02")
    assert world.metrics["packets_sent_suback"] == 1
    assert world.metrics["subscriptions"] == 3
    writer = await world.connect("w")
    for topic in ("a", "b", "c"):
        await writer.publish(topic, topic.encode(), qos=2)
    seen = [await peer.receive_publish() for _ in range(3)]
    assert [(m.topic, m.qos) for m in seen] == [("a", 1), ("b", 2), ("c", 2)]  # the later one of "a" counts
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.8.4-5")
async def test_several_filters_share_the_identifier(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("a", "b/+", subscription_id=268_435_455)
    for topic in ("a", "b/c"):
        await peer.publish(topic)
        assert (await peer.receive_publish()).properties == {PropertyId.SUBSCRIPTION_IDENTIFIER: [268_435_455]}


@pytest.mark.mqtt5("3.8.4-7")
@pytest.mark.parametrize("maximum_qos", [0, 1, 2])
async def test_suback_says_the_granted_qos(start: Start, maximum_qos: int):
    world = await start(maximum_qos=maximum_qos)
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription(f, q) for q, f in enumerate("abc")] + [Subscription("#a", 2)]))
    granted = [min(q, maximum_qos) for q in range(3)]
    await peer.expect(SubAck(1, [*granted, ReasonCode.TOPIC_FILTER_INVALID]))
    writer = await world.connect("w")
    for topic in "abc":
        await writer.publish(topic, qos=maximum_qos)
    assert [(await peer.receive_publish()).qos for _ in range(3)] == granted


@pytest.mark.mqtt5("3.8.4-8")
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
async def test_message_is_sent_at_the_lower_of_published_and_granted_qos(start: Start, published: int, granted: int):
    world = await start()
    peer = await world.connect("a")
    writer = await world.connect("w")
    await writer.publish("t/old", b"retained", qos=published, retain=True)
    await peer.subscribe("t/+", qos=granted)
    assert (await peer.receive_publish()).qos == min(published, granted)
    await writer.publish("t/new", b"live", qos=published)
    assert (await peer.receive_publish()).qos == min(published, granted)
    await peer.expect_nothing()


REASONS: list[tuple[dict[str, Any], list[str], list[int]]] = [
    ({}, ["a"], [2]),
    ({"maximum_qos": 0}, ["a"], [0]),
    ({"maximum_qos": 1}, ["a"], [1]),
    ({}, ["", "a#", "+a", "$share/g"], [ReasonCode.TOPIC_FILTER_INVALID] * 4),
    ({"topic_bytes_maximum": 3}, ["abc", "abcd"], [2, ReasonCode.TOPIC_FILTER_INVALID]),
    ({}, ["$SYS/#", "$SYS", "$share/g/$SYS/#"], [ReasonCode.NOT_AUTHORIZED] * 3),
    ({"subscriptions_per_session_maximum": 1}, ["a", "b", "a"], [2, ReasonCode.QUOTA_EXCEEDED, 2]),
]


@pytest.mark.mqtt5("3.9.3-2", "3.9.3-1")
@pytest.mark.parametrize(("limits", "filters", "codes"), REASONS)
async def test_suback_uses_subscribe_reason_codes(
    start: Start, limits: dict[str, Any], filters: list[str], codes: list[int]
):
    world = await start(**limits)
    peer = await world.connect("a")
    await peer.send(Subscribe(3, [Subscription(f, 2) for f in filters]))
    await expect_bytes(peer, b"\x90" + bytes([3 + len(codes)]) + b"\x00\x03\x00" + bytes(codes))
