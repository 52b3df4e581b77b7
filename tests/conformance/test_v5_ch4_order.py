"""Order of messages: MQTT 5 §4.6."""

import pytest

from conversations.conftest import Start
from mqttcore.codec import PubAck, Publish, PubRec, PubRel
from mqttcore.constants import PropertyId

from .peers import lasting


@pytest.mark.mqtt5("4.6.0-5", "4.6.0-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("topic_filter", ["t/x", "t/+", "#"])
async def test_messages_of_each_client_keep_their_order(start: Start, qos: int, topic_filter: str):
    world = await start()
    readers = [await world.connect(f"r{i}") for i in range(2)]
    for reader in readers:
        await reader.subscribe(topic_filter, qos=qos)
    writers = [await world.connect(f"w{i}") for i in range(3)]
    for step in range(10):
        for number, writer in enumerate(writers):
            await writer.send(Publish("t/x", bytes([number, step]), qos=qos, packet_id=step + 1 if qos else 0))
    for writer in writers:
        if qos == 0:
            await writer.expect_nothing()
        for step in range(10 if qos else 0):
            await writer.expect((PubAck if qos == 1 else PubRec)(step + 1))
    for reader in readers:
        seen = [(await reader.receive_publish()).payload for _ in range(30)]
        for number in range(3):
            assert [p[1] for p in seen if p[0] == number] == list(range(10))


@pytest.mark.mqtt5("4.6.0-5", "4.6.0-6")
@pytest.mark.parametrize("qos", [1, 2])
async def test_order_holds_from_window_to_queue_over_a_reconnect(start: Start, qos: int):
    world = await start()
    window = {PropertyId.RECEIVE_MAXIMUM: 3}
    reader = await lasting(world, "r", properties=window)
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(6):
        await writer.publish("t", b"%d" % i, qos=qos)
    held = [await reader.receive() for _ in range(3)]
    ack, finishes = (PubAck, []) if qos == 1 else (PubRec, [PubRel(held[1].packet_id)])
    await reader.send(ack(held[1].packet_id))  # out of turn: it makes room for one, or for none
    await reader.expect(*finishes)
    if qos == 1:
        assert (await reader.receive()).payload == b"3"
    await reader.lose()
    for i in range(6, 9):
        await writer.publish("t", b"%d" % i, qos=qos)
    reader = await lasting(world, "r", present=True, properties=window)
    if qos == 1:
        expected = [b"0", b"2", b"3"] + [b"%d" % i for i in range(4, 9)]
        assert [(await reader.receive_publish()).payload for _ in expected] == expected
    else:
        again = [await reader.receive() for _ in range(3)]
        again.remove(PubRel(held[1].packet_id))  # ordered among PUBRELs, not among messages
        first, second = again
        assert [(m.payload, m.dup) for m in again] == [(b"0", True), (b"2", True)]
        for message in (first, second):
            await reader.send(PubRec(message.packet_id))
            await reader.expect(PubRel(message.packet_id))
        for message in (first, held[1], second):
            await reader.send(b"\x70\x02" + message.packet_id.to_bytes(2))
        expected = [b"%d" % i for i in range(3, 9)]
        assert [(await reader.receive_publish()).payload for _ in expected] == expected
    await reader.expect_nothing()


@pytest.mark.mqtt5("4.6.0-5")
async def test_order_holds_when_the_window_opens_and_shuts(start: Start):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 1})
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(40):
        await writer.publish("t", b"%d" % i, qos=1 + i % 2)
        if i % 3 == 0:
            assert (await reader.receive_publish()).payload == b"%d" % (i // 3)
    seen = [int((await reader.receive_publish()).payload) for _ in range(40 - 14)]
    assert seen == list(range(14, 40))


@pytest.mark.mqtt5("4.6.0-5")
async def test_acknowledgements_come_in_the_order_of_the_messages(start: Start):
    world = await start()
    writer = await world.connect("w")
    reader = await world.connect("r")
    await reader.subscribe("t")
    ids = [7, 3, 65_535, 1, 9]
    await writer.send(*[Publish("t", qos=1 + i % 2, packet_id=i) for i in ids])
    await writer.expect(*[(PubAck if i % 2 == 0 else PubRec)(i) for i in ids])


@pytest.mark.mqtt5("4.6.0-5")
@pytest.mark.parametrize("qos", [1, 2])
async def test_message_that_comes_with_an_acknowledgement_does_not_overtake_the_queue(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 1})
    await reader.subscribe("t")
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish("t", b"%d" % i, qos=1)
    first = await reader.receive_publish(acknowledge=False)
    # The window has room from the first packet on, and the second is handled before the queue moves.
    await reader.send(PubAck(first.packet_id), Publish("t", b"3", qos=qos, packet_id=9))
    await reader._acknowledged(PubAck if qos == 1 else PubRec)
    assert [(await reader.receive_publish()).payload for _ in range(3)] == [b"1", b"2", b"3"]
