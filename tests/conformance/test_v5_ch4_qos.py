"""QoS 0, 1 and 2, resending, and receipt of messages: MQTT 5 §4.3 to §4.5."""

from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import Peer, World
from mqttcore.codec import PubAck, PubComp, Publish, PubRec, PubRel, SubAck, Subscribe, Subscription
from mqttcore.constants import PropertyId, ReasonCode

from .peers import expect_bytes, lasting

NONE = ReasonCode.NO_MATCHING_SUBSCRIBERS


async def reader_and_writer(world: World, **properties: Any) -> tuple[Peer, Peer]:
    """Return a lasting subscriber of `t` and a publisher."""
    reader = await lasting(world, "r", properties={PropertyId[k.upper()]: v for k, v in properties.items()})
    await reader.subscribe("t")
    return reader, await world.connect("w")


# --- the broker as sender


@pytest.mark.mqtt5("4.3.1-1")
@pytest.mark.parametrize(("published", "granted"), [(0, 2), (1, 0), (2, 0)])
async def test_qos0_is_sent_without_dup_and_packet_id(start: Start, published: int, granted: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t", qos=granted)
    writer = await world.connect("w")
    await writer.send(Publish("t", b"x", qos=published, packet_id=7 if published else 0, dup=published > 0))
    await expect_bytes(reader, b"\x30\x05\x00\x01t\x00x")


@pytest.mark.mqtt5("4.3.2-1", "4.3.2-2", "4.3.3-1", "4.3.3-2")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("dup", [False, True])
async def test_new_message_has_an_unused_packet_id_and_no_dup(start: Start, qos: int, dup: bool):
    world = await start()
    reader, writer = await reader_and_writer(world)
    used: set[int] = set()
    for _ in range(20):
        await writer.publish("t", b"x", qos=qos, dup=dup)  # one repeated by the writer is new to the reader
        message = await reader.receive()
        assert (message.qos, message.dup) == (qos, False)
        assert message.packet_id not in used | {0}
        used.add(message.packet_id)
    assert world.metrics["in_flight"] == 20


@pytest.mark.mqtt5("4.3.2-1", "4.3.3-1")
async def test_packet_id_is_used_until_the_exchange_is_over(start_clocked: Start):
    world = await start_clocked(in_flight_maximum=65_535, queued_messages_maximum=10)
    reader, writer = await reader_and_writer(world)
    await writer.publish("t", b"2", qos=2)
    held = (await reader.receive()).packet_id
    await reader.send(PubRec(held))
    await reader.expect(PubRel(held))
    batch = 1000
    for done in range(0, 65_534, batch):
        count = min(batch, 65_534 - done)
        await writer.send(Publish("t", qos=1, packet_id=1).encode(5) * count)
        ids = [(await reader.receive()).packet_id for _ in range(count)]
        assert held not in ids
    assert world.metrics["in_flight"] == 65_535
    await writer.send(Publish("t", b"waits", qos=1, packet_id=1))
    await reader.expect_nothing()
    await reader.send(PubComp(held))
    message = await reader.receive()
    assert (message.packet_id, message.payload) == (held, b"waits")


@pytest.mark.mqtt5("4.3.2-3", "4.4.0-1")
async def test_qos1_stays_unacknowledged_until_its_puback(start: Start):
    world = await start()
    reader, writer = await reader_and_writer(world)
    await writer.publish("t", b"x", qos=1)
    message = await reader.receive()
    # Nothing else is its acknowledgement.
    await reader.send(PubAck(message.packet_id + 1), PubComp(message.packet_id), PubRec(message.packet_id + 1))
    await reader.expect(PubRel(message.packet_id + 1, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND))
    for _ in range(2):
        await reader.lose()
        reader = await lasting(world, "r", present=True)
        await reader.expect(Publish("t", b"x", qos=1, packet_id=message.packet_id, dup=True))
    await reader.send(PubAck(message.packet_id))
    await reader.expect_nothing()
    await reader.lose()
    reader = await lasting(world, "r", present=True)
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.3.3-3", "4.4.0-1")
async def test_qos2_stays_unacknowledged_until_its_pubrec(start: Start):
    world = await start()
    reader, writer = await reader_and_writer(world)
    await writer.publish("t", b"x", qos=2)
    message = await reader.receive()
    await reader.send(PubAck(message.packet_id), PubComp(message.packet_id))  # neither ends it
    await reader.expect_nothing()
    for _ in range(2):
        await reader.lose()
        reader = await lasting(world, "r", present=True)
        await reader.expect(Publish("t", b"x", qos=2, packet_id=message.packet_id, dup=True))
    assert world.metrics["in_flight"] == 1


@pytest.mark.mqtt5("4.3.3-4", "4.3.3-5", "4.3.3-6", "4.4.0-1")
async def test_pubrel_follows_pubrec_and_is_repeated_until_pubcomp(start: Start):
    world = await start()
    reader, writer = await reader_and_writer(world)
    await writer.publish("t", b"x", qos=2)
    packet_id = (await reader.receive()).packet_id
    await reader.send(PubRec(packet_id))
    pubrel = b"\x62\x02" + packet_id.to_bytes(2)
    await expect_bytes(reader, pubrel)
    await reader.send(PubRec(packet_id))  # once more
    await expect_bytes(reader, pubrel)
    for _ in range(2):
        await reader.lose()
        reader = await lasting(world, "r", present=True)
        await reader.expect(PubRel(packet_id))  # and the PUBLISH no more
        await reader.expect_nothing()
    await reader.send(PubAck(packet_id))  # not what is awaited
    await reader.lose()
    reader = await lasting(world, "r", present=True)
    await reader.expect(PubRel(packet_id))
    await reader.send(PubComp(packet_id))
    await reader.expect_nothing()
    await reader.lose()
    reader = await lasting(world, "r", present=True)
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.3.3-4", "4.4.0-2")
@pytest.mark.parametrize(("qos", "ack"), [(1, PubAck), (2, PubRec)])
@pytest.mark.parametrize("reason_code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99], ids=hex)
async def test_refused_message_is_over_and_not_sent_again(start: Start, qos: int, ack: Any, reason_code: int):
    world = await start()
    reader, writer = await reader_and_writer(world)
    await writer.publish("t", b"x", qos=qos)
    await reader.send(ack((await reader.receive()).packet_id, reason_code))
    await reader.expect_nothing()  # no PUBREL either
    assert world.metrics["in_flight"] == 0
    await reader.lose()
    reader = await lasting(world, "r", present=True)
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.3.3-7")
@pytest.mark.parametrize("qos", [1, 2])
async def test_message_that_was_sent_does_not_expire(start_clocked: Start, qos: int):
    world = await start_clocked()
    reader, writer = await reader_and_writer(world, receive_maximum=1)
    expiry = {PropertyId.MESSAGE_EXPIRY_INTERVAL: 5}
    await writer.publish("t", b"sent", qos=qos, properties=expiry)
    await writer.publish("t", b"queued", qos=qos, properties=expiry)
    sent = await reader.receive()
    await reader.lose()
    world.advance(20_000)
    reader = await lasting(world, "r", present=True)
    again = await reader.receive_publish()
    assert (again.payload, again.packet_id, again.dup) == (b"sent", sent.packet_id, True)
    await reader.expect_nothing()  # the other one was not sent and did expire
    assert world.metrics["messages_dropped_expired"] == 1


# --- the broker as receiver


@pytest.mark.mqtt5("4.3.2-4", "4.5.0-1")
@pytest.mark.parametrize("packet_id", [1, 0x1234, 0xFFFF], ids=hex)
async def test_puback_means_that_the_broker_has_the_message(start: Start, packet_id: int):
    world = await start()
    reader, writer = await reader_and_writer(world)
    await reader.lose()
    await writer.send(Publish("t", b"x", qos=1, packet_id=packet_id))
    await expect_bytes(writer, b"\x40\x02" + packet_id.to_bytes(2))
    await writer.lose()
    reader = await lasting(world, "r", present=True)
    assert (await reader.receive_publish()).payload == b"x"
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.3.2-5")
@pytest.mark.parametrize("dup", [False, True])
async def test_packet_id_after_puback_is_a_new_message(start: Start, dup: bool):
    world = await start()
    reader, writer = await reader_and_writer(world)
    for payload in (b"1", b"1", b"2"):
        await writer.send(Publish("t", payload, qos=1, packet_id=9, dup=dup))
        await writer.expect(PubAck(9))
    assert [(await reader.receive_publish()).payload for _ in range(3)] == [b"1", b"1", b"2"]
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.3.3-8", "4.3.3-11", "4.5.0-1")
@pytest.mark.parametrize("packet_id", [1, 0x1234, 0xFFFF], ids=hex)
async def test_pubrec_means_that_the_broker_has_the_message(start: Start, packet_id: int):
    world = await start()
    reader, writer = await reader_and_writer(world)
    await reader.lose()
    await writer.send(Publish("t", b"x", qos=2, packet_id=packet_id))
    await expect_bytes(writer, b"\x50\x02" + packet_id.to_bytes(2))
    await writer.send(b"\x62\x02" + packet_id.to_bytes(2))
    await expect_bytes(writer, b"\x70\x02" + packet_id.to_bytes(2))
    await writer.lose()
    reader = await lasting(world, "r", present=True)
    assert (await reader.receive_publish()).payload == b"x"
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.3.3-9")
async def test_packet_id_after_a_refusing_pubrec_is_a_new_message(start: Start):
    world = await start(topic_bytes_maximum=4)
    reader, writer = await reader_and_writer(world)
    await writer.send(Publish("t/too/long", b"1", qos=2, packet_id=9))
    await writer.expect(PubRec(9, ReasonCode.TOPIC_NAME_INVALID))
    assert world.metrics["awaiting_release"] == 0
    await writer.send(Publish("t", b"2", qos=2, packet_id=9, dup=True))
    await writer.expect(PubRec(9))
    assert (await reader.receive_publish()).payload == b"2"


@pytest.mark.mqtt5("4.3.3-10", "4.3.3-12")
async def test_repetition_before_pubrel_is_acknowledged_and_not_delivered(start: Start):
    world = await start()
    reader, writer = await reader_and_writer(world)
    for dup in (False, True, True, False):
        await writer.send(Publish("t", b"1", qos=2, packet_id=9, dup=dup))
        await writer.expect(PubRec(9))
    assert (await reader.receive_publish()).payload == b"1"
    await reader.expect_nothing()
    await writer.send(PubRel(9))
    await writer.expect(PubComp(9))
    await writer.send(Publish("t", b"2", qos=2, packet_id=9, dup=True))
    await writer.expect(PubRec(9))
    assert (await reader.receive_publish()).payload == b"2"


@pytest.mark.mqtt5("4.3.3-10", "4.4.0-1")
async def test_repetition_on_the_next_connection_is_not_delivered(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await lasting(world, "w")
    await writer.send(Publish("t", b"1", qos=2, packet_id=9))
    await writer.expect(PubRec(9))
    await writer.lose()
    writer = await lasting(world, "w", present=True)
    await writer.send(Publish("t", b"1", qos=2, packet_id=9, dup=True))
    await writer.expect(PubRec(9))
    await writer.send(PubRel(9))
    await writer.expect(PubComp(9))
    await reader.receive_publish()
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.3.3-13")
async def test_exchange_goes_on_after_the_message_expired(start_clocked: Start):
    world = await start_clocked()
    reader, writer = await reader_and_writer(world)
    await reader.lose()
    await writer.send(Publish("t", qos=2, packet_id=9, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 1}))
    await writer.expect(PubRec(9))
    world.advance(5_000)
    reader = await lasting(world, "r", present=True)
    await reader.expect_nothing()
    assert world.metrics["messages_dropped_expired"] == 1
    await writer.send(PubRel(9))
    await writer.expect(PubComp(9))


@pytest.mark.mqtt5("4.3.3-13")
async def test_exchange_towards_the_client_goes_on_after_expiry(start_clocked: Start):
    world = await start_clocked()
    reader, writer = await reader_and_writer(world)
    await writer.publish("t", b"x", qos=2, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 1})
    message = await reader.receive()
    world.advance(5_000)
    await reader.send(PubRec(message.packet_id))
    await reader.expect(PubRel(message.packet_id))
    await reader.send(PubComp(message.packet_id))
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


# --- resending


@pytest.mark.mqtt5("4.4.0-1")
async def test_nothing_is_sent_again_while_connected(start_clocked: Start):
    world = await start_clocked()
    reader, writer = await reader_and_writer(world)
    for qos in (1, 2, 2):
        await writer.publish("t", qos=qos)
    messages = [await reader.receive() for _ in range(3)]
    await reader.send(PubRec(messages[2].packet_id))
    await reader.expect(PubRel(messages[2].packet_id))
    for _ in range(100):
        world.advance(60_000)
    await reader.expect_nothing()
    await reader.send(Subscribe(1, [Subscription("u", 2)]), PubAck(500))
    await reader.expect(SubAck(1, [2]))
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.4.0-1")
async def test_clean_start_brings_nothing_again(start: Start):
    world = await start()
    reader, writer = await reader_and_writer(world)
    await writer.publish("t", qos=1)
    await reader.receive()
    await reader.lose()
    reader = await world.connect("r")
    await reader.expect_nothing()
    assert world.metrics["in_flight"] == 0


# --- receipt


@pytest.mark.mqtt5("4.5.0-1")
@pytest.mark.parametrize("qos", [1, 2])
async def test_message_is_added_to_every_session_that_matches(start: Start, qos: int):
    world = await start()
    filters = {"away": "t/#", "here": "t/x", "narrow": "+/x", "other": "u", "shared": "$share/g/t/+"}
    for client_id, topic_filter in filters.items():
        peer = await lasting(world, client_id)
        await peer.subscribe(topic_filter)
        if client_id != "here":
            await peer.lose()
        else:
            here = peer
    writer = await world.connect("w")
    await writer.publish("t/x", b"x", qos=qos)
    assert (await here.receive_publish()).qos == qos
    for client_id, reached in {"away": 1, "narrow": 1, "other": 0, "shared": 1}.items():
        peer = await lasting(world, client_id, present=True)
        for _ in range(reached):
            assert (await peer.receive_publish()).qos == qos
        await peer.expect_nothing()
