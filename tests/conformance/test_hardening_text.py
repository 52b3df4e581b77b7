"""Hardening cases 16-19: strings, in every place where a client may send one."""

from collections.abc import Callable

import pytest

from conversations.conftest import Start

from .hardening_bytes import (
    ILL_FORMED_UTF8,
    answer_to_connect,
    assert_fatal,
    assert_refused,
    assert_says,
    connect,
    publish,
    subscribe,
    text,
    unsubscribe,
    versions,
)

Place = Callable[[int, bytes], bytes]

PLACES: dict[str, Place] = {
    "topic": lambda version, data: publish(version, data),
    "topic behind ASCII": lambda version, data: publish(version, b"long/enough/for/words/" + data),
    "topic of QoS 1": lambda version, data: publish(version, data, first=0x32, packet_id=1),
    "topic of QoS 2": lambda version, data: publish(version, data, first=0x34, packet_id=1),
    "filter to subscribe": lambda version, data: subscribe(version, ("t", 0), (data, 0)),
    "filter to unsubscribe": lambda version, data: unsubscribe(version, "t", data),
}
PROPERTY_PLACES: dict[str, Place] = {
    "response topic": lambda version, data: publish(version, properties=b"\x08" + text(data)),
    "content type": lambda version, data: publish(version, properties=b"\x03" + text(data)),
    "user property's name": lambda version, data: publish(version, properties=b"\x26" + text(data) + text("v")),
    "user property's value": lambda version, data: publish(version, properties=b"\x26" + text("n") + text(data)),
    "user property of SUBSCRIBE": lambda version, data: subscribe(
        version, ("t", 0), properties=b"\x26" + text("n") + text(data)
    ),
}
CONNECT_PLACES: dict[str, Place] = {
    "client id": lambda version, data: connect(version, data),
    "user name": lambda version, data: connect(version, flags=0x82, tail=text(data)),
    "will topic": lambda version, data: connect(
        version, flags=0x06, tail=(b"\x00" if version == 5 else b"") + text(data) + text("")
    ),
}
each_ill_formed = pytest.mark.parametrize("data", ILL_FORMED_UTF8.values(), ids=ILL_FORMED_UTF8.keys())
WITH_NUL = b"a\x00b"


@pytest.mark.mqtt3("1.5.3-1")
@pytest.mark.mqtt5("1.5.4-1")
@versions
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@each_ill_formed
async def test_case_16_ill_formed_utf8_closes(start: Start, version: int, place: Place, data: bytes):
    await assert_fatal(await start(), version, place(version, data), 0x81)


@pytest.mark.mqtt5("1.5.4-1")
@pytest.mark.parametrize("place", PROPERTY_PLACES.values(), ids=PROPERTY_PLACES.keys())
@each_ill_formed
async def test_case_16_ill_formed_utf8_in_properties_closes(start: Start, place: Place, data: bytes):
    await assert_fatal(await start(), 5, place(5, data), 0x81)


@pytest.mark.mqtt3("1.5.3-1")
@pytest.mark.mqtt5("1.5.4-1")
@versions
@pytest.mark.parametrize("place", CONNECT_PLACES.values(), ids=CONNECT_PLACES.keys())
@each_ill_formed
async def test_case_16_ill_formed_utf8_in_connect_is_refused(start: Start, version: int, place: Place, data: bytes):
    said = await answer_to_connect(await start(), version, place(version, data))
    if version == 5:
        assert_refused(said, 5, 0x81)
    else:
        assert said == b""


@pytest.mark.mqtt3("1.5.3-2", "4.7.3-2")
@pytest.mark.mqtt5("1.5.4-2", "4.7.3-2")
@versions
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
async def test_case_17_null_character_closes(start: Start, version: int, place: Place):
    await assert_fatal(await start(), version, place(version, WITH_NUL), 0x81)


@pytest.mark.mqtt5("1.5.4-2")
@pytest.mark.parametrize("place", PROPERTY_PLACES.values(), ids=PROPERTY_PLACES.keys())
async def test_case_17_null_character_in_properties_closes(start: Start, place: Place):
    await assert_fatal(await start(), 5, place(5, WITH_NUL), 0x81)


@pytest.mark.mqtt3("1.5.3-2")
@pytest.mark.mqtt5("1.5.4-2")
@versions
@pytest.mark.parametrize("place", CONNECT_PLACES.values(), ids=CONNECT_PLACES.keys())
async def test_case_17_null_character_in_connect_is_refused(start: Start, version: int, place: Place):
    said = await answer_to_connect(await start(), version, place(version, WITH_NUL))
    if version == 5:
        assert_refused(said, 5, 0x81)
    else:
        assert said == b""


@pytest.mark.mqtt3("1.5.3-3")
@pytest.mark.mqtt5("1.5.4-3")
@versions
async def test_case_18_byte_order_mark_is_a_character_like_others(start: Start, version: int):
    world = await start()
    marked, plain = await world.connect("m", version), await world.connect("p", version)
    await marked.subscribe("\ufeffa")
    await plain.subscribe("a")
    writer = await world.connect("w", version)
    await writer.send(publish(version, "\ufeffa", b"marked"))
    await assert_says(marked, publish(version, b"\xef\xbb\xbfa", b"marked"))
    await plain.expect_nothing()


@versions
async def test_case_19_topic_over_the_limit_is_refused_and_the_connection_stays(start: Start, version: int):
    world = await start(topic_bytes_maximum=10)
    reader = await world.connect("r", version)
    await reader.subscribe("#")
    peer = await world.connect("c", version)
    await peer.send(
        publish(version, "x" * 11, first=0x32, packet_id=1),
        publish(version, "x" * 11, first=0x34, packet_id=2),
        publish(version, "x" * 11),
        publish(version, "x" * 10),
    )
    # 3.1.1 has no way to refuse: the message is acknowledged and goes nowhere
    refused = b"\x40\x03\x00\x01\x90\x50\x03\x00\x02\x90" if version == 5 else b"\x40\x02\x00\x01\x50\x02\x00\x02"
    await assert_says(peer, refused)
    assert (await reader.receive_publish()).topic == "x" * 10
    await reader.expect_nothing()
    if version < 5:
        await peer.send(b"\x62\x02\x00\x02")
        await assert_says(peer, b"\x70\x02\x00\x02")
    assert world.metrics["awaiting_release"] == 0


@versions
async def test_case_19_filter_over_the_limit_is_refused(start: Start, version: int):
    world = await start(topic_bytes_maximum=10)
    peer = await world.connect("c", version)
    await peer.send(subscribe(version, ("x" * 11, 1), ("x" * 10, 1)))
    await assert_says(peer, b"\x90\x05\x00\x01\x00\x8f\x01" if version == 5 else b"\x90\x04\x00\x01\x80\x01")


@versions
async def test_case_19_longest_topic_is_taken_by_default(start: Start, version: int):
    world = await start()
    peer = await world.connect("c", version)
    await peer.subscribe("x" * 65535)
    await peer.publish("x" * 65535, b"far", qos=1)
    assert (await peer.receive_publish()).payload == b"far"
