"""Types of MQTT's own things in requests and answers."""

from typing import Annotated

import msgspec
from msgspec import Meta

from mqttcore.constants import PropertyId
from mqttcore.engine.message import Message
from mqttcore.http.api.operation import CURSOR_PATTERN, ApiError
from mqttcore.tracing import NAME_PATTERN

__all__ = [
    "NOT_BOTH_PAYLOADS",
    "TEXT_PATTERN",
    "MessageGiven",
    "MessageShown",
    "Named",
    "Qos",
    "Text",
    "TopicFilter",
    "TopicName",
    "in_words",
    "properties_of",
    "shown",
]

_BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

Qos = Annotated[int, Meta(ge=0, le=2)]
# Python's `$` is also before a line break at the very end; other languages' is not.
_END = r"$(?!\n)"
# What the codec takes, control characters included: who is called so must be found, banned and tidied up after as well.
_LEVEL = r"(\+|[^\u0000+#/]*)"
TEXT_PATTERN = rf"^[^\u0000]*{_END}"
_NAMED = rf"^[^\u0000]+{_END}"
_TOPIC_NAME = rf"^[^\u0000+#]+{_END}"
_TOPIC_FILTER = rf"^(#|{_LEVEL}(/{_LEVEL})*(/#)?){_END}"
_WORDS = {
    TEXT_PATTERN: "text without U+0000",
    _NAMED: "text without U+0000",
    _TOPIC_NAME: "a Topic Name, without `+`, `#` and U+0000",
    _TOPIC_FILTER: "a Topic Filter: `+` fills a whole level, `#` the last one, and there is no U+0000",
    CURSOR_PATTERN: "the `next_cursor` of the answer before",
    NAME_PATTERN: "a name of at most 64 letters, digits, dots, dashes and underscores",
}
Text = Annotated[str, Meta(max_length=16_000, pattern=TEXT_PATTERN)]
Named = Annotated[str, Meta(min_length=1, max_length=16_000, pattern=_NAMED)]
TopicName = Annotated[str, Meta(min_length=1, max_length=16_000, pattern=_TOPIC_NAME, description="Topic Name.")]
TopicFilter = Annotated[str, Meta(min_length=1, max_length=16_000, pattern=_TOPIC_FILTER, description="Topic Filter.")]
# What `MessageGiven.payload_bytes` refuses, as JSON Schema.
NOT_BOTH_PAYLOADS = {
    "not": {
        "required": ["payload", "payload_base64"],
        "properties": {"payload": {"minLength": 1}, "payload_base64": {"minLength": 1}},
    }
}
_Payload = Annotated[bytes, Meta(extra_json_schema={"pattern": _BASE64})]


class MessageGiven(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message: its payload as text, or in Base64, not both."""

    payload: str = ""
    payload_base64: _Payload = b""
    qos: Qos = 0
    content_type: Text | None = None
    response_topic: TopicName | None = None
    correlation_data: _Payload | None = None
    message_expiry_s: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] | None = None
    user_properties: Annotated[list[tuple[Text, Text]], Meta(max_length=100)] = []

    def payload_bytes(self) -> bytes:
        """Return the payload. Raises ApiError when both are given."""
        if self.payload and self.payload_base64:
            raise ApiError(400, "payload and payload_base64 cannot both be given")
        return self.payload_base64 or self.payload.encode()


class MessageShown(msgspec.Struct, frozen=True):
    """A message. payload: null when it is no UTF-8."""

    topic: str
    payload: str | None
    payload_base64: bytes
    qos: int
    retain: bool


def in_words(error: ValueError) -> str:
    """Return what is wrong with a request: with words in place of the patterns above."""
    text = str(error)
    for pattern, words in _WORDS.items():
        text = text.replace(f"`str` matching regex {pattern!r}", words)
    return text


def properties_of(given: MessageGiven) -> dict[int, object]:
    """Return the properties as `Broker.publish` takes them."""
    found = {
        PropertyId.CONTENT_TYPE: given.content_type,
        PropertyId.RESPONSE_TOPIC: given.response_topic,
        PropertyId.CORRELATION_DATA: given.correlation_data,
        PropertyId.MESSAGE_EXPIRY_INTERVAL: given.message_expiry_s,
        PropertyId.USER_PROPERTY: list(given.user_properties) or None,
    }
    return {property_id: value for property_id, value in found.items() if value is not None}


def shown(message: Message) -> MessageShown:
    """Return what is shown of a message."""
    payload = bytes(message.payload)
    try:
        text: str | None = payload.decode()
    except UnicodeDecodeError:
        text = None
    return MessageShown(message.topic, text, payload, message.qos, message.retain)
