"""What breaks the standard closes the connection, with the right code; what does not is answered. Nothing else happens.

Numbers in ids are those of HARDENING §2. Bytes are written out: the codec would not make them.
"""

import pytest

from mqttcore.codec import Connect, Publish, SubAck, Subscribe, Subscription
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start

MALFORMED = ReasonCode.MALFORMED_PACKET
ERROR = ReasonCode.PROTOCOL_ERROR


def packet(first: int, body: bytes) -> bytes:
    """A packet with a correct Remaining Length."""
    size, length = len(body), b""
    while True:
        length += bytes([size % 128 | (0x80 if size >= 128 else 0)])
        size //= 128
        if not size:
            return bytes([first]) + length + body


def publish(
    topic: bytes, *, flags: int = 0, packet_id: bytes = b"", properties: bytes = b"\x00", rest: bytes = b"x"
) -> bytes:
    return packet(0x30 | flags, len(topic).to_bytes(2, "big") + topic + packet_id + properties + rest)


def subscribe(*filters: bytes, properties: bytes = b"\x00") -> bytes:
    return packet(0x82, b"\x00\x01" + properties + b"".join(len(f[:-1]).to_bytes(2, "big") + f for f in filters))


# Sent by a connected client: id, bytes for MQTT 5, code of the DISCONNECT.
CONNECTED = [
    ("02-second-connect", Connect("a").encode(5), ERROR),
    ("05-length-of-5-bytes", b"\x30\xff\xff\xff\xff\x01", MALFORMED),
    ("05-length-not-minimal", b"\xc0\x80\x00", MALFORMED),
    ("06-length-over-the-limit", b"\x30\xff\xff\xff\x7f", ReasonCode.PACKET_TOO_LARGE),
    ("08-type-0", b"\x00\x00", MALFORMED),
    ("08-flags-of-subscribe", packet(0x80, b"\x00\x01\x00\x00\x01t\x00"), MALFORMED),
    ("08-flags-of-unsubscribe", packet(0xA0, b"\x00\x01\x00\x00\x01t"), MALFORMED),
    ("08-flags-of-puback", b"\x41\x02\x00\x01", MALFORMED),
    ("08-flags-of-pubrel", b"\x60\x02\x00\x01", MALFORMED),
    ("08-flags-of-pingreq", b"\xc1\x00", MALFORMED),
    ("08-flags-of-disconnect", b"\xe1\x00", MALFORMED),
    ("08-flags-of-auth", b"\xf1\x00", MALFORMED),
    ("09-connack", b"\x20\x03\x00\x00\x00", ERROR),
    ("09-suback", b"\x90\x04\x00\x01\x00\x00", ERROR),
    ("09-unsuback", b"\xb0\x04\x00\x01\x00\x00", ERROR),
    ("09-pingresp", b"\xd0\x00", ERROR),
    ("10-auth-without-method", b"\xf0\x00", ERROR),
    ("16-surrogate-in-topic", publish(b"\xed\xa0\x80"), MALFORMED),
    ("16-overlong-utf8", publish(b"\xc0\xaf"), MALFORMED),
    ("16-broken-utf8-in-property", publish(b"t", properties=b"\x04\x03\x00\x01\xff"), MALFORMED),
    ("17-nul-in-topic", publish(b"a\x00b"), MALFORMED),
    ("20-property-twice", publish(b"t", properties=b"\x04\x01\x00\x01\x00"), ERROR),
    ("20-property-of-another-packet", publish(b"t", properties=b"\x05\x11\x00\x00\x00\x01"), MALFORMED),
    ("20-unknown-property", publish(b"t", properties=b"\x02\x7e\x00"), MALFORMED),
    ("20-properties-past-the-end", publish(b"t", properties=b"\x7f\x01\x00"), MALFORMED),
    ("20-property-torn", publish(b"t", properties=b"\x02\x02\x00", rest=b""), MALFORMED),
    ("21-subscription-id-0", subscribe(b"t\x00", properties=b"\x02\x0b\x00"), ERROR),
    ("22-wildcard-plus", publish(b"a/+"), ReasonCode.TOPIC_NAME_INVALID),
    ("22-wildcard-hash", publish(b"#"), ReasonCode.TOPIC_NAME_INVALID),
    ("22-wildcard-at-qos-2", publish(b"#", flags=4, packet_id=b"\x00\x01"), ReasonCode.TOPIC_NAME_INVALID),
    ("23-no-topic", publish(b""), ERROR),
    ("24-alias-0", publish(b"t", properties=b"\x03\x23\x00\x00"), ReasonCode.TOPIC_ALIAS_INVALID),
    ("24-alias-too-high", publish(b"t", properties=b"\x03\x23\xff\xff"), ReasonCode.TOPIC_ALIAS_INVALID),
    ("25-alias-unknown", publish(b"", properties=b"\x03\x23\x00\x01"), ERROR),
    ("26-qos-3", publish(b"t", flags=6, packet_id=b"\x00\x01"), MALFORMED),
    ("27-dup-at-qos-0", publish(b"t", flags=8), MALFORMED),
    ("28-subscription-id-from-a-client", publish(b"t", properties=b"\x02\x0b\x01"), ERROR),
    ("29-wildcard-in-response-topic", publish(b"t", properties=b"\x04\x08\x00\x01#"), ERROR),
    ("31-packet-id-0", publish(b"t", flags=2, packet_id=b"\x00\x00"), ERROR),
    ("31-puback-of-0", b"\x40\x02\x00\x00", ERROR),
    ("31-subscribe-with-0", packet(0x82, b"\x00\x00\x00\x00\x01t\x00"), ERROR),
    ("37-subscribe-nothing", packet(0x82, b"\x00\x01\x00"), ERROR),
    ("37-unsubscribe-nothing", packet(0xA2, b"\x00\x01\x00"), ERROR),
    ("37-reserved-option-bits", subscribe(b"t\x40"), MALFORMED),
    ("37-retain-handling-3", subscribe(b"t\x30"), ERROR),
    ("37-requested-qos-3", subscribe(b"t\x03"), ERROR),
    ("39-shared-no-local", subscribe(b"$share/g/t\x04"), ERROR),
    ("44-session-expiry-from-0", b"\xe0\x07\x00\x05\x11\x00\x00\x00\x09", ERROR),
    ("topic-past-the-end", packet(0x30, b"\x00\x09t"), MALFORMED),
    ("publish-without-body", b"\x30\x00", MALFORMED),
    ("packet-id-past-the-end", packet(0x32, b"\x00\x01t\x00"), MALFORMED),
    ("puback-of-one-byte", b"\x40\x01\x00", MALFORMED),
    ("puback-with-unknown-reason", b"\x40\x03\x00\x01\x42", ERROR),
    ("subscribe-torn-in-filter", packet(0x82, b"\x00\x01\x00\x00\x09t\x00"), MALFORMED),
    ("subscribe-without-options", packet(0x82, b"\x00\x01\x00\x00\x01t"), MALFORMED),
    ("pingreq-with-a-body", b"\xc0\x01\x00", MALFORMED),
    ("disconnect-with-unknown-reason", b"\xe0\x01\x42", ERROR),
]


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in CONNECTED], ids=[row[0] for row in CONNECTED])
async def test_connected_client(start: Start, data: bytes, code: int):
    world = await start()
    watcher = await world.connect("watcher")
    await watcher.subscribe("#", "+/#")
    peer = await world.connect("a")
    # what stands behind the fault is not handled
    await peer.send(data + Publish("t", b"behind").encode(5))
    await peer.expect_closed(code)
    await watcher.expect_nothing()
    assert world.metrics["protocol_errors"] == 1
    assert world.metrics["sessions"] == 1


