"""MQTT 3.1.1 §3.12 to §3.14 PINGREQ, PINGRESP and DISCONNECT."""

import pytest

from conversations.conftest import Start

from .v3_wire import (
    CLEAN,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    QOS1,
    RESUMED,
    WILL,
    WILL_QOS1,
    WILL_RETAIN,
    client,
    packet,
    packet_id_of,
    puback,
    publish,
    suback,
    subscribe,
)


@pytest.mark.mqtt3("3.12.4-1")
async def test_every_pingreq_is_answered(start: Start):
    wire = await client(await start(), "c")
    await wire.send(PINGREQ)
    await wire.expect(PINGRESP)
    await wire.send(PINGREQ * 50)
    await wire.expect(PINGRESP * 50)


@pytest.mark.mqtt3("3.12.4-1")
async def test_pingreq_between_other_packets_is_answered_in_its_place(start: Start):
    wire = await client(await start(), "c")
    await wire.send(PINGREQ + subscribe(1, ("t", 0)) + PINGREQ + publish("u", flags=QOS1, packet_id=2) + PINGREQ)
    await wire.expect(PINGRESP, suback(1, 0), PINGRESP, puback(2), PINGRESP)


@pytest.mark.mqtt3("4.8.0-1")
@pytest.mark.parametrize("first", [0xC0, 0xE0], ids=["PINGREQ", "DISCONNECT"])
async def test_body_where_none_may_be_closes_as_a_fault(start: Start, first: int):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 0))
    wire = await client(world, "c", "will", b"", flags=CLEAN | WILL)
    await wire.send(packet(first, b"\x00"), PINGREQ)
    await wire.expect_closed()
    await watcher.expect(publish("will"))


@pytest.mark.mqtt3("3.14.4-3", "3.1.2-10", "3.1.2-12")
@pytest.mark.parametrize("flags", [0, WILL_QOS1, WILL_RETAIN])
async def test_disconnect_discards_the_will(start: Start, flags: int):
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("will", 2))
    wire = await client(world, "c", "will", b"1", flags=CLEAN | WILL | flags)
    await wire.disconnect()
    await watcher.expect_nothing()
    assert world.metrics["retained"] == 0


@pytest.mark.mqtt3("3.14.4-1", "3.14.4-2")
async def test_broker_closes_after_disconnect_and_handles_nothing_behind_it(start: Start):
    # The client is bound to close and to be silent; a client that is not is cut off.
    world = await start()
    watcher = await client(world, "watcher")
    await watcher.subscribe(("#", 0))
    wire = await client(world, "c")
    await wire.send(publish("t", b"before") + DISCONNECT + publish("t", b"behind") + PINGREQ)
    await wire.expect_closed()
    await watcher.expect(publish("t", b"before"))
    await watcher.expect_nothing()


@pytest.mark.mqtt3("4.1.0-1", "3.1.2-4")
async def test_disconnect_keeps_what_was_not_acknowledged(start: Start):
    world = await start()
    wire = await client(world, "c", flags=0)
    await wire.subscribe(("t", 1))
    await (await client(world, "p")).publish("t", b"1", flags=QOS1)
    sent = await wire.receive()
    await wire.disconnect()
    wire = await client(world, "c", flags=0, answer=RESUMED)
    again = await wire.receive()
    assert packet_id_of(again) == packet_id_of(sent)
    await wire.send(puback(packet_id_of(again)))
    await wire.expect_nothing()
    assert world.metrics["in_flight"] == 0
