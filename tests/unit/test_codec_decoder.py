"""The stream decoder: versions, bounds, what it accepts as data."""

import pytest

from mqttcore.codec import Connect, Decoder, PingReq, Publish, PubRec, decode, encode
from mqttcore.errors import PacketTooLarge, ProtocolError

KIB = 1024


def test_connect_sets_the_version():
    decoder = Decoder()
    assert decoder.version == 4
    for version in (5, 3, 4):
        decoder = Decoder()
        decoder.feed(encode(Connect("c", protocol_version=version), version))
        assert decoder.version == version


def test_packets_behind_a_connect_are_read_in_its_version():
    publish = Publish("a", b"x", properties={0x23: 1})
    data = encode(Connect("c"), 5) + encode(publish, 5)
    assert Decoder().feed(data) == [Connect("c"), publish]


def test_a_client_sets_the_version_itself():
    decoder = Decoder(sender="server")
    decoder.version = 5
    assert decoder.feed(b"\x50\x03\x00\x01\x80") == [PubRec(1, 0x80)]
    with pytest.raises(ValueError, match="3, 4 or 5"):
        decoder.version = 2


def test_size_is_checked_before_the_body_is_kept():
    decoder = Decoder(maximum_packet_size_bytes=KIB)
    assert decoder.feed(b"\x30") == []
    assert decoder.feed(b"\x80") == []
    with pytest.raises(PacketTooLarge):
        decoder.feed(b"\x80\x01" + bytes(100 * KIB))
    assert decoder.rest_size_bytes == 0


def test_rest_is_never_more_than_one_packet():
    publish = encode(Publish("t", bytes(10 * KIB)), 4)
    decoder = Decoder()
    stream = publish * 20
    kept = []
    packets = []
    for start in range(0, len(stream), 4001):
        packets += decoder.feed(stream[start : start + 4001])
        kept.append(decoder.rest_size_bytes)
    assert len(packets) == 20
    assert max(kept) < len(publish)
    assert kept[-1] == 0


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_any_bytes_like_data(make):
    data = encode(PingReq(), 4)
    assert decode(make(data), 4) == (PingReq(), 2)
    assert Decoder().feed(make(data)) == [PingReq()]


def test_data_may_be_reused_after_feeding():
    data = bytearray(encode(Publish("topic", b"payload"), 4))
    decoder = Decoder()
    assert decoder.feed(data[:6]) == []
    packets = decoder.feed(memoryview(data)[6:])
    data[:] = bytes(len(data))
    assert packets == [Publish("topic", b"payload")]


@pytest.mark.parametrize(
    "arguments",
    [{"version": 6}, {"version": 4, "sender": "broker"}, {"version": 4, "maximum_packet_size_bytes": 1}],
)
def test_arguments_are_checked(arguments):
    with pytest.raises(ValueError, match="must be"):
        Decoder(**arguments)
    with pytest.raises(ValueError, match="must be"):
        decode(b"", **arguments)


def test_fault_in_a_connect_tells_its_version():
    data = bytearray(encode(Connect("c"), 5))
    data[9] |= 1  # the reserved connect flag
    with pytest.raises(ProtocolError) as caught:
        Decoder().feed(data)
    assert caught.value.protocol_version == 5