# For 3.1.1: closed without a word.
CONNECTED_BELOW_5 = [
    ("02-second-connect", Connect("a", protocol_version=4).encode(4)),
    ("05-length-of-5-bytes", b"\x30\xff\xff\xff\xff\x01"),
    ("05-length-not-minimal", b"\xc0\x80\x00"),
    ("06-length-over-the-limit", b"\x30\xff\xff\xff\x7f"),
    ("08-type-0", b"\x00\x00"),
    ("08-flags-of-subscribe", packet(0x80, b"\x00\x01\x00\x01t\x00")),
    ("08-flags-of-pubrel", b"\x60\x02\x00\x01"),
    ("09-connack", b"\x20\x02\x00\x00"),
    ("10-auth", b"\xf0\x00"),
    ("16-surrogate", packet(0x30, b"\x00\x03\xed\xa0\x80")),
    ("17-nul", packet(0x30, b"\x00\x03a\x00b")),
    ("22-wildcard", packet(0x30, b"\x00\x03a/+")),
    ("23-no-topic", packet(0x30, b"\x00\x00x")),
    ("26-qos-3", packet(0x36, b"\x00\x01t\x00\x01")),
    ("27-dup-at-qos-0", packet(0x38, b"\x00\x01t")),
    ("31-packet-id-0", packet(0x32, b"\x00\x01t\x00\x00")),
    ("37-subscribe-nothing", packet(0x82, b"\x00\x01")),
    ("37-reserved-qos-bits", packet(0x82, b"\x00\x01\x00\x01t\x04")),
    ("37-requested-qos-3", packet(0x82, b"\x00\x01\x00\x01t\x03")),
    ("37-unsubscribe-nothing", packet(0xA2, b"\x00\x01")),
    ("puback-with-reason", b"\x40\x03\x00\x01\x00"),
    ("disconnect-with-reason", b"\xe0\x01\x00"),
]


