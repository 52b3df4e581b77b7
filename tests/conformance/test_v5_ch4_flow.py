"""Flow control: MQTT 5 §4.9."""

from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import Peer, World
from mqttcore.codec import (
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
)
from mqttcore.constants import PropertyId, ReasonCode

from .peers import lasting


async def subscriber(world: World, receive_maximum: int | None, *, present: bool = False) -> Peer:
    """Return a lasting subscriber of `t` with this Receive Maximum."""
    properties = {} if receive_maximum is None else {PropertyId.RECEIVE_MAXIMUM: receive_maximum}
    peer = await lasting(world, "r", present=present, properties=properties)
    if not present:
        await peer.subscribe("t")
    return peer


async def publish(world: World, count: int, *, qos: int) -> None:
    writer = await world.connect("w")
    for i in range(count):
        await writer.publish("t", b"%d" % i, qos=qos)
    await writer.disconnect()


@pytest.mark.mqtt5("4.9.0-1", "4.9.0-2")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(("receive_maximum", "in_flight_maximum"), [(1, 1024), (3, 1024), (65_535, 5), (7, 5)])
async def test_no_more_is_sent_than_receive_maximum(
    start: Start, qos: int, receive_maximum: int, in_flight_maximum: int
):
    world = await start(in_flight_maximum=in_flight_maximum)
    reader = await subscriber(world, receive_maximum)
    await publish(world, 10, qos=qos)
    quota = min(receive_maximum, in_flight_maximum)
    messages = [await reader.receive() for _ in range(quota)]
    await reader.expect_nothing()
    assert [m.payload for m in messages] == [b"%d" % i for i in range(quota)]
    assert (world.metrics["in_flight"], world.metrics["queued"]) == (quota, 10 - quota)


@pytest.mark.mqtt5("4.9.0-1")
async def test_without_receive_maximum_there_is_one_all_the_same(start: Start):
    world = await start(in_flight_maximum=65_535)
    reader = await subscriber(world, None)
    await publish(world, 300, qos=1)
    assert len({(await reader.receive()).packet_id for _ in range(300)}) == 300


@pytest.mark.mqtt5("4.9.0-1", "4.9.0-2")
async def test_quota_is_set_anew_by_each_connection(start: Start):
    world = await start()
    reader = await subscriber(world, 4)
    await publish(world, 8, qos=1)
    for _ in range(4):
        await reader.receive()
    await reader.lose()
    reader = await subscriber(world, 1, present=True)
    first = await reader.receive()
    assert (first.payload, first.dup) == (b"0", True)
    await reader.expect_nothing()
    await reader.lose()
    reader = await subscriber(world, 6, present=True)
    seen = [await reader.receive() for _ in range(6)]
    assert [(m.payload, m.dup) for m in seen] == [(b"%d" % i, i < 4) for i in range(6)]
    await reader.expect_nothing()


GIVES_BACK = {
    "puback": (1, lambda i: [PubAck(i)]),
    "puback with an error": (1, lambda i: [PubAck(i, ReasonCode.QUOTA_EXCEEDED)]),
    "pubrec with an error": (2, lambda i: [PubRec(i, ReasonCode.QUOTA_EXCEEDED)]),
    "pubcomp": (2, lambda i: [PubRec(i), PubComp(i)]),
}


@pytest.mark.mqtt5("4.9.0-2")
@pytest.mark.parametrize("case", GIVES_BACK)
async def test_each_end_of_an_exchange_gives_back_one(start: Start, case: str):
    qos, acknowledge = GIVES_BACK[case]
    world = await start()
    reader = await subscriber(world, 2)
    await publish(world, 6, qos=qos)
    first, second = await reader.receive(), await reader.receive()
    await reader.expect_nothing()
    for message in (first, second):
        await reader.send(*acknowledge(message.packet_id), *acknowledge(message.packet_id)[-1:])  # twice counts once
        if case == "pubcomp":
            await reader.expect(PubRel(message.packet_id))
        following = await reader.receive()
        assert isinstance(following, Publish)
        await reader.expect_nothing()
    assert world.metrics["in_flight"] == 2


@pytest.mark.mqtt5("4.9.0-2")
@pytest.mark.parametrize(
    "packets",
    [
        [PubRec(0)],
        [PubAck(0)],
        [PubComp(0)],
        [PubAck(0x7001), PubComp(0x7001)],
    ],
    ids=["pubrec only", "puback for qos 2", "pubcomp before pubrec", "never sent"],
)
async def test_nothing_else_gives_back_quota(start: Start, packets: list[Any]):
    world = await start()
    reader = await subscriber(world, 1)
    await publish(world, 2, qos=2)
    packet_id = (await reader.receive()).packet_id
    for packet in packets:
        await reader.send(packet if packet.packet_id else type(packet)(packet_id))
        if isinstance(packet, PubRec):
            await reader.expect(PubRel(packet_id))
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.9.0-3")
async def test_everything_else_is_answered_while_the_quota_is_zero(start: Start):
    world = await start()
    reader = await subscriber(world, 1)
    await publish(world, 2, qos=1)
    held = await reader.receive()
    await reader.send(b"\xc0\x00")
    assert type(await reader.receive()).__name__ == "PingResp"
    await reader.send(Subscribe(5, [Subscription("u", 0)]))
    await reader.expect(SubAck(5, [0]))
    await reader.publish("u", b"qos 0 needs no quota", qos=1)
    assert (await reader.receive()).payload == b"qos 0 needs no quota"
    await reader.publish("v", b"x", qos=2)
    await reader.send(PubRel(900))
    await reader.expect(PubComp(900, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND))
    await reader.send(Unsubscribe(6, ["u"]))
    await reader.expect(UnsubAck(6, [0]))
    await reader.expect_nothing()
    await reader.send(PubAck(held.packet_id))
    assert (await reader.receive()).payload == b"1"


@pytest.mark.mqtt5("4.9.0-3")
async def test_everything_else_is_answered_while_the_client_has_no_quota(start: Start):
    world = await start(receive_maximum=1)
    writer = await world.connect("w")
    none = ReasonCode.NO_MATCHING_SUBSCRIBERS
    await writer.send(Publish("t", qos=2, packet_id=1))
    await writer.expect(PubRec(1, none))
    await writer.publish("t", b"qos 0")
    await writer.send(Publish("t", qos=2, packet_id=1, dup=True))  # the same message, not one more
    await writer.expect(PubRec(1))
    await writer.subscribe("u")
    await writer.expect_nothing()
    await writer.send(PubRel(1))
    await writer.expect(PubComp(1))
    await writer.send(Publish("t", qos=2, packet_id=2))
    await writer.expect(PubRec(2, none))
