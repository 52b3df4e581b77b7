"""Session expiry, what CONNACK says, client ids, aliases, message expiry and packet sizes."""

from typing import Any

import pytest

from mqttcore.codec import Connect, PubAck, Publish, SubAck, Subscribe, Subscription
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start
from .harness import Peer, World

EXPIRY = PropertyId.SESSION_EXPIRY_INTERVAL
MESSAGE_EXPIRY = PropertyId.MESSAGE_EXPIRY_INTERVAL
ALIAS = PropertyId.TOPIC_ALIAS
ALIAS_MAXIMUM = PropertyId.TOPIC_ALIAS_MAXIMUM
PACKET_MAXIMUM = PropertyId.MAXIMUM_PACKET_SIZE


async def durable(world: World, client_id: str, *, present: bool = False, expiry_s: int = 100) -> Peer:
    return await world.connect(client_id, clean_start=False, session_present=present, properties={EXPIRY: expiry_s})


# --- session expiry ---------------------------------------------------------------------------------------------------


async def test_session_expires(start_clocked: Start):
    world = await start_clocked()
    peer = await durable(world, "a", expiry_s=100)
    await peer.subscribe("t")
    world.advance(500_000)  # does not run while connected
    await peer.disconnect()
    world.advance(99_800)
    peer = await durable(world, "a", present=True, expiry_s=100)
    await peer.lose()
    world.advance(100_200)
    assert world.metrics["sessions"] == 0
    await durable(world, "a", present=False)


async def test_expiry_can_be_changed_at_disconnect(start_clocked: Start):
    world = await start_clocked()
    peer = await durable(world, "a", expiry_s=100)
    await peer.disconnect(0, {EXPIRY: 1000})
    world.advance(900_000)
    peer = await durable(world, "a", present=True, expiry_s=100)
    await peer.disconnect(0, {EXPIRY: 0})
    assert world.metrics["sessions"] == 0