@pytest.mark.parametrize("data", [row[1] for row in CONNECTED_BELOW_5], ids=[row[0] for row in CONNECTED_BELOW_5])
async def test_connected_client_below_5(start: Start, data: bytes):
    world = await start()
    watcher = await world.connect("watcher", 4)
    await watcher.subscribe("#")
    peer = await world.connect("a", 4)
    await peer.send(data + Publish("t", b"behind").encode(4))
    await peer.expect_closed()
    await watcher.expect_nothing()
    assert world.metrics["protocol_errors"] == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00",
        b"\x20\x02\x00\x00",
        b"\x30\x03\x00\x01t",
        b"\x40\x02\x00\x01",
        b"\x50\x02\x00\x01",
        b"\x62\x02\x00\x01",
        b"\x70\x02\x00\x01",
        b"\x82\x06\x00\x01\x00\x01t\x00",
        b"\x90\x03\x00\x01\x00",
        b"\xa2\x05\x00\x01\x00\x01t",
        b"\xb0\x02\x00\x01",
        b"\xc0\x00",
        b"\xd0\x00",
        b"\xe0\x00",
        b"\xf0\x00",
        b"\x11\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00",
        b"\x30\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda data: data[:4].hex(),
)
async def test_01_first_packet_is_not_connect(start: Start, data: bytes):
    world = await start()
    peer = await world.open()
    await peer.send(data)
    await peer.expect_closed()


def connect(
    name: bytes = b"\x00\x04MQTT", level: int = 5, flags: int = 2, rest: bytes = b"\x00\x00\x00\x00\x01a"
) -> bytes:
    return packet(0x10, name + bytes([level, flags]) + rest)


