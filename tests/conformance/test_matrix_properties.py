"""Every property of a message on every way through the broker: live, retained, queued, repeated, will, shared."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import Publish, Will
from mqttcore.constants import PropertyId

from .peers import lasting

P = PropertyId
PROPERTIES: dict[str, dict[int, Any]] = {
    "none": {},
    "payload format 0": {P.PAYLOAD_FORMAT_INDICATOR: 0},
    "payload format 1": {P.PAYLOAD_FORMAT_INDICATOR: 1},
    "expiry": {P.MESSAGE_EXPIRY_INTERVAL: 100_000},
    "content type": {P.CONTENT_TYPE: "text/plain; charset=ütf-8"},
    "empty content type": {P.CONTENT_TYPE: ""},
    "response topic": {P.RESPONSE_TOPIC: "answers/1"},
    "correlation data": {P.CORRELATION_DATA: bytes(range(256))},
    "empty correlation data": {P.CORRELATION_DATA: b""},
    "user property": {P.USER_PROPERTY: [("k", "v")]},
    "user properties in order": {P.USER_PROPERTY: [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("b", "0")]},
    "long user property": {P.USER_PROPERTY: [("k" * 300, "v" * 65_535)]},
    "all": {
        P.USER_PROPERTY: [("z", "1"), ("a", "2"), ("z", "3")],
        P.CORRELATION_DATA: b"\x00\xff",
        P.RESPONSE_TOPIC: "answers/2",
        P.CONTENT_TYPE: "application/cbor",
        P.MESSAGE_EXPIRY_INTERVAL: 4_294_967_295,
        P.PAYLOAD_FORMAT_INDICATOR: 1,
    },
}
EACH = pytest.mark.parametrize("properties", PROPERTIES.values(), ids=PROPERTIES.keys())


def without_expiry(properties: dict[int, Any]) -> dict[int, Any]:
    return {k: v for k, v in properties.items() if k != P.MESSAGE_EXPIRY_INTERVAL}


def check(message: Publish, properties: dict[int, Any], **more: Any) -> None:
    """Compare; the expiry interval may have lost a second on the way."""
    assert message.payload == "grüße".encode()
    expected = dict(properties)
    if (interval := expected.get(P.MESSAGE_EXPIRY_INTERVAL)) is not None:
        assert interval - message.properties[P.MESSAGE_EXPIRY_INTERVAL] in (0, 1)
    expected.update({P[k.upper()]: v for k, v in more.items()})
    assert without_expiry(message.properties) == without_expiry(expected)
    assert message.properties.keys() == expected.keys()


@EACH
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_live_and_retained(start: Start, properties: dict[int, Any], qos: int):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t", subscription_id=5)
    writer = await world.connect("w")
    await writer.publish("t", "grüße".encode(), qos=qos, retain=True, properties=properties)
    check(await reader.receive_publish(), properties, subscription_identifier=[5])
    late = await world.connect("late")
    await late.subscribe("t")
    check(await late.receive_publish(), properties)


@EACH
@pytest.mark.parametrize("qos", [1, 2])
async def test_queued_then_repeated(start: Start, properties: dict[int, Any], qos: int):
    world = await start()
    reader = await lasting(world, "r")
    await reader.subscribe("t", subscription_id=5)
    await reader.lose()
    writer = await world.connect("w")
    await writer.publish("t", "grüße".encode(), qos=qos, properties=properties)
    for dup in (False, True, True):
        reader = await lasting(world, "r", present=True)
        message = await reader.receive()
        assert message.dup == dup
        check(message, properties, subscription_identifier=[5])
        await reader.lose()


@EACH
async def test_retained_then_in_flight_then_repeated(start: Start, properties: dict[int, Any]):
    world = await start()
    await (await world.connect("w")).publish("t", "grüße".encode(), qos=1, retain=True, properties=properties)
    reader = await lasting(world, "r", properties={P.RECEIVE_MAXIMUM: 1})
    await reader.subscribe("t", subscription_id=5)
    check(await reader.receive(), properties, subscription_identifier=[5])
    await reader.lose()
    reader = await lasting(world, "r", present=True)
    check(await reader.receive_publish(), properties, subscription_identifier=[5])


@EACH
async def test_will_live_and_retained(start: Start, properties: dict[int, Any]):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    will = Will("t", "grüße".encode(), qos=1, retain=True, properties={**properties, P.WILL_DELAY_INTERVAL: 0})
    await (await world.connect("w", will=will)).lose()
    check(await reader.receive_publish(), properties)
    late = await world.connect("late")
    await late.subscribe("t")
    check(await late.receive_publish(), properties)


@EACH
async def test_shared_and_given_to_another_member(start: Start, properties: dict[int, Any]):
    world = await start()
    first = await lasting(world, "m0")
    await first.subscribe("$share/g/t", subscription_id=1)
    writer = await world.connect("w")
    await writer.publish("t", "grüße".encode(), qos=1, properties=properties)
    check(await first.receive(), properties, subscription_identifier=[1])
    second = await world.connect("m1")
    await second.subscribe("$share/g/t", subscription_id=2)
    world.engine.discard_session("m0")
    check(await second.receive_publish(), properties, subscription_identifier=[2])


@EACH
async def test_older_versions_get_the_message_without(start: Start, properties: dict[int, Any]):
    world = await start()
    reader = await world.connect("r", 4)
    await reader.subscribe("t")
    await (await world.connect("w")).publish("t", "grüße".encode(), qos=1, retain=True, properties=properties)
    check(await reader.receive_publish(), {})


@EACH
async def test_topic_alias_of_the_publisher_stays_behind(start: Start, properties: dict[int, Any]):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("t")
    writer = await world.connect("w")
    # Alone, first, and behind the others: the block is cut where the alias stood.
    for said in ({P.TOPIC_ALIAS: 1, **properties}, {**properties, P.TOPIC_ALIAS: 1}):
        for topic in ("t", ""):
            await writer.publish(topic, "grüße".encode(), qos=1, retain=True, properties=said)
            check(await reader.receive_publish(), properties)
    late = await world.connect("late")
    await late.subscribe("t")
    check(await late.receive_publish(), properties)


@EACH
async def test_topic_alias_of_ours_is_the_only_thing_added(start: Start, properties: dict[int, Any]):
    world = await start()
    reader = await world.connect("r", properties={P.TOPIC_ALIAS_MAXIMUM: 10})
    await reader.subscribe("some/topic", subscription_id=5)
    writer = await world.connect("w")
    seen = []
    for _ in range(3):
        await writer.publish("some/topic", "grüße".encode(), qos=1, properties=properties)
        message = await reader.receive_publish()
        check(message, properties, subscription_identifier=[5], topic_alias=message.properties[P.TOPIC_ALIAS])
        seen.append((message.topic, message.properties[P.TOPIC_ALIAS]))
    alias = seen[0][1]
    assert 1 <= alias <= 10
    assert seen == [("some/topic", alias), ("", alias), ("", alias)]


async def test_expiry_counts_down_on_each_way(start_clocked: Start):
    world = await start_clocked()
    reader = await lasting(world, "r")
    await reader.subscribe("t")
    await reader.lose()
    writer = await world.connect("w")
    properties = {P.USER_PROPERTY: [("a", "b")], P.MESSAGE_EXPIRY_INTERVAL: 100, P.CONTENT_TYPE: "x"}
    await writer.publish("t", "grüße".encode(), qos=1, retain=True, properties=properties)
    world.advance(30_000)
    reader = await lasting(world, "r", present=True)
    assert (await reader.receive()).properties == {**properties, P.MESSAGE_EXPIRY_INTERVAL: 70}
    await reader.lose()
    world.advance(20_000)
    reader = await lasting(world, "r", present=True)
    again = await reader.receive_publish()
    assert (again.dup, again.properties) == (True, {**properties, P.MESSAGE_EXPIRY_INTERVAL: 50})
    await reader.subscribe("t")
    assert (await reader.receive_publish()).properties == {**properties, P.MESSAGE_EXPIRY_INTERVAL: 50}
    world.advance(50_000)
    await reader.subscribe("t")
    await reader.expect_nothing()
