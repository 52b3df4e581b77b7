"""Control Packets as entries of a trace: all but PUBLISH, which the engine describes where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from mqttcore.codec import Connect, Subscribe, Unsubscribe
from mqttcore.constants import PacketType, PropertyId
from mqttcore.trace_entries import PacketSeen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqttcore.codec import Packet

__all__ = ["PACKET_NAMES", "packet_seen", "property_names"]

PACKET_NAMES = ("reserved", *(one.name.lower() for one in PacketType))


def property_names(properties: Iterable[int]) -> list[str] | None:
    """Return the standard's names of properties in small letters; None when there are none."""
    return [PropertyId(one).name.lower() for one in properties] or None


def packet_seen(
    packet: Packet,
    direction: Literal["in", "out"],
    size_bytes: int,
    time_ms: int,
    client_id: str | None,
    connection: int | None,
) -> PacketSeen:
    """Return the entry of a packet."""
    fields: dict[str, Any] = {}
    for name in ("packet_id", "session_present", "topic_filters"):
        fields[name] = getattr(packet, name, None)
    reason_code = getattr(packet, "reason_code", None)
    if reason_code is not None:
        fields["reason_codes"] = [int(reason_code)]
    else:
        reason_codes = getattr(packet, "reason_codes", None)
        fields["reason_codes"] = None if reason_codes is None else [int(one) for one in reason_codes]
    properties = getattr(packet, "properties", None)
    if properties:
        fields["properties"] = property_names(properties)
    if isinstance(packet, Connect):
        fields |= _of_connect(packet)
    elif isinstance(packet, Subscribe):
        fields["topic_filters"] = [one.topic_filter for one in packet.subscriptions]
        fields["options"] = [one.options for one in packet.subscriptions]
    elif isinstance(packet, Unsubscribe):
        fields["topic_filters"] = list(packet.topic_filters)
    return PacketSeen(
        time_ms=time_ms,
        client_id=client_id,
        connection=connection,
        direction=direction,
        packet_type=PACKET_NAMES[packet.packet_type],
        size_bytes=size_bytes,
        **fields,
    )


def _of_connect(packet: Connect) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "protocol_version": packet.protocol_version,
        "user_name": packet.user_name,
        "has_password": packet.password is not None,
        "clean_start": packet.clean_start,
        "keep_alive_s": packet.keep_alive_s,
    }
    if packet.will is not None:
        fields |= {
            "topic": packet.will.topic,
            "qos": packet.will.qos,
            "retain": packet.will.retain,
            "payload_bytes": len(packet.will.payload),
        }
    return fields