# A CONNECT that is refused: id, bytes, the whole answer.
REFUSED = [
    ("11-level-6", connect(level=6), b"\x20\x03\x00\x84\x00"),
    ("11-level-2", connect(level=2), b"\x20\x02\x00\x01"),
    ("11-name", connect(name=b"\x00\x04MQTX", level=4), b""),
    ("12-reserved-flag", connect(flags=3), None),
    ("12-reserved-flag-3.1.1", connect(level=4, flags=3, rest=b"\x00\x00\x00\x01a"), b""),
    ("13-will-qos-3", connect(flags=0x1E, rest=b"\x00\x00\x00\x00\x01a\x00\x00\x01w\x00\x00"), None),
    ("13-will-qos-without-will", connect(flags=0x0A), None),
    ("13-will-retain-without-will", connect(flags=0x22), None),
    ("14-password-without-user-name-3.1.1", connect(level=4, flags=0x42, rest=b"\x00\x00\x00\x01a\x00\x01p"), b""),
    ("16-client-id", connect(rest=b"\x00\x00\x00\x00\x02\xc3\x28"), None),
    ("17-nul-in-client-id", connect(rest=b"\x00\x00\x00\x00\x01\x00"), None),
    ("20-property-twice", connect(rest=b"\x00\x00\x06\x21\x00\x01\x21\x00\x01\x00\x01a"), None),
    ("21-receive-maximum-0", connect(rest=b"\x00\x00\x03\x21\x00\x00\x00\x01a"), None),
    ("21-maximum-packet-size-0", connect(rest=b"\x00\x00\x05\x27\x00\x00\x00\x00\x00\x01a"), None),
    ("21-request-problem-information-2", connect(rest=b"\x00\x00\x02\x17\x02\x00\x01a"), None),
    ("authentication-data-alone", connect(rest=b"\x00\x00\x04\x16\x00\x01x\x00\x01a"), None),
    ("will-topic-with-wildcard", connect(flags=6, rest=b"\x00\x00\x00\x00\x01a\x00\x00\x01#\x00\x00"), None),
    ("torn", connect(rest=b"\x00\x00\x00\x00\x09a"), None),
    ("bytes-behind", connect(rest=b"\x00\x00\x00\x00\x01aXX"), None),
]


@pytest.mark.parametrize(("data", "answer"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
async def test_refused_connect(start: Start, data: bytes, answer: bytes | None):
    world = await start()
    level = data[8]
    peer = await world.open(5 if level > 4 else 4)
    await peer.send(data)
    if answer is None:
        said = await peer.receive()  # MQTT 5: a CONNACK with the reason
        assert said.reason_code >= 0x80
    elif answer:
        assert (await peer.receive()).encode(peer.version) == answer
    await peer.expect_closed()
    assert world.metrics["connects_refused"] == 1
    assert world.metrics["sessions"] == 0


async def test_14_password_without_user_name_is_legal_in_5(start: Start):
    world = await start()
    peer = await world.open()
    await peer.send(connect(flags=0x42, rest=b"\x00\x00\x00\x00\x01a\x00\x01p"))
    assert (await peer.receive()).reason_code == 0


async def test_18_byte_order_mark_is_kept(start: Start):
    world = await start()
    peer = await world.connect("\ufeffa")
    assert world.engine.session("\ufeffa") is not None
    await peer.subscribe("\ufefft")
    await peer.publish("\ufefft", b"1")
    assert (await peer.receive_publish()).topic == "\ufefft"


async def test_19_topic_over_the_quota(start: Start, version: int):
    world = await start(topic_bytes_maximum=20)
    peer = await world.connect("a", version)
    await peer.subscribe("#")
    invalid = ReasonCode.TOPIC_NAME_INVALID
    await peer.send(Publish("t" * 21, qos=1, packet_id=1))
    assert (await peer.receive()).reason_code == (invalid if version == 5 else 0)
    await peer.send(Publish("t" * 21, qos=2, packet_id=2))
    assert (await peer.receive()).reason_code == (invalid if version == 5 else 0)
    await peer.expect_nothing()
    assert world.metrics["awaiting_release"] == (0 if version == 5 else 1)
    await peer.publish("t" * 20, b"1")
    await peer.receive_publish()


@pytest.mark.parametrize("topic_filter", ["a#", "#/b", "a+", "+a/b", "a/b#", "#a", "x" * 300])
async def test_38_bad_filters(start: Start, version: int, topic_filter: str):
    world = await start(topic_bytes_maximum=200)
    peer = await world.connect("a", version)
    await peer.send(Subscribe(1, [Subscription(topic_filter, 1), Subscription("good", 1)]))
    code = ReasonCode.TOPIC_FILTER_INVALID if version == 5 else 0x80
    await peer.expect(SubAck(1, [code, 1]))


async def test_38_empty_filter(start: Start, version: int):
    world = await start()
    peer = await world.connect("a", version)
    await peer.send(packet(0x82, b"\x00\x01" + (b"\x00" if version == 5 else b"") + b"\x00\x00\x00"))
    assert (await peer.receive()).reason_codes == [ReasonCode.TOPIC_FILTER_INVALID if version == 5 else 0x80]


async def test_40_subscription_quota(start: Start):
    world = await start(subscriptions_per_session_maximum=100)
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription(f"t/{i}", 0) for i in range(150)]))
    await peer.expect(SubAck(1, [0] * 100 + [ReasonCode.QUOTA_EXCEEDED] * 50))
    await peer.subscribe("t/5", qos=1)  # replacing is no new one