async def test_expiry_cannot_be_raised_from_zero(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x01")
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    peer = await world.connect("a")
    await peer.disconnect(0, {EXPIRY: 0})


async def test_broker_caps_the_expiry_and_says_so(start_clocked: Start):
    world = await start_clocked(session_expiry_maximum_s=50)
    peer = await durable(world, "a", expiry_s=0xFFFFFFFF)
    assert peer.connack.properties[EXPIRY] == 50
    await peer.disconnect(0, {EXPIRY: 4000})
    old = await world.connect("old", 4, clean_start=False)
    await old.lose()
    world.advance(49_000)
    assert world.metrics["sessions"] == 2
    world.advance(1_200)
    assert world.metrics["sessions"] == 0
    peer = await durable(world, "a", expiry_s=50)
    assert EXPIRY not in peer.connack.properties


async def test_session_that_never_expires(start_clocked: Start):
    world = await start_clocked(session_expiry_maximum_s=0xFFFFFFFF)
    peer = await durable(world, "a", expiry_s=0xFFFFFFFF)
    await peer.lose()
    world.advance(2_000_000_000)
    peer = await durable(world, "a", present=True, expiry_s=0)
    await peer.disconnect()


async def test_timers_over_many_turns_of_the_wheel(start_clocked: Start):
    world = await start_clocked()
    for i, expiry_s in enumerate([1, 102, 103, 205, 1030, 5000]):
        peer = await durable(world, f"c{i}", expiry_s=expiry_s)
        await peer.lose()
    now_s = 0
    for until_s, left in [(2, 5), (101, 5), (104, 3), (204, 3), (206, 2), (1031, 1), (4999, 1), (5001, 0)]:
        while now_s < until_s:
            step_s = min(37, until_s - now_s)
            world.advance(step_s * 1000)
            now_s += step_s
        assert world.metrics["sessions"] == left, now_s


async def test_clock_that_stands_or_jumps_back_changes_nothing(start_clocked: Start):
    world = await start_clocked()
    peer = await world.connect("a", keep_alive_s=10)
    world.engine.advance(world.now_ms - 900)
    world.engine.advance(world.now_ms)
    await peer.expect_nothing()


async def test_connection_without_connect_times_out(start_clocked: Start):
    world = await start_clocked(connect_timeout_s=2)
    silent = await world.open()
    slow = await world.open()
    await slow.send(Connect("a").encode(5)[:5])
    world.advance(1_900)
    await slow.send(Connect("a").encode(5)[5:8])
    assert world.metrics["connections"] == 2
    world.advance(200)
    await silent.expect_closed()
    await slow.expect_closed()


# --- CONNACK ----------------------------------------------------------------------------------------------------------


async def test_assigned_client_id(start: Start):
    world = await start()
    first, second = await world.connect(), await world.connect()
    ids = {p.connack.properties[PropertyId.ASSIGNED_CLIENT_IDENTIFIER] for p in (first, second)}
    assert len(ids) == 2
    again = await world.connect(ids.pop(), clean_start=True)
    assert PropertyId.ASSIGNED_CLIENT_IDENTIFIER not in again.connack.properties
    durable_one = await world.connect("", clean_start=False, properties={EXPIRY: 60})
    assert PropertyId.ASSIGNED_CLIENT_IDENTIFIER in durable_one.connack.properties


async def test_empty_client_id_below_5(start: Start):
    world = await start()
    await world.connect("", 4)
    await world.connect("", 4)
    assert world.metrics["sessions"] == 2
    peer = await world.connect("", 4, clean_start=False, expect=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
    await peer.expect_closed()


async def test_long_client_id(start: Start):
    world = await start(client_id_bytes_maximum=23)
    await world.connect("x" * 23)
    await world.connect("ü" * 12, expect=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)


async def test_server_keep_alive(start_clocked: Start):
    world = await start_clocked(keep_alive_maximum_s=20)
    for asked_s in (0, 21, 600):
        peer = await world.connect("a", keep_alive_s=asked_s)
        assert peer.connack.properties[PropertyId.SERVER_KEEP_ALIVE] == 20
    world.advance(30_200)
    await peer.expect_closed(ReasonCode.KEEP_ALIVE_TIMEOUT)
    peer = await world.connect("a", keep_alive_s=10)
    assert PropertyId.SERVER_KEEP_ALIVE not in peer.connack.properties


async def test_response_information_when_asked_for(start: Start):
    world = await start(response_information="answers/")
    asked = {PropertyId.REQUEST_RESPONSE_INFORMATION: 1}
    peer = await world.connect("a", properties=asked)
    assert peer.connack.properties[PropertyId.RESPONSE_INFORMATION] == "answers/"
    peer = await world.connect("a")
    assert PropertyId.RESPONSE_INFORMATION not in peer.connack.properties


async def test_connack_says_the_limits(start: Start):
    world = await start(
        maximum_qos=1,
        maximum_packet_size_bytes=5000,
        topic_alias_maximum=3,
        receive_maximum=7,
        wildcard_subscription_available=False,
        subscription_identifier_available=False,
    )
    peer = await world.connect("a")
    assert peer.connack.properties == {
        PropertyId.MAXIMUM_QOS: 1,
        PACKET_MAXIMUM: 5000,
        ALIAS_MAXIMUM: 3,
        PropertyId.RECEIVE_MAXIMUM: 7,
        PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE: 0,
        PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
    }
    await peer.send(Publish("t", qos=2, packet_id=1))
    await peer.expect_closed(ReasonCode.QOS_NOT_SUPPORTED)


async def test_reason_strings_only_when_wanted(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(b"\x20\x00")
    assert (await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)).properties[PropertyId.REASON_STRING]
    peer = await world.connect("a", properties={PropertyId.REQUEST_PROBLEM_INFORMATION: 0})
    await peer.send(b"\x20\x00")
    assert (await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)).properties == {}
    peer = await world.connect("a", properties={PACKET_MAXIMUM: 40})
    await peer.send(b"\x20\x00")
    assert (await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)).properties == {}


async def test_connack_that_is_too_large_for_the_client(start: Start):
    world = await start()
    peer = await world.connect("a", expect=ReasonCode.PACKET_TOO_LARGE, properties={PACKET_MAXIMUM: 6, EXPIRY: 60})
    await peer.expect_closed()
    assert world.metrics["sessions_connected"] == 0


