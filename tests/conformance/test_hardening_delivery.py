"""Hardening cases 31-36, 47-50 and 65: packet identifiers, acknowledgements, windows, queues, order."""

from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import Peer, World
from mqttcore.codec import Decoder, PubComp, Publish, PubRec, PubRel
from mqttcore.constants import PropertyId

from .hardening_bytes import assert_fatal, assert_says, packet, publish, subscribe, u16, unsubscribe, versions


def lasting(version: int) -> dict[str, Any]:
    """Fields of a CONNECT whose session outlives its connection."""
    if version < 5:
        return {"clean_start": False}
    return {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}}


async def lasting_reader(world: World, version: int, **limits: int) -> Peer:
    """A subscriber to `t` at QoS 2 whose session lasts; limits: properties of its CONNECT."""
    fields = lasting(version)
    if limits:
        fields["properties"].update({PropertyId[name.upper()]: value for name, value in limits.items()})
    reader = await world.connect("r", version, **fields)
    await reader.subscribe("t")
    return reader


ID_ZERO = {
    "PUBLISH QoS 1": lambda v: publish(v, first=0x32, packet_id=0),
    "PUBLISH QoS 2": lambda v: publish(v, first=0x34, packet_id=0),
    "PUBACK": lambda v: b"\x40\x02\x00\x00",
    "PUBREC": lambda v: b"\x50\x02\x00\x00",
    "PUBREL": lambda v: b"\x62\x02\x00\x00",
    "PUBCOMP": lambda v: b"\x70\x02\x00\x00",
    "SUBSCRIBE": lambda v: subscribe(v, ("t", 0), packet_id=0),
    "UNSUBSCRIBE": lambda v: unsubscribe(v, "t", packet_id=0),
}


@pytest.mark.mqtt3("2.3.1-1")
@versions
@pytest.mark.parametrize("make", ID_ZERO.values(), ids=ID_ZERO.keys())
async def test_case_31_packet_id_0_closes(start: Start, version: int, make):
    await assert_fatal(await start(), version, make(version), 0x82)


@versions
@pytest.mark.parametrize("first", [0x40, 0x50, 0x62, 0x70, 0x82, 0xA2], ids=hex)
@pytest.mark.parametrize("body", [b"", b"\x01"], ids=["no packet id", "half a packet id"])
async def test_case_31_packet_without_its_packet_id_closes(start: Start, version: int, first: int, body: bytes):
    await assert_fatal(await start(), version, packet(first, body), 0x81)


@pytest.mark.mqtt3("4.3.3-2")
@pytest.mark.mqtt5("4.3.3-10")
@versions
@pytest.mark.parametrize("dup", [0x00, 0x08], ids=["without DUP", "with DUP"])
async def test_case_32_qos_2_id_that_is_open_is_the_same_message(start: Start, version: int, dup: int):
    world = await start()
    reader, writer = await world.connect("r", version), await world.connect("w", version)
    await reader.subscribe("t", qos=0)
    await writer.send(publish(version, "t", b"first", first=0x34, packet_id=9))
    await assert_says(writer, b"\x50\x02\x00\x09")
    for payload in (b"first", b"other"):
        await writer.send(publish(version, "t", payload, first=0x34 | dup, packet_id=9))
        await assert_says(writer, b"\x50\x02\x00\x09")
    assert world.metrics["awaiting_release"] == 1
    await writer.send(b"\x62\x02\x00\x09", publish(version, "t", b"next", first=0x34, packet_id=9))
    await assert_says(writer, b"\x70\x02\x00\x09\x50\x02\x00\x09")
    assert [(await reader.receive_publish()).payload for _ in range(2)] == [b"first", b"next"]
    await reader.expect_nothing()


@versions
async def test_case_32_qos_1_id_may_come_again(start: Start, version: int):
    world = await start()
    reader, writer = await world.connect("r", version), await world.connect("w", version)
    await reader.subscribe("t", qos=0)
    await writer.send(
        publish(version, "t", b"1", first=0x32, packet_id=9), publish(version, "t", b"1", first=0x3A, packet_id=9)
    )
    await assert_says(writer, b"\x40\x02\x00\x09" * 2)
    assert [(await reader.receive_publish()).payload for _ in range(2)] == [b"1", b"1"]


@versions
async def test_case_33_pubrel_for_an_unknown_id_is_answered(start: Start, version: int):
    world = await start()
    peer = await world.connect("c", version)
    await peer.send(b"\x62\x02\x00\x4d")
    await assert_says(peer, b"\x70\x03\x00\x4d\x92" if version == 5 else b"\x70\x02\x00\x4d")
    await peer.expect_nothing()


