"""Faults and packets leave nothing behind."""

import gc
import sys

import pytest

from mqttcore.codec import Decoder, decode, encode
from mqttcore.errors import ProtocolError
from vectors import FAULTY, VALID

ROUNDS = 20
# a few blocks come and go with the interpreter's own caches; one leaked object per row and round would be thousands
SLACK_BLOCKS = 100


def decode_all_faults() -> None:
    for vector in FAULTY:
        with pytest.raises(ProtocolError):
            Decoder(
                vector.version,
                maximum_packet_size_bytes=vector.maximum_packet_size_bytes,
                sender=vector.sender,
            ).feed(vector.data)


def convert_all_packets() -> None:
    for vector in VALID:
        packet, _ = decode(vector.data, vector.version)
        encode(packet, vector.version)


@pytest.mark.parametrize("work", [decode_all_faults, convert_all_packets])
def test_memory_stays_flat(work):
    work()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(ROUNDS):
        work()
    gc.collect()
    assert sys.getallocatedblocks() - before < SLACK_BLOCKS
