"""Damaged streams: whatever comes in, nothing but a ProtocolError comes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqttcore.codec import Decoder, decode_properties, encode, encode_properties
from mqttcore.errors import ProtocolError
from vectors import FAULTY, VALID

LIMIT_BYTES = 4096
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["set", "insert", "remove", "repeat"]), st.integers(0, 10_000), st.binary(max_size=4)),
    max_size=6,
)
SEEDS = st.lists(st.sampled_from(VALID + FAULTY), min_size=1, max_size=4)


def damaged(data: bytes, mutations: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, value in mutations:
        at = place % (len(data) + 1)
        if kind == "set":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + len(value) :]
        else:
            data = data[:at] + data[max(0, at - 8) : at] + data[at:]
    return data


def outcome(version: int, parts: list[bytes]) -> tuple[list[object], str | None, int]:
    """Return what a stream gave: packets, the fault if any, and the bytes left over."""
    decoder = Decoder(version, maximum_packet_size_bytes=LIMIT_BYTES)
    packets: list[object] = []
    for part in parts:
        try:
            packets += decoder.feed(part)
        except ProtocolError as error:
            return packets + decoder.decoded, str(error), 0
        assert decoder.rest_size_bytes < LIMIT_BYTES
    return packets, None, decoder.rest_size_bytes


@settings(max_examples=1000)
@given(st.sampled_from([3, 4, 5]), SEEDS, MUTATIONS)
def test_damaged_streams_give_packets_or_protocol_errors(version, seeds, mutations):
    data = damaged(b"".join(seed.data for seed in seeds), mutations)
    whole = outcome(version, [data])
    assert whole == outcome(version, [data[i : i + 1] for i in range(len(data))])
    for packet in whole[0]:
        # what is accepted can be written again
        version = getattr(packet, "protocol_version", version)
        assert encode(packet, version)[0] >> 4 == packet.packet_type


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_random_property_blocks_give_dicts_or_protocol_errors(block):
    try:
        properties = decode_properties(block)
    except ProtocolError:
        return
    assert decode_properties(encode_properties(properties)) == properties


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("first", range(256))
def test_short_bodies_of_every_first_byte(first: int, version: int):
    for size in range(24):
        for filler in (b"\x00", b"\x01", b"\x04", b"\x7f", b"\xff"):
            packets, fault, rest = outcome(version, [bytes([first, size]) + filler * size])
            assert (len(packets) == 1) != (fault is not None)
            assert rest == 0