@versions
async def test_case_34_stray_acknowledgements_open_no_window(start: Start, version: int):
    world = await start(in_flight_maximum=2)
    reader, writer = await world.connect("r", version), await world.connect("w", version)
    await reader.subscribe("t")
    for qos in (1, 2, 1, 2):
        await writer.publish("t", b"%d" % qos, qos=qos)
    first, second = await reader.receive(), await reader.receive()
    assert (first.qos, second.qos) == (1, 2)
    one, two = u16(first.packet_id), u16(second.packet_id)
    # PUBACK for QoS 2 and for nothing; PUBCOMP for QoS 1, before PUBREC and for nothing
    await reader.send(b"\x40\x02" + two, b"\x40\x02\x7f\xff", b"\x70\x02" + one, b"\x70\x02" + two, b"\x70\x02\x7f\xff")
    await reader.expect_nothing()
    assert (world.metrics["in_flight"], world.metrics["queued"]) == (2, 2)
    # PUBREC for QoS 1 and for nothing is answered and changes as little
    end = b"\x92" if version == 5 else b""
    for stray in (one, b"\x7f\xff"):
        await reader.send(b"\x50\x02" + stray)
        await assert_says(reader, packet(0x62, stray, end))
    await reader.expect_nothing()
    assert (world.metrics["in_flight"], world.metrics["queued"]) == (2, 2)
    # the same PUBACK twice makes room for one message
    await reader.send(b"\x40\x02" + one, b"\x40\x02" + one)
    assert (await reader.receive()).payload == b"1"
    await reader.expect_nothing()
    assert (world.metrics["in_flight"], world.metrics["queued"]) == (2, 1)


async def test_case_35_more_than_receive_maximum_closes(start: Start):
    world = await start(receive_maximum=2)
    peer = await world.connect("guilty")
    assert peer.connack
    assert peer.connack.properties[PropertyId.RECEIVE_MAXIMUM] == 2
    reader = await world.connect("r")
    await reader.subscribe("t", qos=0)
    data = [publish(5, "t", b"%d" % n, first=0x34, packet_id=n) for n in (1, 2, 3)]
    await peer.send(*data[:2])
    await assert_says(peer, b"\x50\x02\x00\x01\x50\x02\x00\x02")
    await assert_fatal(world, 5, data[2], 0x93, peer=peer)
    assert [(await reader.receive_publish()).payload for _ in range(2)] == [b"1", b"2"]
    await reader.expect_nothing()


async def test_case_35_repeats_and_qos_1_do_not_count_towards_receive_maximum(start: Start):
    world = await start(receive_maximum=2)
    peer = await world.connect("c")
    held = [publish(5, "t", first=0x34, packet_id=n) for n in (1, 2)]
    await peer.send(*held, *held, *(publish(5, "t", first=0x32, packet_id=n) for n in range(10, 20)))
    await assert_says(
        peer, b"\x50\x03\x00\x01\x10\x50\x03\x00\x02\x10" + b"\x50\x02\x00\x01\x50\x02\x00\x02"
        + b"".join(b"\x40\x03" + u16(n) + b"\x10" for n in range(10, 20)),
    )  # fmt: skip


async def test_case_35_receive_maximum_can_be_left_unenforced(start: Start):
    world = await start(receive_maximum=2, enforce_receive_maximum=False)
    peer = await world.connect("c")
    await peer.send(*(publish(5, "t", first=0x34, packet_id=n) for n in (1, 2, 3)))
    await peer.expect(*(PubRec(n, 0x10) for n in (1, 2, 3)))
    assert world.metrics["awaiting_release"] == 3


async def test_case_35_clients_of_3_1_1_have_no_receive_maximum(start: Start):
    world = await start(receive_maximum=2)
    peer = await world.connect("c", 4)
    await peer.send(*(publish(4, "t", first=0x34, packet_id=n) for n in (1, 2, 3)))
    await peer.expect(*(PubRec(n) for n in (1, 2, 3)))


@pytest.mark.mqtt5("3.3.4-9")
async def test_case_36_receive_maximum_of_the_client_is_kept(start: Start):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.RECEIVE_MAXIMUM: 2})
    await reader.subscribe("t")
    writer = await world.connect("w")
    for n, qos in enumerate([1, 2, 1, 2, 0]):
        await writer.publish("t", b"%d" % n, qos=qos)
    first, second, unbound = await reader.receive(), await reader.receive(), await reader.receive()
    assert (first.payload, second.payload) == (b"0", b"1")
    assert unbound.qos == 0  # not counted, not held back
    await reader.expect_nothing()
    # PUBREC does not end a QoS 2 message: PUBCOMP does
    await reader.send(PubRec(second.packet_id))
    await reader.expect(PubRel(second.packet_id))
    await reader.expect_nothing()
    await reader.send(PubComp(second.packet_id))
    assert (await reader.receive()).payload == b"2"
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.2-24", "3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_case_36_message_too_large_for_the_client_counts_as_delivered(start: Start, qos: int):
    world = await start()
    reader = await world.connect("r", properties={PropertyId.MAXIMUM_PACKET_SIZE: 100})
    other = await world.connect("o")
    await reader.subscribe("t")
    await other.subscribe("t")
    writer = await world.connect("w")
    room = 100 - 2 - 3 - 1 - (2 if qos else 0)
    for size in (room + 1, room):
        await writer.publish("t", bytes(size), qos=qos)
    assert len((await reader.receive_publish()).payload) == room
    await reader.expect_nothing()
    assert [len((await other.receive_publish()).payload) for _ in range(2)] == [room + 1, room]
    await other.expect_nothing()
    assert world.metrics["messages_dropped_too_large"] == 1
    assert world.metrics["in_flight"] == 0


