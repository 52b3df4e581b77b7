"""What the conversations about mount points share."""

from typing import Any

from mqttcore.codec import SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from mqttcore.constants import PropertyId

from .harness import Peer

MOUNTS = ("", "t/", "u/")


def lasting(version: int) -> dict[str, Any]:
    """Fields of a CONNECT that keep the session."""
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}
    return {"clean_start": False, "properties": properties} if version == 5 else {"clean_start": False}


async def suback(peer: Peer, *filters: str) -> list[int]:
    """Subscribe; the reason codes that came back."""
    await peer.send(Subscribe(9, [Subscription(topic_filter, 1) for topic_filter in filters]))
    answer = await peer.receive()
    assert isinstance(answer, SubAck)
    return list(answer.reason_codes)


async def unsuback(peer: Peer, *filters: str) -> list[int]:
    """Unsubscribe; the reason codes that came back."""
    await peer.send(Unsubscribe(9, list(filters)))
    answer = await peer.receive()
    assert isinstance(answer, UnsubAck)
    return list(answer.reason_codes)


async def heard(peer: Peer) -> tuple[str, bytes]:
    """Take the next message."""
    message = await peer.receive_publish()
    return message.topic, message.payload
