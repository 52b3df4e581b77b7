"""Hardening cases 1-10: what is no packet, comes at the wrong time, too slowly or in pieces."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from conversations.conftest import Start, starter_of
from conversations.harness import StreamPeer, World

from .hardening_bytes import (
    NORMAL_DISCONNECT,
    answer_to_connect,
    assert_fatal,
    assert_refused,
    connect,
    everything_until_closed,
    packet,
    publish,
    subscribe,
    text,
    u16,
    unsubscribe,
    versions,
)


@pytest_asyncio.fixture
async def start_tcp() -> AsyncIterator[Start]:
    async for starter in starter_of("tcp"):
        yield starter


FIRST_PACKETS = {
    "reserved type": b"\x00\x00",
    "CONNACK": b"\x20\x02\x00\x00",
    "PUBLISH": publish(4),
    "start of PUBLISH": b"\x30\xff\xff",
    "PUBACK": b"\x40\x02\x00\x01",
    "SUBSCRIBE": subscribe(4, ("t", 0)),
    "PINGREQ": b"\xc0\x00",
    "DISCONNECT": b"\xe0\x00",
    "AUTH": b"\xf0\x00",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.mqtt3("3.1.0-1")
@pytest.mark.mqtt5("3.1.0-1")
@pytest.mark.parametrize("data", FIRST_PACKETS.values(), ids=FIRST_PACKETS.keys())
async def test_case_01_first_packet_other_than_connect_closes_without_a_word(start: Start, data: bytes):
    world = await start()
    assert await answer_to_connect(world, 5, data) == b""
    assert world.metrics["connections"] == 0


@pytest.mark.mqtt3("3.1.0-2")
@pytest.mark.mqtt5("3.1.0-2")
@versions
async def test_case_02_second_connect_closes(start: Start, version: int):
    await assert_fatal(await start(), version, connect(version, "guilty"), 0x82)


async def test_case_03_connection_without_connect_is_closed_in_time(start_clocked: Start):
    world = await start_clocked()
    silent = await world.open()
    world.advance(9_999)
    assert world.metrics["connections"] == 1
    world.advance(1)
    assert await everything_until_closed(silent) == b""
    assert world.metrics["connections"] == 0


async def test_case_03_connect_that_comes_byte_by_byte_gets_no_extra_time(start_clocked: Start):
    world = await start_clocked()
    slow = await world.open()
    for byte in connect(5, "a client id that would take a while")[:10]:
        assert world.metrics["connections"] == 1
        await slow.send(bytes([byte]))
        world.advance(1_000)
    assert await everything_until_closed(slow) == b""
    assert world.metrics["connections"] == 0


async def test_case_03_connection_without_connect_gives_its_socket_back(start_tcp: Start):
    world = await start_tcp(connect_timeout_s=0.05)
    silent = await world.open()
    assert await everything_until_closed(silent) == b""
    assert world.metrics["connections"] == 0


LENGTHS = {
    "five bytes": b"\xff\xff\xff\xff\x01",
    "five bytes of nothing": b"\x80\x80\x80\x80\x00",
    "four bytes that go on": b"\x80\x80\x80\x80",
    "zero in two bytes": b"\x80\x00",
    "zero in four bytes": b"\x80\x80\x80\x00",
    "127 in two bytes": b"\xff\x00",
}


# 3.1.1 has no statement about the shortest form; a length that only hides something is refused there as well.
@pytest.mark.mqtt5("1.5.5-1")
@versions
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS.keys())
async def test_case_05_remaining_length_that_is_none_closes(start: Start, version: int, length: bytes):
    await assert_fatal(await start(), version, b"\xc0" + length, 0x81)


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS.keys())
async def test_case_05_connect_with_a_remaining_length_that_is_none_closes(start: Start, length: bytes):
    assert await answer_to_connect(await start(), 5, b"\x10" + length) == b""


@pytest.mark.mqtt5("1.5.5-1")
@pytest.mark.parametrize("length", [b"\x80\x00", b"\xff\xff\xff\xff\x01"], ids=["not shortest", "five bytes"])
async def test_case_05_property_length_that_is_none_closes(start: Start, length: bytes):
    await assert_fatal(await start(), 5, packet(0x30, text("t"), length, b"payload" * 3), 0x81)


@pytest.mark.mqtt5("3.2.2-15")
@versions
@pytest.mark.parametrize("length", [b"\xfe\x07", b"\xff\xff\xff\x7f"], ids=["one more than the limit", "256 MiB"])
async def test_case_06_length_over_the_limit_closes_before_the_body_comes(start: Start, version: int, length: bytes):
    await assert_fatal(await start(maximum_packet_size_bytes=1024), version, b"\x30" + length, 0x95)


@versions
async def test_case_06_packet_as_large_as_the_limit_is_taken(start: Start, version: int):
    world = await start(maximum_packet_size_bytes=1024)
    peer = await world.connect("c", version)
    largest = publish(version, "t", bytes(1024 - 3 - 3 - (version == 5)))
    assert len(largest) == 1024
    await peer.send(largest)
    await peer.expect_nothing()
    assert world.metrics["messages_received_qos0"] == 1


@pytest.mark.parametrize("length", [b"\xfe\x07", b"\xff\xff\xff\x7f"], ids=["one more than the limit", "256 MiB"])
async def test_case_06_connect_over_the_limit_closes_before_its_body_comes(start: Start, length: bytes):
    assert await answer_to_connect(await start(maximum_packet_size_bytes=1024), 5, b"\x10" + length) == b""


def conversation(version: int) -> bytes:
    """A client's life with each packet type that it may send, ending with DISCONNECT."""
    return b"".join(
        [
            connect(version, "c"),
            subscribe(version, ("a/#", 2), ("b", 0)),
            publish(version, "a/1", b"zero"),
            publish(version, "a/2", b"one", first=0x32, packet_id=1),
            publish(version, "a/3", b"two" * 100, first=0x34, packet_id=2),
            b"\x62\x02\x00\x02",
            b"\x40\x02\x00\x01",
            b"\x50\x02\x00\x02",
            b"\x70\x02\x00\x02",
            b"\xc0\x00",
            unsubscribe(version, "b", packet_id=3),
            NORMAL_DISCONNECT,
        ]
    )


