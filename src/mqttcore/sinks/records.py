"""What a sink is given: messages and events as plain records, which survive the process in the spool."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mqttcore.engine.message import Message
    from mqttcore.events import Event

__all__ = ["EventRecord", "MessageRecord", "SinkRecord", "as_json", "record_of_event", "record_of_message"]


class MessageRecord(msgspec.Struct, frozen=True, tag="message", kw_only=True):
    """A message. key: records of one key reach the sink in order. message_id: 32 hexadecimal digits; time_ms since
    1970.
    """

    key: str
    time_ms: int
    message_id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    client_id: str | None
    identity_name: str | None
    user_properties: list[tuple[str, str]] = []


class EventRecord(msgspec.Struct, frozen=True, tag="event", kw_only=True):
    """An event. name: its class's name, like `ClientConnected`. fields: what it says, in plain types."""

    key: str
    time_ms: int
    name: str
    fields: dict[str, Any]


SinkRecord = MessageRecord | EventRecord

_USER_PROPERTY = 0x26


def record_of_message(message: Message, key: str) -> MessageRecord:
    """Return the record of a message."""
    properties = message.properties
    return MessageRecord(
        key=key,
        time_ms=message.received_ms,
        message_id=message.message_id,
        topic=message.topic,
        payload=message.payload,
        qos=message.qos,
        retain=message.retain,
        client_id=message.client_id,
        identity_name=message.identity_name,
        user_properties=[(name, value) for name, value in properties.get(_USER_PROPERTY, ())],
    )


def record_of_event(event: Event) -> EventRecord:
    """Return the record of an event; its key is the client, where it has one."""
    fields = msgspec.to_builtins(event)
    time_ms = fields.pop("time_ms")
    return EventRecord(key=str(fields.get("client_id", "")), time_ms=time_ms, name=type(event).__name__, fields=fields)


def as_json(record: SinkRecord) -> dict[str, Any]:
    """Return a record as a JSON object: a payload that is UTF-8 is `payload`, any other `payload_base64`."""
    if isinstance(record, EventRecord):
        return {"kind": "event", "name": record.name, "time_ms": record.time_ms, **record.fields}
    document: dict[str, Any] = {
        "kind": "message",
        "message_id": record.message_id,
        "time_ms": record.time_ms,
        "topic": record.topic,
        "qos": record.qos,
        "retain": record.retain,
        "client_id": record.client_id,
        "identity": record.identity_name,
    }
    if record.user_properties:
        document["user_properties"] = record.user_properties
    try:
        document["payload"] = record.payload.decode()
    except UnicodeDecodeError:
        document["payload_base64"] = base64.b64encode(record.payload).decode()
    return document