async def test_41_deep_filters_and_topics(start: Start):
    world = await start(topic_levels_maximum=128)
    peer = await world.connect("a")
    await peer.send(Subscribe(1, [Subscription("+/" * 60 + "#", 0), Subscription("/" * 65_000, 0)]))
    await peer.expect(SubAck(1, [0, ReasonCode.QUOTA_EXCEEDED]))
    await peer.publish("/" * 65_000, b"1", qos=1)
    assert (await peer.receive_publish()).payload == b"1"
    await peer.publish("/" * 65_000, b"1", qos=1, retain=True)
    assert world.metrics["retained"] == 0


@pytest.mark.parametrize("topic", ["$SYS/broker/version", "$SYS/x"])
async def test_42_clients_do_not_publish_to_sys(start: Start, version: int, topic: str):
    world = await start(sys_for_anonymous=True, authorization=Authorization(refused_publish="drop"))
    peer = await world.connect("a", version)
    await peer.subscribe("$SYS/#")
    denied = ReasonCode.NOT_AUTHORIZED if version == 5 else 0
    for qos in (1, 2):
        await peer.send(Publish(topic, b"1", qos=qos, packet_id=qos, retain=True))
        assert (await peer.receive()).reason_code == denied
    await peer.publish(topic, b"1")
    await peer.expect_nothing()
    assert world.metrics["messages_dropped_not_authorized"] == 3
    assert world.metrics["retained"] == 0


@pytest.mark.parametrize("topic_filter", ["$SYS/#", "$SYS", "$SYS/broker/version", "$share/g/$SYS/#", "$share/g/$SYS"])
async def test_53_anonymous_clients_do_not_see_sys(start: Start, version: int, topic_filter: str):
    world = await start()
    peer = await world.connect("a", version)
    await peer.send(Subscribe(1, [Subscription(topic_filter, 0), Subscription("#", 0)]))
    assert (await peer.receive()).reason_codes == [ReasonCode.NOT_AUTHORIZED if version == 5 else 0x80, 0]
    world.engine.publish_bytes(b"$SYS/broker/version", b"1")
    world.engine.publish_bytes(b"$SYS", b"1")
    await peer.expect_nothing()


async def test_43_many_takeovers(start: Start, version: int):
    world = await start()
    peers = [await world.connect("a", version) for _ in range(20)]
    for peer in peers[:-1]:
        await peer.expect_closed(ReasonCode.SESSION_TAKEN_OVER if version == 5 else None)
    await peers[-1].expect_nothing()
    assert world.metrics["takeovers"] == 19
    assert world.metrics["connections"] == 1


async def test_49_nothing_is_sent_again_while_connected(start_clocked: Start):
    world = await start_clocked()
    peer = await world.connect("a")
    await peer.subscribe("t")
    await peer.publish("t", b"1", qos=1)
    await peer.receive()
    for _ in range(100):
        world.advance(10_000)
    await peer.expect_nothing()


async def test_same_qos2_id_a_hundred_thousand_times(start_clocked: Start):
    world = await start_clocked()
    peer = await world.connect("a", properties={PropertyId.RECEIVE_MAXIMUM: 10})
    data = Publish("t", b"1", qos=2, packet_id=5).encode(5)
    for _ in range(100):
        await peer.send(data * 1000)
        for _ in range(1000):
            await peer.receive()
    assert world.metrics["awaiting_release"] == 1
    assert world.metrics["messages_received_qos2"] == 1
