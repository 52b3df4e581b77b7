"""MQTT 3.1.1 chapters 1 and 2: strings, the fixed header's flags, packet identifiers."""

import pytest

from conversations.conftest import Start

from .v3_wire import (
    CLEAN,
    DUP,
    ILL_FORMED,
    PINGREQ,
    PINGRESP,
    QOS1,
    QOS2,
    USER_NAME,
    WILL,
    WITH_NULL,
    ack,
    client,
    connect,
    dial,
    packet,
    packet_id_of,
    puback,
    pubcomp,
    publish,
    pubrec,
    pubrel,
    suback,
    subscribe,
    text,
    unsuback,
    unsubscribe,
)

# where a client writes strings
STRINGS_OF_CONNECT = {
    "client identifier": lambda data: connect(data),
    "will topic": lambda data: connect("c", data, b"", flags=CLEAN | WILL),
    "user name": lambda data: connect("c", data, flags=CLEAN | USER_NAME),
}
STRINGS = {
    "topic name": lambda data: publish(data),
    "topic name at QoS 1": lambda data: publish(data, flags=QOS1, packet_id=1),
    "topic name at QoS 2": lambda data: publish(data, flags=QOS2, packet_id=1),
    "topic filter": lambda data: subscribe(1, (data, 0)),
    "second topic filter": lambda data: subscribe(1, ("a", 0), (data, 0)),
    "topic filter of UNSUBSCRIBE": lambda data: unsubscribe(1, data),
}


def rows(table):
    return pytest.mark.parametrize("data", table.values(), ids=table)


def makers(table):
    return pytest.mark.parametrize("make", table.values(), ids=table)


@pytest.mark.mqtt3("1.5.3-1", "3.1.3-4", "3.1.3-10", "3.1.3-11")
@makers(STRINGS_OF_CONNECT)
@rows(ILL_FORMED)
async def test_ill_formed_string_in_connect_closes_without_connack(start: Start, make, data: bytes):
    wire = await dial(await start())
    await wire.send(make(data))
    await wire.expect_closed()


@pytest.mark.mqtt3("1.5.3-1", "3.3.2-1", "3.8.3-1", "3.10.3-1")
@makers(STRINGS)
@rows(ILL_FORMED)
async def test_ill_formed_string_closes(start: Start, make, data: bytes):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await client(world, "c")
    await wire.send(make(data), PINGREQ)
    await wire.expect_closed()
    await watcher.expect_nothing()


@pytest.mark.mqtt3("1.5.3-2", "4.7.3-2")
@makers(STRINGS_OF_CONNECT)
@rows(WITH_NULL)
async def test_null_character_in_connect_closes_without_connack(start: Start, make, data: bytes):
    wire = await dial(await start())
    await wire.send(make(data))
    await wire.expect_closed()


@pytest.mark.mqtt3("1.5.3-2", "4.7.3-2")
@makers(STRINGS)
@rows(WITH_NULL)
async def test_null_character_closes(start: Start, make, data: bytes):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await client(world, "c")
    await wire.send(make(data), PINGREQ)
    await wire.expect_closed()
    await watcher.expect_nothing()


@pytest.mark.mqtt3("1.5.3-3")
async def test_zero_width_no_break_space_is_kept_and_told_apart(start: Start):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe(("\ufefft", 0))
    await wire.send(publish("t", b"without"), publish(b"\xef\xbb\xbft", b"with"))
    await wire.expect(publish(b"\xef\xbb\xbft", b"with"))
    await wire.expect_nothing()
    # two client ids, so two clients
    await (await client(world, "\ufeffc")).expect_nothing()
    await wire.expect_nothing()


@pytest.mark.mqtt3("1.5.3-3")
@pytest.mark.parametrize("character", ["\x01", "\x1f", "\x7f", "\x9f", "\ufffe", "\uffff", "\U0010ffff"], ids=ascii)
async def test_control_and_non_characters_are_let_through_unchanged(start: Start, character: str):
    wire = await client(await start(), "c")
    await wire.subscribe((f"t/{character}", 0))
    await wire.send(publish(f"t/{character}", b"1"))
    await wire.expect(publish(f"t/{character}", b"1"))


