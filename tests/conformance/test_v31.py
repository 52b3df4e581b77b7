"""MQTT 3.1 (`MQIsdp`, level 3) where it differs from 3.1.1."""

import pytest

from conversations.conftest import Start
from conversations.harness import World

from .v3_wire import (
    ACCEPTED,
    CLEAN,
    DUP,
    PINGREQ,
    PINGRESP,
    QOS1,
    QOS2,
    USER_NAME,
    WILL,
    Wire,
    connect,
    dial,
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


def connect31(*payload, level: int = 3, **fields) -> bytes:
    return connect(*payload, name=b"MQIsdp", level=level, **fields)


async def client31(world: World, *payload, **fields) -> Wire:
    wire = await dial(world, 3)
    await wire.send(connect31(*payload, **fields))
    await wire.expect(ACCEPTED)
    return wire


async def test_connects_under_its_own_name_and_level(start: Start):
    wire = await client31(await start(), "c")
    await wire.send(subscribe(1, ("t", 2)), unsubscribe(2, "t"), PINGREQ)
    await wire.expect(suback(1, 2), unsuback(2), PINGRESP)
    await wire.disconnect()


@pytest.mark.parametrize(("name", "level"), [(b"MQIsdp", 4), (b"MQTT", 3), (b"MQIsdp", 2), (b"MQIsdp", 0)])
async def test_name_and_level_that_do_not_belong_together_are_refused_with_1(start: Start, name: bytes, level: int):
    wire = await dial(await start(), 3)
    await wire.send(connect("c", name=name, level=level) + PINGREQ)
    await wire.expect(b"\x20\x02\x00\x01")
    await wire.expect_closed()


async def test_connack_never_has_session_present(start: Start):
    world = await start()
    wire = await client31(world, "c", flags=0)
    await wire.subscribe(("t", 1))
    await wire.disconnect()
    wire = await client31(world, "c", flags=0)  # resumed all the same
    await wire.send(publish("t", b"1", flags=QOS1, packet_id=1))
    assert {(await wire.receive())[0], (await wire.receive())[0]} == {0x32, 0x40}


async def test_reserved_connect_flag_is_not_looked_at(start: Start):
    await client31(await start(), "c", flags=CLEAN | 1)


@pytest.mark.parametrize("clean", [0, CLEAN])
async def test_empty_client_identifier_is_rejected(start: Start, clean: int):
    wire = await dial(await start(), 3)
    await wire.send(connect31("", flags=clean))
    await wire.expect(b"\x20\x02\x00\x02")
    await wire.expect_closed()


async def test_client_identifier_over_23_bytes_is_taken(start: Start):
    # 3.1 would have it rejected; clients in the field rely on brokers that do not.
    await client31(await start(), "x" * 24)


async def test_user_name_may_be_missing_behind_its_flag(start: Start):
    await client31(await start(), "c", flags=CLEAN | USER_NAME)


async def test_header_flags_that_have_no_meaning_are_not_looked_at_where_dup_stands(start: Start):
    # 3.1 sends SUBSCRIBE, UNSUBSCRIBE and PUBREL again with DUP.
    wire = await client31(await start(), "c")
    await wire.send(subscribe(1, ("t", 0), first=0x82 | DUP))
    await wire.expect(suback(1, 0))
    await wire.send(unsubscribe(2, "t", first=0xA2 | DUP))
    await wire.expect(unsuback(2))
    await wire.send(publish("t", flags=QOS2, packet_id=3), b"\x6a\x02\x00\x03")
    await wire.expect(pubrec(3), pubcomp(3))


async def test_will_is_published(start: Start):
    world = await start()
    watcher = await client31(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client31(world, "c", "will", b"1", flags=CLEAN | WILL)
    await wire.lose()
    await watcher.expect(publish("will", b"1"))


async def test_keep_alive_is_kept(start_clocked: Start):
    world = await start_clocked()
    wire = await client31(world, "c", keep_alive_s=10)
    world.advance(15_100)
    await wire.expect_closed()


@pytest.mark.parametrize("flags", [0, QOS1, QOS2])
async def test_messages_pass_between_3_1_and_3_1_1(start: Start, flags: int):
    world = await start()
    old = await client31(world, "old")
    new = await dial(world)
    await new.send(connect("new"))
    await new.expect(ACCEPTED)
    for receiver, sender in ((old, new), (new, old)):
        await receiver.subscribe(("t", 2))
        await sender.publish("t", b"1", flags=flags)
        got = await receiver.receive()
        packet_id = packet_id_of(got) if flags else 0
        assert got == publish("t", b"1", flags=flags, packet_id=packet_id)
        if flags == QOS1:
            await receiver.send(puback(packet_id))
        elif flags == QOS2:
            await receiver.send(pubrec(packet_id))
            await receiver.expect(pubrel(packet_id))
            await receiver.send(pubcomp(packet_id))
        await receiver.send(unsubscribe(9, "t"))
        await receiver.expect(unsuback(9))


async def test_refusals_have_the_return_codes_of_3_1(start: Start):
    world = await start(sessions_maximum=1)
    await client31(world, "c")
    wire = await dial(world, 3)
    await wire.send(connect31("d"))
    await wire.expect(b"\x20\x02\x00\x03")
    await wire.expect_closed()


def test_builder_writes_the_name_of_3_1():
    assert connect31("c")[2:11] == text("MQIsdp") + b"\x03"