async def test_limits_of_connections_and_sessions(start: Start):
    world = await start(connections_maximum=2, sessions_maximum=1)
    await world.connect("a")
    full = await world.connect("b", expect=ReasonCode.QUOTA_EXCEEDED)
    await full.expect_closed()
    await world.open()
    busy = await world.connect("b", expect=ReasonCode.SERVER_BUSY)
    await busy.expect_closed()


async def test_server_disconnect(start: Start, any_version: int):
    world = await start()
    peer = await world.connect("a", any_version)
    assert world.engine.disconnect("a", ReasonCode.ADMINISTRATIVE_ACTION, "maintenance")
    said = await peer.expect_closed(ReasonCode.ADMINISTRATIVE_ACTION if any_version == 5 else None)
    if said is not None:
        assert said.properties == {PropertyId.REASON_STRING: "maintenance"}
    assert not world.engine.disconnect("a", ReasonCode.ADMINISTRATIVE_ACTION)


# --- topic aliases ----------------------------------------------------------------------------------------------------


async def test_client_sets_aliases(start: Start):
    world = await start(topic_alias_maximum=2)
    reader = await world.connect("r")
    await reader.subscribe("#")
    writer = await world.connect("w")
    user = [("a", "b")]
    await writer.send(
        Publish("one", b"1", properties={ALIAS: 1}),
        Publish(
            "two", b"2", qos=1, packet_id=1, properties={PropertyId.USER_PROPERTY: user, ALIAS: 2, MESSAGE_EXPIRY: 9}
        ),
        Publish("", b"3", properties={ALIAS: 1}),
        Publish("", b"4", properties={MESSAGE_EXPIRY: 7, ALIAS: 2}),
        Publish("three", b"5", properties={ALIAS: 1}),
        Publish("", b"6", properties={ALIAS: 1}),
    )
    await writer.expect(PubAck(1))
    seen = [await reader.receive_publish() for _ in range(6)]
    assert [(m.topic, m.payload) for m in seen] == [
        ("one", b"1"),
        ("two", b"2"),
        ("one", b"3"),
        ("two", b"4"),
        ("three", b"5"),
        ("three", b"6"),
    ]
    assert seen[1].properties == {PropertyId.USER_PROPERTY: user, MESSAGE_EXPIRY: 9}
    assert seen[3].properties == {MESSAGE_EXPIRY: 7}
    await writer.lose()
    writer = await world.connect("w")  # aliases end with their connection
    await writer.send(Publish("", b"7", properties={ALIAS: 1}))
    await writer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.parametrize("alias", [3, 65535])
async def test_alias_above_the_maximum(start: Start, alias: int):
    world = await start(topic_alias_maximum=2)
    writer = await world.connect("w")
    await writer.send(Publish("t", properties={ALIAS: alias}))
    await writer.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


async def test_aliases_not_allowed_at_all(start: Start):
    world = await start(topic_alias_maximum=0)
    writer = await world.connect("w")
    assert ALIAS_MAXIMUM not in writer.connack.properties
    await writer.send(Publish("t", properties={ALIAS: 1}))
    await writer.expect_closed(ReasonCode.TOPIC_ALIAS_INVALID)


async def test_alias_to_a_bad_topic(start: Start):
    world = await start()
    writer = await world.connect("w")
    await writer.send(b"\x30\x0a\x00\x03a/+\x03\x23\x00\x01x")
    await writer.expect_closed(ReasonCode.TOPIC_NAME_INVALID)


async def test_repeated_qos2_publish_with_an_alias(start: Start):
    world = await start()
    reader = await world.connect("r")
    await reader.subscribe("#")
    writer = await world.connect("w")
    await writer.send(Publish("topic", b"1", qos=2, packet_id=1, properties={ALIAS: 1}))
    await writer.receive()
    await writer.send(Publish("", b"1", qos=2, packet_id=1, dup=True, properties={ALIAS: 1}))
    await writer.receive()
    assert (await reader.receive_publish()).topic == "topic"
    await reader.expect_nothing()


