"""MQTT 3.1.1 chapters 6 and 7: the network connection, and conformance without extensions."""

import itertools

import pytest

from conversations.conftest import Start

from .v3_wire import (
    ACCEPTED,
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    QOS1,
    client,
    connect,
    dial,
    puback,
    publish,
    suback,
    subscribe,
    unsuback,
    unsubscribe,
)


@pytest.mark.mqtt3("7.1.1-1")
async def test_bytes_pass_in_order_and_whole_both_ways(start: Start):
    world = await start(output_high_water_bytes=64_000_000)
    wire = await client(world, "c")
    await wire.subscribe(("t", 0))
    whole = b"".join(publish("t", i.to_bytes(4, "big") * (i % 700)) for i in range(1000))
    cut = [0, 1, 2, 5000, 5001, 200_000, len(whole)]
    for start_at, end in itertools.pairwise(cut):
        await wire.send(whole[start_at:end])
    await wire.expect(whole)


@pytest.mark.mqtt3("7.0.0-2")
async def test_nothing_but_the_standard_is_needed(start: Start):
    # No user name, no keep alive of ours, no option: the least a client may say, written down byte by byte.
    wire = await dial(await start())
    await wire.send(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c")
    await wire.expect(ACCEPTED)
    await wire.send(subscribe(1, ("t", 1)))
    await wire.expect(suback(1, 1))
    await wire.send(publish("t", b"1", flags=QOS1, packet_id=2))
    assert {await wire.receive(), await wire.receive()} == {publish("t", b"1", flags=QOS1, packet_id=1), puback(2)}
    await wire.send(puback(1), unsubscribe(3, "t"), PINGREQ)
    await wire.expect(unsuback(3), PINGRESP)
    await wire.send(DISCONNECT)
    await wire.expect_closed()


@pytest.mark.mqtt3("7.0.0-2")
async def test_default_limits_take_the_longest_keep_alive_and_topics(start: Start):
    wire = await dial(await start())
    await wire.send(connect("c", keep_alive_s=65535))
    await wire.expect(ACCEPTED)
    await wire.publish("/".join("abc" for _ in range(100)), b"1", flags=QOS1)