FLAGS = {
    "PUBACK": (0x40, ack(0, 1)[2:]),
    "PUBREC": (0x50, ack(0, 1)[2:]),
    "PUBREL": (0x62, ack(0, 1)[2:]),
    "PUBCOMP": (0x70, ack(0, 1)[2:]),
    "SUBSCRIBE": (0x82, b"\x00\x01" + text("t") + b"\x00"),
    "UNSUBSCRIBE": (0xA2, b"\x00\x01" + text("t")),
    "PINGREQ": (0xC0, b""),
    "DISCONNECT": (0xE0, b""),
}
WRONG_FLAGS = {
    f"{name} {flags:04b}": packet(first & 0xF0 | flags, body)
    for name, (first, body) in FLAGS.items()
    for flags in range(16)
    if flags != first & 0x0F
}


@pytest.mark.mqtt3("2.2.2-2", "3.6.1-1", "3.8.1-1", "3.10.1-1", "3.14.1-1", "4.8.0-1")
@rows(WRONG_FLAGS)
async def test_reserved_flags_close(start: Start, data: bytes):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client(world, "c", "will", b"", flags=CLEAN | WILL)
    await wire.send(data, PINGREQ)
    await wire.expect_closed()
    await watcher.expect(publish("will"))  # a DISCONNECT with wrong flags is none


@pytest.mark.mqtt3("2.2.2-2")
@pytest.mark.parametrize("flags", range(1, 16))
async def test_reserved_flags_of_connect_close_without_connack(start: Start, flags: int):
    wire = await dial(await start())
    await wire.send(packet(0x10 | flags, connect("c")[2:]))
    await wire.expect_closed()


@pytest.mark.mqtt3("2.2.2-1")
async def test_reserved_flags_of_what_we_send_have_their_values(start: Start):
    world = await start()
    wire = await client(world, "c")  # CONNACK is 0x20
    await wire.send(subscribe(1, ("t", 2)))
    await wire.expect(b"\x90\x03\x00\x01\x02")
    await wire.send(publish("t", b"1", flags=QOS1, packet_id=2))
    assert {(await wire.receive())[0], (await wire.receive())[0]} == {0x32, 0x40}
    await wire.send(puback(1), publish("t", b"2", flags=QOS2, packet_id=3))
    got = [await wire.receive(), await wire.receive()]
    assert {first[0] for first in got} == {0x34, 0x50}
    await wire.send(pubrel(3))
    await wire.expect(b"\x70\x02\x00\x03")
    sent_id = packet_id_of(next(first for first in got if first[0] == 0x34))
    await wire.send(pubrec(sent_id))
    await wire.expect(b"\x62\x02" + sent_id.to_bytes(2, "big"))
    await wire.send(pubcomp(sent_id), unsubscribe(4, "t"), PINGREQ)
    await wire.expect(b"\xb0\x02\x00\x04", b"\xd0\x00")


@pytest.mark.mqtt3("2.3.1-1")
@pytest.mark.parametrize(
    "data",
    [
        publish("t", flags=QOS1, packet_id=0),
        publish("t", flags=QOS2, packet_id=0),
        subscribe(0, ("t", 0)),
        unsubscribe(0, "t"),
    ],
    ids=["PUBLISH at QoS 1", "PUBLISH at QoS 2", "SUBSCRIBE", "UNSUBSCRIBE"],
)
async def test_packet_identifier_zero_closes(start: Start, data: bytes):
    wire = await client(await start(), "c")
    await wire.send(data, PINGREQ)
    await wire.expect_closed()


@pytest.mark.mqtt3("2.3.1-1", "2.3.1-4", "4.3.2-1")
async def test_packet_identifiers_of_ours_are_not_zero_and_unused(start: Start):
    # Three times round the 16 bits while some of the first ids are never acknowledged.
    world = await start(in_flight_maximum=200, queued_messages_maximum=1000)
    subscriber = await client(world, "s")
    await subscriber.subscribe(("t", 1))
    publisher = await client(world, "p")
    held: set[int] = set()
    batch = [publish("t", flags=QOS1, packet_id=1 + i) for i in range(100)]
    size = len(batch[0])
    seen = 0
    while seen < 200_000:
        await publisher.send(*batch)
        await publisher.expect(*(puback(1 + i) for i in range(100)))
        got = await subscriber.receive_bytes(size * 100)
        ids = [int.from_bytes(got[at + size - 2 : at + size], "big") for at in range(0, len(got), size)]
        assert 0 not in ids
        assert len(set(ids)) == 100
        assert held.isdisjoint(ids)
        if len(held) < 90:
            kept = set(ids[::10])
            held |= kept
            ids = [packet_id for packet_id in ids if packet_id not in kept]
        await subscriber.send(*map(puback, ids))
        seen += 100
    await subscriber.expect_nothing()  # the last acknowledgements have arrived
    assert world.engine.session("s").in_flight == len(held)


