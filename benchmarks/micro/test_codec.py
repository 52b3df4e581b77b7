"""Decoding and encoding through the Python face.

    python -m pytest -o addopts= benchmarks/micro/test_codec.py

The packet path of the engine uses the views of codec/views.pxd and makes none of these objects.
"""

import pytest

from mqttcore.codec import ConnAck, Connect, Decoder, PubAck, Publish, Subscribe, Subscription, Will, decode, encode
from mqttcore.constants import PropertyId

PACKETS_PER_SEGMENT = 1000
TOPIC = "site/7/line/3/temperature"
PAYLOAD = bytes(64)

PACKETS = {
    "connect_v3.1.1": (4, Connect("sensor-0042", protocol_version=4, user_name="u", password=b"secret")),
    "connect_v5": (
        5,
        Connect(
            "sensor-0042",
            user_name="u",
            password=b"secret",
            will=Will("site/7/gone", b"sensor-0042", qos=1),
            properties={PropertyId.SESSION_EXPIRY_INTERVAL: 3600, PropertyId.RECEIVE_MAXIMUM: 100},
        ),
    ),
    "connack_v5": (5, ConnAck(properties={PropertyId.RECEIVE_MAXIMUM: 100, PropertyId.TOPIC_ALIAS_MAXIMUM: 10})),
    "publish_qos0_v3.1.1": (4, Publish(TOPIC, PAYLOAD)),
    "publish_qos1_v5": (5, Publish(TOPIC, PAYLOAD, qos=1, packet_id=7)),
    "publish_properties_v5": (
        5,
        Publish(
            TOPIC,
            PAYLOAD,
            properties={
                PropertyId.MESSAGE_EXPIRY_INTERVAL: 60,
                PropertyId.CONTENT_TYPE: "application/json",
                PropertyId.USER_PROPERTY: [("trace", "0123456789abcdef")],
            },
        ),
    ),
    "puback_v3.1.1": (4, PubAck(7)),
    "subscribe_v5": (5, Subscribe(7, [Subscription("site/+/line/#", 1), Subscription("$share/g/a/b", 0)])),
}


@pytest.mark.parametrize("name", PACKETS)
def test_decode(benchmark, name):
    version, packet = PACKETS[name]
    data = encode(packet, version)
    assert benchmark(decode, data, version) == (packet, len(data))


@pytest.mark.parametrize("name", PACKETS)
def test_encode(benchmark, name):
    version, packet = PACKETS[name]
    assert decode(benchmark(encode, packet, version), version)[0] == packet


@pytest.mark.parametrize("name", ["publish_qos0_v3.1.1", "publish_properties_v5"])
def test_segment(benchmark, name):
    version, packet = PACKETS[name]
    segment = encode(packet, version) * PACKETS_PER_SEGMENT
    decoder = Decoder(version)
    assert len(benchmark(decoder.feed, segment)) == PACKETS_PER_SEGMENT
