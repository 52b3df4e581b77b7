"""Every vector decoded, encoded back, torn apart and packed together."""

import pytest

from mqttcore.codec import Decoder, decode, encode
from mqttcore.errors import MalformedPacket, PacketTooLarge, ProtocolError
from vectors import FAULTY, VALID, Vector

PACKETS_PER_SEGMENT = 1000
PINGS = {"client": b"\xc0\x00", "server": b"\xd0\x00"}

valid_vectors = pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector.name)
faulty_vectors = pytest.mark.parametrize("vector", FAULTY, ids=lambda vector: vector.name)


def decoder_for(vector: Vector) -> Decoder:
    return Decoder(vector.version, maximum_packet_size_bytes=vector.maximum_packet_size_bytes, sender=vector.sender)


def assert_is_fault(error: ProtocolError, vector: Vector) -> None:
    assert (error.reason_code, error.clause) == (vector.reason_code, vector.clause)
    expected = {0x81: MalformedPacket, 0x95: PacketTooLarge}.get(error.reason_code, ProtocolError)
    assert type(error) is expected
    if "protocol_version" in vector.row:
        assert error.protocol_version == vector.protocol_version


def feed_byte_by_byte(decoder: Decoder, data: bytes) -> None:
    for byte in data:
        assert decoder.feed(bytes([byte])) == []


@valid_vectors
def test_bytes_become_the_packet(vector: Vector):
    packet, consumed = decode(
        vector.data + b"\xc0\x00",
        vector.version,
        maximum_packet_size_bytes=vector.maximum_packet_size_bytes,
        sender=vector.sender,
    )
    assert packet == vector.packet
    assert packet.packet_type == vector.packet_type
    assert consumed == len(vector.data)


@valid_vectors
def test_packet_becomes_the_bytes(vector: Vector):
    encoded = encode(vector.packet, vector.version)
    if vector.is_canonical:
        assert encoded == vector.data
    else:
        assert decode(encoded, vector.version) == (vector.packet, len(encoded))


@valid_vectors
def test_decoded_packet_encodes_to_the_same_bytes(vector: Vector):
    packet, _ = decode(vector.data, vector.version)
    assert encode(packet, vector.version) == encode(vector.packet, vector.version)


@valid_vectors
def test_incomplete_packet_is_not_decoded(vector: Vector):
    for size in range(len(vector.data)):
        assert decode(vector.data[:size], vector.version) == (None, 0)


@valid_vectors
def test_one_byte_at_a_time_gives_the_same_packet(vector: Vector):
    decoder = decoder_for(vector)
    feed_byte_by_byte(decoder, vector.data[:-1])
    assert decoder.feed(vector.data[-1:]) == [vector.packet]
    assert decoder.rest_size_bytes == 0


@valid_vectors
def test_a_thousand_packets_in_one_segment(vector: Vector):
    decoder = decoder_for(vector)
    torn = vector.data[:-1]
    packets = decoder.feed(vector.data * PACKETS_PER_SEGMENT + torn)
    assert len(packets) == PACKETS_PER_SEGMENT
    assert all(packet == vector.packet for packet in packets)
    assert decoder.rest_size_bytes == len(torn)
    assert decoder.feed(vector.data[-1:] + vector.data) == [vector.packet, vector.packet]


@faulty_vectors
def test_fault_is_named(vector: Vector):
    with pytest.raises(ProtocolError) as caught:
        decode(
            vector.data,
            vector.version,
            maximum_packet_size_bytes=vector.maximum_packet_size_bytes,
            sender=vector.sender,
        )
    assert_is_fault(caught.value, vector)


@faulty_vectors
def test_fault_is_the_same_one_byte_at_a_time(vector: Vector):
    decoder = decoder_for(vector)
    with pytest.raises(ProtocolError) as caught:
        feed_byte_by_byte(decoder, vector.data)
    assert_is_fault(caught.value, vector)


@faulty_vectors
def test_packets_in_front_of_a_fault_are_kept(vector: Vector):
    front = PINGS[vector.sender]
    decoder = decoder_for(vector)
    with pytest.raises(ProtocolError) as caught:
        decoder.feed(front + vector.data)
    assert_is_fault(caught.value, vector)
    assert [encode(packet, vector.version) for packet in decoder.decoded] == [front]
    with pytest.raises(ProtocolError) as again:
        decoder.feed(b"")
    assert again.value is caught.value
