"""PINGREQ and PINGRESP: MQTT 5 §3.12 and §3.13."""

import pytest

from conversations.conftest import Start
from mqttcore.constants import PropertyId, ReasonCode

from .peers import expect_bytes


@pytest.mark.mqtt5("3.12.4-1")
async def test_each_pingreq_is_answered(start: Start):
    world = await start()
    peer = await world.connect("a", properties={PropertyId.MAXIMUM_PACKET_SIZE: 16})
    await peer.send(b"\xc0\x00")
    await expect_bytes(peer, b"\xd0\x00")
    await peer.send(b"\xc0\x00" * 3)
    await expect_bytes(peer, b"\xd0\x00" * 3)


@pytest.mark.parametrize("packet", [b"\xc1\x00", b"\xc8\x00", b"\xc0\x01\x00"], ids=bytes.hex)
async def test_pingreq_with_flags_or_a_body_closes(start: Start, packet: bytes):
    world = await start()
    peer = await world.connect("a")
    await peer.send(packet)
    await peer.expect_closed(ReasonCode.MALFORMED_PACKET)