@versions
@pytest.mark.parametrize("drop", ["oldest", "newest"])
async def test_case_47_reader_that_never_acknowledges_holds_up_nobody(start: Start, version: int, drop: str):
    world = await start(in_flight_maximum=3, queued_messages_maximum=4, queue_drop=drop, publisher_pause_ms=0)
    stuck, reader = await world.connect("stuck", version), await world.connect("r", version)
    await stuck.subscribe("t", qos=1)
    await reader.subscribe("t", qos=1)
    writer = await world.connect("w", version)
    for n in range(20):
        await writer.publish("t", b"%d" % n, qos=1)
        assert (await reader.receive_publish()).payload == b"%d" % n
    held = [await stuck.receive() for _ in range(3)]
    assert [message.payload for message in held] == [b"0", b"1", b"2"]
    await stuck.expect_nothing()
    assert (world.metrics["in_flight"], world.metrics["queued"]) == (3, 4)
    assert world.metrics["messages_dropped_queue_full"] == 20 - 3 - 4
    for message in held:
        await stuck.send(b"\x40\x02" + u16(message.packet_id))
    kept = [(await stuck.receive_publish()).payload for _ in range(4)]
    assert kept == [b"%d" % n for n in (range(16, 20) if drop == "oldest" else range(3, 7))]


@pytest.mark.mqtt5("4.4.0-1")
@pytest.mark.mqtt3("4.4.0-1")
@versions
async def test_case_49_nothing_is_sent_again_while_connected(start_clocked: Start, version: int):
    world = await start_clocked()
    reader = await lasting_reader(world, version)
    writer = await world.connect("w", version)
    for qos in (1, 2, 2):
        await writer.publish("t", b"%d" % qos, qos=qos)
    sent = [await reader.receive() for _ in range(3)]
    await reader.send(PubRec(sent[2].packet_id))
    await reader.expect(PubRel(sent[2].packet_id))
    for _ in range(24):
        world.advance(3_600_000)
    await reader.expect_nothing()
    await reader.lose()
    reader = await world.connect("r", version, session_present=True, **lasting(version))
    await reader.expect(
        Publish("t", b"1", qos=1, packet_id=sent[0].packet_id, dup=True),
        Publish("t", b"2", qos=2, packet_id=sent[1].packet_id, dup=True),
        PubRel(sent[2].packet_id),
    )
    await reader.expect_nothing()


@pytest.mark.mqtt3("4.6.0-1")
@versions
@pytest.mark.parametrize("acknowledged", [(), (0,), (1, 3), (0, 1, 2, 3)])
async def test_case_50_order_is_kept_across_resending(start: Start, version: int, acknowledged: tuple[int, ...]):
    world = await start(in_flight_maximum=4)
    reader = await lasting_reader(world, version)
    writer = await world.connect("w", version)
    for n in range(8):
        await writer.publish("t", b"%d" % n, qos=1)
    first = [await reader.receive() for _ in range(4)]
    for n in acknowledged:
        await reader.send(b"\x40\x02" + u16(first[n].packet_id))
    more = [await reader.receive() for _ in acknowledged]
    await reader.expect_nothing()
    await reader.lose()
    reader = await world.connect("r", version, session_present=True, **lasting(version))
    again = [await reader.receive_publish() for _ in range(8 - len(acknowledged))]
    held = [m for n, m in enumerate(first) if n not in acknowledged] + more
    assert [int(m.payload) for m in again] == [n for n in range(8) if n not in acknowledged]
    assert [(m.packet_id, m.dup) for m in again[:4]] == [(m.packet_id, True) for m in held]
    assert not any(m.dup for m in again[4:])


@versions
async def test_case_65_packet_ids_wrap_around_those_in_use(start_clocked: Start, version: int):
    world = await start_clocked(in_flight_maximum=65535)
    reader = await world.connect("r", version)
    await reader.subscribe("t", qos=1)
    writer = await world.connect("w", version)
    decoder = Decoder(version, sender="server")
    batch = b"".join(publish(version, "t", first=0x32, packet_id=n) for n in range(1, 1001))
    kept: set[int] = set()
    used: list[int] = []
    for _ in range(140):  # twice round
        await writer.send(batch)
        assert len(await writer._read() or b"") == 4000
        given = [message.packet_id for message in decoder.feed(await reader._read() or b"")]
        assert len(set(given)) == 1000
        assert kept.isdisjoint(given)
        assert 0 not in given
        used += given
        # every hundredth stays unacknowledged, at 1 and at 65535 as well
        held = {n for n in given if n % 100 == 0 or n in (1, 65535)} if len(used) <= 66_000 else set()
        kept |= held
        await reader.send(*(b"\x40\x02" + u16(n) for n in given if n not in held))
    assert set(used) == set(range(1, 65536))
    assert {1, 65535} <= kept
    assert world.metrics["in_flight"] == len(kept)