@pytest.mark.mqtt3("2.3.1-4", "4.3.3-1")
async def test_packet_identifier_of_ours_at_qos_2_is_free_only_after_pubcomp(start: Start):
    world = await start(in_flight_maximum=2)
    subscriber = await client(world, "s")
    await subscriber.subscribe(("t", 2))
    publisher = await client(world, "p")
    for payload in (b"1", b"2", b"3"):
        await publisher.publish("t", payload, flags=QOS2)
    first, second = await subscriber.receive(), await subscriber.receive()
    assert packet_id_of(first) != packet_id_of(second)
    await subscriber.send(pubrec(packet_id_of(first)))
    await subscriber.expect(pubrel(packet_id_of(first)))
    await subscriber.expect_nothing()  # the window of two is still full
    await subscriber.send(pubcomp(packet_id_of(first)))
    assert packet_id_of(await subscriber.receive()) not in {0, packet_id_of(second)}


@pytest.mark.mqtt3("2.3.1-5")
async def test_qos_0_has_no_packet_identifier(start: Start):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe(("t", 2))
    # what would be the identifier belongs to the payload, in and out
    await wire.send(b"\x30\x05\x00\x01t\x00\x07")
    await wire.expect(b"\x30\x05\x00\x01t\x00\x07")


@pytest.mark.mqtt3("2.3.1-6", "2.3.1-7", "3.8.4-2", "3.10.4-4")
@pytest.mark.parametrize("packet_id", [1, 0x00FF, 0x0100, 0x8000, 0xFFFF])
async def test_answers_have_the_packet_identifier_asked_with(start: Start, packet_id: int):
    wire = await client(await start(), "c")
    await wire.send(publish("t", flags=QOS1, packet_id=packet_id))
    await wire.expect(puback(packet_id))
    await wire.send(publish("t", flags=QOS2, packet_id=packet_id))
    await wire.expect(pubrec(packet_id))
    await wire.send(pubrel(packet_id))
    await wire.expect(pubcomp(packet_id))
    await wire.send(subscribe(packet_id, ("t", 0)))
    await wire.expect(suback(packet_id, 0))
    await wire.send(unsubscribe(packet_id, "t"))
    await wire.expect(unsuback(packet_id))


@pytest.mark.mqtt3("2.3.1-6")
async def test_pubrel_has_the_packet_identifier_of_our_publish(start: Start):
    world = await start()
    wire = await client(world, "c")
    await wire.subscribe(("t", 2))
    publisher = await client(world, "p")
    for _ in range(3):
        await publisher.publish("t", flags=QOS2)
    ids = [packet_id_of(await wire.receive()) for _ in range(3)]
    for packet_id in reversed(ids):
        await wire.send(pubrec(packet_id))
        await wire.expect(pubrel(packet_id))
        await wire.send(pubcomp(packet_id))


@pytest.mark.mqtt3("3.3.1-2", "2.2.2-2")
async def test_dup_at_qos_0_closes(start: Start):
    wire = await client(await start(), "c")
    await wire.send(publish("t", flags=DUP), PINGREQ)
    await wire.expect_closed()


@pytest.mark.mqtt3("4.8.0-1")
@pytest.mark.parametrize("first", [0x00, 0x20, 0x90, 0xB0, 0xD0, 0xF0], ids=hex)
async def test_packet_that_clients_do_not_send_closes(start: Start, first: int):
    wire = await client(await start(), "c")
    await wire.send(packet(first, b"\x00\x01"), PINGREQ)
    await wire.expect_closed()


async def test_remaining_length_of_five_bytes_closes(start: Start):
    wire = await client(await start(), "c")
    await wire.send(b"\x30\xff\xff\xff\xff\x7f", PINGREQ)
    await wire.expect_closed()


async def test_packets_may_come_byte_by_byte(start: Start):
    wire = await dial(await start())
    for byte in connect("c") + PINGREQ:
        await wire.send(bytes([byte]))
    await wire.expect(b"\x20\x02\x00\x00", PINGRESP)