class Aliases:
    """What a client knows of the aliases it was given."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.topics: dict[int, str] = {}
        self.saved = 0

    def topic(self, message: Publish) -> str:
        alias = message.properties.get(ALIAS)
        if alias is None:
            return message.topic
        assert 1 <= alias <= self.maximum
        if message.topic:
            self.topics[alias] = message.topic
        else:
            self.saved += 1
        return self.topics[alias]


@pytest.mark.parametrize("maximum", [0, 1, 3, 500])
async def test_broker_sets_aliases(start: Start, maximum: int):
    world = await start(topic_alias_maximum_out=100)
    reader = await world.connect("r", properties={ALIAS_MAXIMUM: maximum} if maximum else None)
    await reader.subscribe("#")
    writer = await world.connect("w")
    aliases = Aliases(min(maximum, 100))
    topics = [f"some/topic/{i % 7}" for i in range(100)] + ["the/same"] * 10 + ["a", "b"]
    await writer.send(*[Publish(topic, topic.encode()) for topic in topics])
    for topic in topics:
        message = await reader.receive()
        assert aliases.topic(message) == message.payload.decode() == topic
    assert (aliases.saved > 0) == (maximum > 0)


async def test_alias_of_a_message_that_was_too_large_is_not_used(start: Start):
    world = await start()
    reader = await world.connect("r", properties={ALIAS_MAXIMUM: 10, PACKET_MAXIMUM: 50})
    await reader.subscribe("#")
    writer = await world.connect("w")
    # 2 header, 2 + 10 topic, 1 property length: 35 bytes of payload are 50 bytes, without room for an alias
    for payload in (bytes(36), bytes(35), b"small", bytes(41), bytes(42), bytes(43)):
        await writer.publish("some/topic", payload)
    aliases = Aliases(10)
    seen = [await reader.receive() for _ in range(4)]
    assert [aliases.topic(m) for m in seen] == ["some/topic"] * 4
    assert [len(m.payload) for m in seen] == [35, 5, 41, 42]
    await reader.expect_nothing()
    assert world.metrics["messages_dropped_too_large"] == 2


# --- message expiry ---------------------------------------------------------------------------------------------------


async def test_queued_messages_expire_and_say_what_is_left(start_clocked: Start):
    world = await start_clocked()
    reader = await durable(world, "r", expiry_s=1000)
    await reader.subscribe("t")
    await reader.lose()
    writer = await world.connect("w")
    for expiry_s in (10, 20, 30):
        await writer.publish("t", b"%d" % expiry_s, qos=1, properties={MESSAGE_EXPIRY: expiry_s})
    await writer.publish("t", b"never", qos=1)
    world.advance(20_000)
    reader = await durable(world, "r", present=True)
    message = await reader.receive_publish()
    assert (message.payload, message.properties) == (b"30", {MESSAGE_EXPIRY: 10})
    assert (await reader.receive_publish()).payload == b"never"
    await reader.expect_nothing()
    assert world.metrics["messages_dropped_expired"] == 2


async def test_expiry_of_zero_is_delivered_at_once_or_not(start_clocked: Start):
    world = await start_clocked()
    reader = await durable(world, "r")
    await reader.subscribe("t")
    await reader.publish("t", b"1", qos=1, properties={MESSAGE_EXPIRY: 0})
    assert (await reader.receive_publish()).properties == {MESSAGE_EXPIRY: 0}
    await reader.lose()
    writer = await world.connect("w")
    await writer.publish("t", b"2", qos=1, properties={MESSAGE_EXPIRY: 0})
    reader = await durable(world, "r", present=True)
    await reader.expect_nothing()


async def test_expiry_reaches_old_clients_by_time_only(start_clocked: Start):
    world = await start_clocked()
    reader = await world.connect("r", 4, clean_start=False)
    await reader.subscribe("t")
    await reader.lose()
    writer = await world.connect("w")
    await writer.publish("t", b"1", qos=1, properties={MESSAGE_EXPIRY: 5})
    await writer.publish("t", b"2", qos=1, properties={MESSAGE_EXPIRY: 50})
    world.advance(6_000)
    reader = await world.connect("r", 4, clean_start=False, session_present=True)
    assert (await reader.receive_publish()).payload == b"2"
    await reader.expect_nothing()


# --- packet sizes -----------------------------------------------------------------------------------------------------


async def test_too_large_for_the_client_is_as_good_as_sent(start: Start):
    world = await start(in_flight_maximum=1)
    reader = await world.connect("r", properties={PACKET_MAXIMUM: 60})
    await reader.subscribe(Subscription("t", 2))
    writer = await world.connect("w")
    for qos in (0, 1, 2):
        await writer.publish("t", bytes(100), qos=qos)
        await writer.publish("t", b"fits", qos=qos)
    seen = [await reader.receive_publish() for _ in range(3)]
    assert [(m.payload, m.qos) for m in seen] == [(b"fits", 0), (b"fits", 1), (b"fits", 2)]
    await reader.expect_nothing()
    assert world.metrics["messages_dropped_too_large"] == 3


@pytest.mark.parametrize("size", [49, 50, 51])
async def test_limit_of_the_client_is_met_exactly(start: Start, size: int):
    world = await start()
    reader = await world.connect("r", properties={PACKET_MAXIMUM: 50})
    await reader.subscribe("t")
    writer = await world.connect("w")
    await writer.publish("t", bytes(size - 6))
    if size <= 50:
        assert len((await reader.receive_publish()).encode(5)) == size
    await reader.expect_nothing()


async def test_too_large_for_the_broker(start: Start, version: int):
    world = await start(maximum_packet_size_bytes=1000)
    peer = await world.connect("a", version)
    exact = Publish("t", bytes(1000 - 3 - 3 - (version == 5)))
    assert len(exact.encode(version)) == 1000
    await peer.send(exact)
    await peer.expect_nothing()
    await peer.send(b"\x30\xe6\x07")  # 998 + 3 = 1001 bytes: refused for what it says it is
    await peer.expect_closed(ReasonCode.PACKET_TOO_LARGE if version == 5 else None)


async def test_too_large_connect(start: Start):
    world = await start(maximum_packet_size_bytes=1000)
    peer = await world.open()
    await peer.send(b"\x10\xff\xff\xff\x7f\x00")
    await peer.expect_closed()
    assert world.metrics["protocol_errors"] == 1


async def test_unknown_fields_of_the_clients_view(start: Start):
    world = await start()
    fields: dict[str, Any] = {"properties": {PropertyId.USER_PROPERTY: [("x", "y")]}}
    peer = await world.connect("a", **fields)
    await peer.expect_nothing()


async def test_what_is_not_available_is_refused(start: Start):
    world = await start(wildcard_subscription_available=False, subscription_identifier_available=False)
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription("a/+", 0), Subscription("#", 0), Subscription("a", 0)]))
    refused = ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
    await peer.expect(SubAck(1, [refused, refused, 0]))
    await peer.send(Subscribe(1, [Subscription("a", 0)], {PropertyId.SUBSCRIPTION_IDENTIFIER: 1}))
    await peer.expect_closed(ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED)


async def test_suback_that_is_too_large_for_the_client_closes(start: Start):
    world = await start()
    peer = await world.connect("a", properties={PACKET_MAXIMUM: 40})
    await peer.send(Subscribe(1, [Subscription(f"t/{i}", 0) for i in range(60)]))
    await peer.expect_closed(ReasonCode.PACKET_TOO_LARGE)
    assert world.metrics["subscriptions"] == 0


async def test_aliases_start_afresh_on_a_new_connection(start: Start):
    world = await start()
    properties = {EXPIRY: 60, ALIAS_MAXIMUM: 5}
    reader = await world.connect("r", clean_start=False, properties=properties)
    await reader.subscribe("#")
    writer = await world.connect("w")
    for _ in range(3):
        await writer.publish("some/topic", b"x", qos=1)
    assert [bool((await reader.receive()).topic) for _ in range(3)] == [True, False, False]
    await reader.lose()
    reader = await world.connect("r", clean_start=False, session_present=True, properties=properties)
    aliases = Aliases(5)
    again = [await reader.receive_publish() for _ in range(3)]
    assert [aliases.topic(m) for m in again] == ["some/topic"] * 3
    assert [m.dup for m in again] == [True] * 3
