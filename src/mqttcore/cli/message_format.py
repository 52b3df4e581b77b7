"""The option `-F FORMAT` of `mqttcore sub`: mosquitto_sub's sequences, compiled once, applied per message.

`%` starts a part of the message or of the time of its arrival, `@` a strftime field (`@N`: nanoseconds), a backslash a
control character. Flags, width and maximum width stand between % and the letter as in printf: `%-20.20t`, `%08l`.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import orjson

from mqttcore.constants import PropertyId

__all__ = ["Arrival", "FormatError", "Message", "compile_format", "json_text"]


class Message(Protocol):
    """What is read of a message; the codec's Publish is one."""

    @property
    def topic(self) -> str:
        """Topic Name."""

    @property
    def payload(self) -> bytes:
        """Payload."""

    @property
    def qos(self) -> int:
        """QoS."""

    @property
    def retain(self) -> bool | int:
        """RETAIN."""

    @property
    def packet_id(self) -> int:
        """Packet Identifier, 0 at QoS 0."""

    @property
    def properties(self) -> Mapping[int, Any]:
        """PropertyId → value."""


class FormatError(ValueError):
    """A format that means nothing, or a message that cannot be shown in it."""


class Arrival(NamedTuple):
    """When a message came."""

    local: datetime  # with a time zone
    nanoseconds: int  # since the epoch

    @classmethod
    def at(cls, nanoseconds: int) -> "Arrival":
        """Return the moment *nanoseconds* after the epoch in local time."""
        return cls(datetime.fromtimestamp(nanoseconds // 1_000_000_000).astimezone(), nanoseconds)


class _Layout(NamedTuple):
    is_left: bool
    pad: str
    width: int
    precision: int | None

    def number(self, value: int | None) -> bytes:
        if value is None:
            return (self.pad * self.width).encode()
        return self._fill(str(value).encode(), self.pad)

    def text(self, value: str | None) -> bytes:
        return self._fill((value or "")[: self.precision].encode(), " ")

    def raw(self, value: bytes) -> bytes:
        return self._fill(value, " ")

    def digits(self, value: str) -> bytes:
        return self._fill(value.encode(), self.pad)

    def _fill(self, value: bytes, pad: str) -> bytes:
        return value.ljust(self.width) if self.is_left else value.rjust(self.width, pad.encode())


_Piece = Callable[[Message, Arrival], bytes]
_Part = Callable[[Message, Arrival, _Layout], bytes]


def _number_property(property_id: PropertyId) -> _Part:
    return lambda message, arrival, layout: layout.number(message.properties.get(property_id))


def _text_property(property_id: PropertyId) -> _Part:
    return lambda message, arrival, layout: layout.text(message.properties.get(property_id))


def _user_properties(message: Message, arrival: Arrival, layout: _Layout) -> bytes:
    pairs = message.properties.get(PropertyId.USER_PROPERTY, ())
    return " ".join(f"{key}:{value}" for key, value in pairs).encode()


def _subscription_id(message: Message, arrival: Arrival, layout: _Layout) -> bytes:
    identifiers = message.properties.get(PropertyId.SUBSCRIPTION_IDENTIFIER)
    return layout.number(identifiers[0] if identifiers else None)


def _unix_time(message: Message, arrival: Arrival, layout: _Layout) -> bytes:
    seconds, nanoseconds = divmod(arrival.nanoseconds, 1_000_000_000)
    return b"%d.%09d" % (seconds, nanoseconds)


_PARTS: dict[str, _Part] = {
    "%": lambda message, arrival, layout: b"%",
    "A": _number_property(PropertyId.TOPIC_ALIAS),
    "C": _text_property(PropertyId.CONTENT_TYPE),
    "D": lambda message, arrival, layout: bytes(message.properties.get(PropertyId.CORRELATION_DATA, b"")),
    "E": _number_property(PropertyId.MESSAGE_EXPIRY_INTERVAL),
    "F": _number_property(PropertyId.PAYLOAD_FORMAT_INDICATOR),
    "I": lambda message, arrival, layout: layout.text(arrival.local.strftime("%Y-%m-%dT%H:%M:%S%z")),
    "j": lambda message, arrival, layout: json_text(message, arrival, is_payload_json=False, is_pretty=False),
    "J": lambda message, arrival, layout: json_text(message, arrival, is_payload_json=True, is_pretty=False),
    "l": lambda message, arrival, layout: layout.number(len(message.payload)),
    "m": lambda message, arrival, layout: layout.number(message.packet_id),
    "P": _user_properties,
    "p": lambda message, arrival, layout: layout.raw(message.payload),
    "q": lambda message, arrival, layout: b"%d" % message.qos,
    "R": _text_property(PropertyId.RESPONSE_TOPIC),
    "r": lambda message, arrival, layout: b"1" if message.retain else b"0",
    "S": _subscription_id,
    "t": lambda message, arrival, layout: layout.text(message.topic),
    "U": _unix_time,
    "x": lambda message, arrival, layout: layout.digits(message.payload.hex()),
    "X": lambda message, arrival, layout: layout.digits(message.payload.hex().upper()),
}
_PRETTY_PARTS: dict[str, _Part] = {
    "j": lambda message, arrival, layout: json_text(message, arrival, is_payload_json=False, is_pretty=True),
    "J": lambda message, arrival, layout: json_text(message, arrival, is_payload_json=True, is_pretty=True),
}

_CONTROLS = {"\\": b"\\", "0": b"\0", "a": b"\a", "e": b"\x1b", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v"}

_SEQUENCE = re.compile(
    r"%(?P<left>-)?(?P<zero>0)?(?P<width>\d{1,4})?(?:\.(?P<precision>\d{1,4}))?(?P<part>[A-Za-z%])"
    r"|@(?P<time>.)|\\(?P<control>.)|(?P<literal>[^%@\\]+)|(?P<wrong>.)",
    re.DOTALL,
)


def compile_format(text: str, *, is_pretty: bool = False) -> Callable[[Message, Arrival], bytes]:
    """Return the function that shows a message in the format *text*.

    is_pretty: whether %j and %J are indented. Raises FormatError for unknown sequences; the function raises it for %J
    of a payload that is no JSON.
    """
    parts = {**_PARTS, **_PRETTY_PARTS} if is_pretty else _PARTS
    pieces = [_piece(found, parts) for found in _SEQUENCE.finditer(text)]
    return lambda message, arrival: b"".join([piece(message, arrival) for piece in pieces])


def _piece(found: re.Match[str], parts: dict[str, _Part]) -> _Piece:
    if (literal := found["literal"]) is not None:
        return _constant(literal.encode())
    if (control := found["control"]) in _CONTROLS:
        return _constant(_CONTROLS[control])
    if (field := found["time"]) is not None:
        if field == "@":
            return _constant(b"@")
        if field == "N":
            return lambda message, arrival: b"%09d" % (arrival.nanoseconds % 1_000_000_000)
        return lambda message, arrival: arrival.local.strftime(f"%{field}").encode()
    part = parts.get(found["part"] or "")
    if part is None:
        raise FormatError(f"unknown sequence {found.group()!r}")
    is_left = found["left"] is not None
    layout = _Layout(
        is_left=is_left,
        pad="0" if found["zero"] and not is_left else " ",
        width=int(found["width"] or 0),
        precision=int(found["precision"]) if found["precision"] is not None else None,
    )
    return lambda message, arrival: part(message, arrival, layout)


def _constant(value: bytes) -> _Piece:
    return lambda message, arrival: value


def json_text(message: Message, arrival: Arrival, *, is_payload_json: bool, is_pretty: bool) -> bytes:
    """Return *message* as a JSON object.

    The payload is a string, or a list of byte values where it is no UTF-8; with is_payload_json it stands there as it
    is. Raises FormatError when it is no JSON then.
    """
    shown: dict[str, Any] = {
        "tst": arrival.local.strftime(f"%Y-%m-%dT%H:%M:%S.{arrival.nanoseconds // 1000 % 1_000_000:06d}%z"),
        "topic": message.topic,
        "qos": int(message.qos),
        "retain": int(message.retain),
        "payloadlen": len(message.payload),
    }
    if message.qos:
        shown["mid"] = message.packet_id
    if message.properties:
        shown["properties"] = _json_properties(message.properties)
    shown["payload"] = _json_payload(message) if is_payload_json else _text_or_bytes(message.payload)
    return orjson.dumps(shown, option=orjson.OPT_INDENT_2 if is_pretty else None)


def _json_payload(message: Message) -> Any:
    if not message.payload:
        return None
    try:
        return orjson.loads(message.payload)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"message payload is not valid JSON on topic {message.topic}") from error


def _text_or_bytes(value: bytes) -> str | list[int]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return list(value)


def _json_properties(properties: Mapping[int, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for number, value in properties.items():
        name = PropertyId(number).name.lower().replace("_", "-")
        match number:
            case PropertyId.USER_PROPERTY:
                shown["user-properties"] = _json_user_properties(value)
            case PropertyId.SUBSCRIPTION_IDENTIFIER:
                shown[name] = value[0] if len(value) == 1 else value
            case _:
                shown[name] = _text_or_bytes(value) if isinstance(value, bytes) else value
    return shown


def _json_user_properties(pairs: list[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Return key → value, or the list of its values where a key stands more than once."""
    shown: dict[str, str | list[str]] = {}
    for key, value in pairs:
        former = shown.get(key)
        if former is None:
            shown[key] = value
        else:
            shown[key] = [*former, value] if isinstance(former, list) else [former, value]
    return shown
