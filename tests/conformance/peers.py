"""What conformance tests do with a peer beyond the conversations' harness: bytes as they are, sessions that last."""

from typing import Any

from conversations.harness import Peer, World
from mqttcore.constants import PropertyId


async def expect_bytes(peer: Peer, expected: bytes) -> None:
    """Receive exactly these bytes, with nothing behind them."""
    assert not peer._arrived, peer._arrived
    got = b""
    while len(got) < len(expected):
        data = await peer._read()
        assert data, f"after {got.hex(' ')} came nothing more"
        got += data
    assert got.hex(" ") == expected.hex(" ")


async def read_until_closed(peer: Peer) -> bytes:
    """Return everything that the broker sends until it closes."""
    assert not peer._arrived, peer._arrived
    got = b""
    while data := await peer._read():
        got += data
    assert data is not None, f"not closed after {got.hex(' ')}"
    return got


async def lasting(world: World, client_id: str, *, present: bool = False, expiry_s: int = 1000, **fields: Any) -> Peer:
    """Return an MQTT 5 client whose session outlives its connection; *present*: it has one already."""
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s, **fields.pop("properties", {})}
    return await world.connect(client_id, clean_start=False, session_present=present, properties=properties, **fields)