async def hold(world: World, version: int, pieces: list[bytes]) -> bytes:
    """Send pieces, each of which the broker has before the next goes; return all its answers."""
    peer = await world.open(version)
    sent = world.metrics["bytes_received"]
    for piece in pieces:
        await peer.send(piece)
        sent += len(piece)
        if isinstance(peer, StreamPeer):
            await peer.world.until(lambda sent=sent: world.metrics["bytes_received"] >= sent)
    return await everything_until_closed(peer)


@versions
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_case_07_pieces_of_any_size_give_the_same_answers(start: Start, version: int, size: int):
    world = await start()
    data = conversation(version)
    whole = await hold(world, version, [data])
    # CONNACK, SUBACK, three PUBLISH, PUBACK, PUBREC, PUBCOMP, PUBREL, PINGRESP, UNSUBACK
    assert world.metrics["packets_sent_publish"] == 3
    assert world.metrics["packets_sent_unsuback"] == 1
    assert await hold(world, version, [data[i : i + size] for i in range(0, len(data), size)]) == whole


@versions
async def test_case_07_a_thousand_packets_in_one_segment_are_answered_in_order(start: Start, version: int):
    world = await start()
    peer = await world.open(version)
    publishes = [publish(version, "t", first=0x32, packet_id=n) for n in range(1, 1001)]
    await peer.send(connect(version), *publishes, NORMAL_DISCONNECT)
    said = await everything_until_closed(peer)
    acknowledgement = b"\x40\x03%s\x10" if version == 5 else b"\x40\x02%s"
    assert said.endswith(b"".join(acknowledgement % u16(n) for n in range(1, 1001)))


RESERVED = {
    "type 0": b"\x00\x00",
    "PUBACK": b"\x41\x02\x00\x01",
    "PUBREC": b"\x52\x02\x00\x01",
    "PUBREL": b"\x60\x02\x00\x01",
    "PUBREL with more": b"\x6a\x02\x00\x01",
    "PUBCOMP": b"\x78\x02\x00\x01",
    "PINGREQ": b"\xc1\x00",
    "DISCONNECT": b"\xe2\x00",
}


@pytest.mark.mqtt3("2.2.2-2")
@pytest.mark.mqtt5("2.1.3-1")
@versions
@pytest.mark.parametrize("data", RESERVED.values(), ids=RESERVED.keys())
async def test_case_08_reserved_type_or_flags_close(start: Start, version: int, data: bytes):
    await assert_fatal(await start(), version, data, 0x81)


@pytest.mark.mqtt5("2.1.3-1")
async def test_case_08_reserved_flags_of_auth_close(start: Start):
    await assert_fatal(await start(), 5, b"\xf1\x00", 0x81)


@versions
async def test_case_08_connect_with_reserved_flags_of_its_header_closes(start: Start, version: int):
    assert await answer_to_connect(await start(), version, b"\x11" + connect(version)[1:]) == b""


ONLY_FROM_SERVERS = {
    "CONNACK": b"\x20\x03\x00\x00\x00",
    "SUBACK": b"\x90\x04\x00\x01\x00\x00",
    "UNSUBACK": b"\xb0\x04\x00\x01\x00\x00",
    "PINGRESP": b"\xd0\x00",
}


@versions
@pytest.mark.parametrize("data", ONLY_FROM_SERVERS.values(), ids=ONLY_FROM_SERVERS.keys())
async def test_case_09_packet_that_only_servers_send_closes(start: Start, version: int, data: bytes):
    await assert_fatal(await start(), version, data, 0x82)


AUTHS = {
    "nothing in it": b"\xf0\x00",
    "continue without method": b"\xf0\x02\x18\x00",
    "re-authenticate without method": b"\xf0\x02\x19\x00",
    "continue with a method": packet(0xF0, b"\x18\x04\x15", text("x")),
    "re-authenticate with a method": packet(0xF0, b"\x19\x04\x15", text("x")),
}


@pytest.mark.mqtt5("4.12.0-7")
@versions
@pytest.mark.parametrize("data", AUTHS.values(), ids=AUTHS.keys())
async def test_case_10_auth_of_a_client_that_named_no_method_closes(start: Start, version: int, data: bytes):
    await assert_fatal(await start(), version, data, 0x82)


@pytest.mark.mqtt5("4.12.0-1")
async def test_case_10_method_that_nobody_knows_is_refused(start: Start):
    said = await answer_to_connect(await start(), 5, connect(5, properties=b"\x15" + text("SCRAM-SHA-256")))
    assert_refused(said, 5, 0x8C)
