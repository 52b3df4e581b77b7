"""Between the line protocol's properties and paho's, for the clients built on paho."""

from __future__ import annotations

from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

NAMES = {
    "session_expiry_s": "SessionExpiryInterval",
    "receive_maximum": "ReceiveMaximum",
    "topic_alias_maximum": "TopicAliasMaximum",
    "user_properties": "UserProperty",
    "content_type": "ContentType",
    "correlation_data": "CorrelationData",
    "response_topic": "ResponseTopic",
    "message_expiry_s": "MessageExpiryInterval",
    "payload_format": "PayloadFormatIndicator",
    "topic_alias": "TopicAlias",
    "will_delay_s": "WillDelayInterval",
    "subscription_ids": "SubscriptionIdentifier",
    "assigned_client_id": "AssignedClientIdentifier",
}


def to_paho(packet_type: int, fields: dict[str, Any]) -> Properties:
    properties = Properties(packet_type)
    for name, value in fields.items():
        if name == "correlation_data":
            value = bytes.fromhex(value)
        elif name == "user_properties":
            value = [tuple(pair) for pair in value]
        setattr(properties, NAMES[name], value)
    return properties


def from_paho(properties: Properties | None) -> dict[str, Any]:
    if properties is None:
        return {}
    found = {name: getattr(properties, paho) for name, paho in NAMES.items() if hasattr(properties, paho)}
    if "correlation_data" in found:
        found["correlation_data"] = found["correlation_data"].hex()
    return found


__all__ = ["PacketTypes", "from_paho", "to_paho"]
