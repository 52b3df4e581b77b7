"""The option `-D COMMAND NAME VALUE`: MQTT 5 properties on the command line, as mosquitto's clients take them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import click

from mqttcore.constants import PropertyId

__all__ = ["PropertyCommand", "PropertyTable", "parse_properties", "property_option"]

PropertyTable = Mapping[str, tuple[PropertyId, ...]]  # command → the properties it takes

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTION_NAMES = ("-D", "--property")
_U16, _U32, _VARINT = 0xFFFF, 0xFFFFFFFF, 268_435_455


class _Range(NamedTuple):
    minimum: int
    maximum: int


_NUMBERS = {
    PropertyId.PAYLOAD_FORMAT_INDICATOR: _Range(0, 1),
    PropertyId.MESSAGE_EXPIRY_INTERVAL: _Range(0, _U32),
    PropertyId.SUBSCRIPTION_IDENTIFIER: _Range(1, _VARINT),
    PropertyId.SESSION_EXPIRY_INTERVAL: _Range(0, _U32),
    PropertyId.REQUEST_PROBLEM_INFORMATION: _Range(0, 1),
    PropertyId.WILL_DELAY_INTERVAL: _Range(0, _U32),
    PropertyId.REQUEST_RESPONSE_INFORMATION: _Range(0, 1),
    PropertyId.RECEIVE_MAXIMUM: _Range(1, _U16),
    PropertyId.TOPIC_ALIAS_MAXIMUM: _Range(0, _U16),
    PropertyId.TOPIC_ALIAS: _Range(1, _U16),
    PropertyId.MAXIMUM_PACKET_SIZE: _Range(1, _U32),
}
_BINARY = {PropertyId.AUTHENTICATION_DATA, PropertyId.CORRELATION_DATA}

CONNECT = (
    PropertyId.AUTHENTICATION_DATA,
    PropertyId.AUTHENTICATION_METHOD,
    PropertyId.MAXIMUM_PACKET_SIZE,
    PropertyId.RECEIVE_MAXIMUM,
    PropertyId.REQUEST_PROBLEM_INFORMATION,
    PropertyId.REQUEST_RESPONSE_INFORMATION,
    PropertyId.SESSION_EXPIRY_INTERVAL,
    PropertyId.TOPIC_ALIAS_MAXIMUM,
    PropertyId.USER_PROPERTY,
)
DISCONNECT = (PropertyId.SESSION_EXPIRY_INTERVAL, PropertyId.USER_PROPERTY)
_MESSAGE = (
    PropertyId.CONTENT_TYPE,
    PropertyId.CORRELATION_DATA,
    PropertyId.MESSAGE_EXPIRY_INTERVAL,
    PropertyId.PAYLOAD_FORMAT_INDICATOR,
    PropertyId.RESPONSE_TOPIC,
    PropertyId.USER_PROPERTY,
)
PUBLISH = (*_MESSAGE, PropertyId.TOPIC_ALIAS)
WILL = (*_MESSAGE, PropertyId.WILL_DELAY_INTERVAL)
SUBSCRIBE = (PropertyId.SUBSCRIPTION_IDENTIFIER, PropertyId.USER_PROPERTY)
UNSUBSCRIBE = (PropertyId.USER_PROPERTY,)

_NAMES = {one.name.lower().replace("_", "-"): one for one in PropertyId}


class PropertyCommand(click.Command):
    """A command whose option -D has three values, or four for `user-property`.

    click's options have a fixed number of values. So the values are joined by NUL, which no argument and no MQTT string
    can have in it, before click sees them.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the values of each -D, then parse."""
        joined: list[str] = []
        rest = iter(args)
        for argument in rest:
            joined.append(argument)
            if argument in _OPTION_NAMES:
                values = [value for _, value in zip(range(3), rest, strict=False)]
                if len(values) > 1 and values[1] == "user-property":
                    values += [value for _, value in zip(range(1), rest, strict=False)]
                joined.append("\0".join(values))
        return super().parse_args(ctx, joined)


def property_option(table: PropertyTable) -> Callable[[_Function], _Function]:
    """Return the decorator for -D; the command gets `properties`: command → PropertyId → value."""

    def convert(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, dict[int, Any]]:
        return parse_properties([value.split("\0") for value in values], table)

    return click.option(
        *_OPTION_NAMES,
        "properties",
        multiple=True,
        callback=convert,
        metavar="COMMAND NAME VALUE",
        help=f"MQTT 5 property for {', '.join(table)}; `user-property` has a key and a value. Repeatable.",
    )


def parse_properties(given: list[list[str]], table: PropertyTable) -> dict[str, dict[int, Any]]:
    """Return command → PropertyId → value, every command of *table* with at least an empty dict.

    given: the values of each -D. Raises click.UsageError.
    """
    properties: dict[str, dict[int, Any]] = {command: {} for command in table}
    for values in given:
        command, name = values[0], values[1] if len(values) > 1 else ""
        if command not in table:
            raise click.UsageError(f"-D {command}: not one of {', '.join(table)}")
        property_id = _NAMES.get(name)
        if property_id not in table[command] or property_id is None:
            allowed = ", ".join(one.name.lower().replace("_", "-") for one in table[command])
            raise click.UsageError(f"-D {command} {name}: not one of {allowed}")
        count = 4 if property_id is PropertyId.USER_PROPERTY else 3
        if len(values) != count:
            raise click.UsageError(f"-D {command} {name}: {count - 2} value(s) needed")
        if property_id is PropertyId.USER_PROPERTY:
            properties[command].setdefault(property_id, []).append((values[2], values[3]))
        elif property_id in properties[command]:
            raise click.UsageError(f"-D {command} {name}: given twice")
        else:
            properties[command][property_id] = _value(property_id, values[2], f"-D {command} {name}")
    return properties


def _value(property_id: PropertyId, text: str, where: str) -> int | str | bytes:
    if property_id in _BINARY:
        return text.encode()
    if property_id not in _NUMBERS:
        return text
    minimum, maximum = _NUMBERS[property_id]
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not minimum <= number <= maximum:
        raise click.UsageError(f"{where}: {text!r} is not a number from {minimum} to {maximum}")
    return number
