"""UNSUBSCRIBE and UNSUBACK: MQTT 5 §3.10 and §3.11."""

import pytest

from conversations.conftest import Start
from mqttcore.codec import PubAck, PubComp, PubRec, PubRel, UnsubAck, Unsubscribe
from mqttcore.constants import PropertyId, ReasonCode

from .peers import expect_bytes, lasting

NONE = ReasonCode.NO_SUBSCRIPTION_EXISTED


def unsubscribe(payload: bytes, *, first: int = 0xA2, packet_id: int = 1) -> bytes:
    """Return an UNSUBSCRIBE without properties; *payload*: filters."""
    return bytes([first, 3 + len(payload)]) + packet_id.to_bytes(2) + b"\x00" + payload


@pytest.mark.mqtt5("3.10.1-1")
@pytest.mark.parametrize("flags", [f for f in range(16) if f != 2])
async def test_other_flags_are_malformed_and_close(start: Start, flags: int):
    world = await start()
    peer = await world.connect("a")
    await peer.send(unsubscribe(b"\x00\x01t", first=0xA0 | flags))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)
    assert world.metrics["packets_sent_unsuback"] == 0


@pytest.mark.mqtt5("3.10.3-1")
@pytest.mark.parametrize("text", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"], ids=bytes.hex)
async def test_filter_that_is_not_utf8_closes(start: Start, text: bytes):
    world = await start()
    peer = await world.connect("a")
    await peer.send(unsubscribe(len(text).to_bytes(2) + text))
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)


@pytest.mark.mqtt5("3.10.3-1")
async def test_filters_are_packed_one_behind_the_other(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("ä", "bc")
    await peer.send(unsubscribe(b"\x00\x02\xc3\xa4\x00\x02bc"))
    await expect_bytes(peer, b"\xb0\x05\x00\x01\x00\x00\x00")
    assert world.metrics["subscriptions"] == 0
    await peer.send(unsubscribe(b"\x00\x02bc\x00"))  # half a length behind the last one
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)


@pytest.mark.mqtt5("3.10.3-2")
async def test_no_filter_closes(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(unsubscribe(b""))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("3.10.4-1")
@pytest.mark.parametrize(
    ("held", "given"),
    [
        ("a/b", "a/+"),
        ("a/+", "a/b"),
        ("a/+", "a/#"),
        ("a/#", "a"),
        ("#", "+"),
        ("a", "A"),
        ("a", "a/"),
        ("/a", "a"),
        ("a\u0301", "\u00e1"),
        ("a", "$share/g/a"),
        ("$share/g/a", "a"),
        ("$share/g/a", "$share/h/a"),
    ],
)
async def test_only_the_very_same_filter_ends_a_subscription(start: Start, held: str, given: str):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe(held)
    await peer.send(Unsubscribe(1, [given]))
    await peer.expect(UnsubAck(1, [NONE]))
    assert world.engine.session("a").topic_filters == (held,)
    await peer.send(Unsubscribe(2, [held]))
    await peer.expect(UnsubAck(2, [ReasonCode.SUCCESS]))
    assert world.engine.session("a").topic_filters == ()


@pytest.mark.mqtt5("3.10.4-1", "3.10.4-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_nothing_new_comes_after_unsubscribing(start: Start, qos: int):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("t/+", "u")
    writer = await world.connect("w")
    await writer.publish("t/x", b"before", qos=qos)
    assert (await peer.receive_publish()).payload == b"before"
    await peer.send(Unsubscribe(1, ["t/+"]))
    await peer.expect(UnsubAck(1, [ReasonCode.SUCCESS]))
    await writer.publish("t/x", b"after", qos=qos)
    await writer.publish("u", b"other subscription", qos=qos)
    assert (await peer.receive_publish()).payload == b"other subscription"
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.10.4-2")
async def test_another_subscription_still_matches(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("t/+", subscription_id=1)
    await peer.subscribe("t/x", qos=1, subscription_id=2)
    await peer.send(Unsubscribe(1, ["t/+"]))
    await peer.expect(UnsubAck(1, [ReasonCode.SUCCESS]))
    await (await world.connect("w")).publish("t/x", b"1", qos=2)
    message = await peer.receive_publish()
    assert (message.qos, message.properties) == (1, {PropertyId.SUBSCRIPTION_IDENTIFIER: [2]})
    await peer.expect_nothing()


@pytest.mark.mqtt5("3.10.4-3")
async def test_exchanges_under_way_are_completed(start: Start):
    world = await start()
    peer = await lasting(world, "a")
    await peer.subscribe("t")
    writer = await world.connect("w")
    for i, qos in enumerate((1, 2, 2)):
        await writer.publish("t", b"%d" % i, qos=qos)
    one, two, three = [await peer.receive() for _ in range(3)]
    await peer.send(PubRec(two.packet_id))
    await peer.expect(PubRel(two.packet_id))
    await peer.send(Unsubscribe(1, ["t"]))
    await peer.expect(UnsubAck(1, [ReasonCode.SUCCESS]))
    await peer.lose()
    peer = await lasting(world, "a", present=True)
    again = await peer.receive()
    assert (again.packet_id, again.payload, again.dup) == (one.packet_id, b"0", True)
    await peer.expect(PubRel(two.packet_id))
    again = await peer.receive()
    assert (again.packet_id, again.payload, again.qos, again.dup) == (three.packet_id, b"2", 2, True)
    await peer.send(PubAck(one.packet_id), PubComp(two.packet_id), PubRec(three.packet_id))
    await peer.expect(PubRel(three.packet_id))
    await peer.send(PubComp(three.packet_id))
    await peer.expect_nothing()
    assert world.metrics["in_flight"] == 0


@pytest.mark.mqtt5("3.10.4-4", "3.10.4-5", "3.11.2-1", "3.11.2-2")
@pytest.mark.parametrize("packet_id", [1, 0x1234, 0xFFFF], ids=hex)
async def test_unsuback_has_the_packet_id_and_no_properties(start: Start, packet_id: int):
    world = await start()
    peer = await world.connect("a", properties={PropertyId.MAXIMUM_PACKET_SIZE: 16})
    await peer.subscribe("t")
    for code in (b"\x00", b"\x11"):
        await peer.send(unsubscribe(b"\x00\x01t", packet_id=packet_id))
        await expect_bytes(peer, b"\xb0\x04" + packet_id.to_bytes(2) + b"\x00" + code)


@pytest.mark.mqtt5("3.10.4-6", "3.11.3-1", "3.11.3-2")
async def test_several_filters_count_one_after_another_and_get_one_unsuback(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.subscribe("a", "b/+", "$share/g/c")
    await peer.send(unsubscribe(b"\x00\x03b/+\x00\x01x\x00\x02a#\x00\x03b/+\x00\x0a$share/g/c\x00\x00"))
    await expect_bytes(peer, b"\xb0\x09\x00\x01\x00" + b"\x00\x11\x8f\x11\x00\x8f")
    assert world.metrics["packets_sent_unsuback"] == 1
    assert world.engine.session("a").topic_filters == ("a",)
