"""Mappings into typed settings: strict, and a mistake is a ConfigError that says where.

The types are frozen msgspec structs or dataclasses, the broker's own (`config`) and the `Config` of each plugin.
"""

from __future__ import annotations

import dataclasses
import hmac
import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar, final

import msgspec
from msgspec import inspect

from mqttcore.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HIDDEN", "Secret", "convert", "is_settings_type", "visible"]

T = TypeVar("T")

HIDDEN = "(secret)"
_SECRET_BYTES_MAXIMUM = 1024 * 1024  # of a file that holds one


@final
class Secret:
    """A text of the configuration that nothing prints: type of a field of a plugin's `Config`.

    In the file it is the text itself, `{ file = "PATH" }` (without its last line end) or `{ env = "NAME" }`.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Compare in constant time."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        """Hash by content, as equality wants it."""
        return hash(self._text)

    def __repr__(self) -> str:
        """Show that there is one."""
        return f"Secret({HIDDEN})"

    def __reduce__(self) -> Any:
        """Refuse: pickles are written to places that nobody looks after."""
        raise TypeError("a Secret cannot be pickled")


def convert(mapping: Mapping[str, Any], kind: type[T], path: str = "", source: str | None = None) -> T:
    """Return a *kind* of what *mapping* says.

    kind: a msgspec struct or dataclass; it has no unknown keys, whether it says so or not. path: where the mapping
    stands in the document *source*. Raises ConfigError, TypeError when *kind* has annotations that cannot be converted.
    """
    _refuse_unknown(mapping, inspect.type_info(kind), path, source)
    try:
        return msgspec.convert(mapping, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        within, reason = _locate(str(error), kind)
        raise ConfigError(_join(path, within), reason, source) from error


def visible(settings: Any) -> Any:
    """Return settings as plain dicts and lists, with secrets hidden: what may be printed."""
    return msgspec.to_builtins(settings, enc_hook=_encode)


def _join(path: str, within: str) -> str:
    return f"{path}.{within}" if path and within and not within.startswith("[") else path + within


def _decode(kind: type, value: Any) -> Any:
    if kind is Secret:
        return Secret(_read_secret(value))
    if issubclass(kind, PurePath) and isinstance(value, str):
        if not value:
            raise ValueError("Expected a path, got an empty text")
        return kind(value)
    raise NotImplementedError(f"{kind.__name__} cannot stand in a configuration")


def _encode(value: Any) -> Any:
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, PurePath):
        return str(value)
    return repr(value)


def _read_secret(value: Any) -> str:
    # What is wrong is said without what was given.
    match value:
        case str():
            return value
        case {"env": str(name)} if len(value) == 1:
            if name not in os.environ:
                raise ValueError(f"the environment has no {name}")
            return os.environ[name]
        case {"file": str(name)} if len(value) == 1:
            try:
                with Path(name).open("rb") as file:
                    data = file.read(_SECRET_BYTES_MAXIMUM + 1)
                if len(data) > _SECRET_BYTES_MAXIMUM:
                    raise ValueError(f"{name} is larger than {_SECRET_BYTES_MAXIMUM} bytes")
                text = data.decode()
            except OSError as error:
                raise ValueError(f"{name} cannot be read: {error.strerror or type(error).__name__}") from None
            except UnicodeDecodeError:
                raise ValueError(f"{name} is not UTF-8") from None
            return text.removesuffix("\n").removesuffix("\r")
    raise ValueError('Expected a text, { file = "PATH" } or { env = "NAME" }')


def _refuse_unknown(value: Any, described: inspect.Type, path: str, source: str | None) -> None:
    # msgspec takes unknown keys of dataclasses, and of structs that do not forbid them, and drops them.
    while isinstance(described, inspect.Metadata):
        described = described.type
    match described:
        case inspect.StructType() | inspect.DataclassType() if isinstance(value, dict):
            fields = {field.encode_name: field.type for field in described.fields}
            for key, inner in value.items():
                if key not in fields:
                    raise ConfigError(_join(path, str(key)), "unknown key", source)
                _refuse_unknown(inner, fields[key], _join(path, str(key)), source)
        case inspect.ListType() | inspect.VarTupleType() if isinstance(value, list):
            for index, inner in enumerate(value):
                _refuse_unknown(inner, described.item_type, f"{path}[{index}]", source)
        case inspect.DictType() if isinstance(value, dict):
            for key, inner in value.items():
                _refuse_unknown(inner, described.value_type, _join(path, str(key)), source)
        case inspect.UnionType():
            shaped = [one for one in described.types if isinstance(one, inspect.StructType | inspect.DataclassType)]
            if len(shaped) == 1:  # of several, tags tell which: msgspec checks those
                _refuse_unknown(value, shaped[0], path, source)


_AT = re.compile(r"^(?P<reason>.*?)(?: - at `(?:key in )?\$\.?(?P<path>.*)`)?$", re.DOTALL)
_FIELD = re.compile(r"^Object (?P<what>contains unknown|missing required) field `(?P<field>.*)`$", re.DOTALL)


def _locate(message: str, kind: Any) -> tuple[str, str]:
    """Split msgspec's message into our key path and the reason; an unknown key is part of the path."""
    at = _AT.match(message)
    assert at is not None  # every part of the pattern is optional
    path, reason = at["path"] or "", at["reason"]
    if field := _FIELD.match(reason):
        path = f"{path}.{field['field']}" if path else field["field"]
        reason = "unknown key" if field["what"] == "contains unknown" else "missing"
    elif reason.startswith("Invalid enum value") and (choices := _choices(path, kind)):
        reason += f", not one of {', '.join(choices)}"
    return path, reason.replace("`object`", "a table")  # TOML's word


def _choices(path: str, kind: Any) -> list[str]:
    """Return the words that the key at *path* may have; none where the path goes through what has no fields."""
    described: inspect.Type = inspect.type_info(kind)
    for name in re.sub(r"\[[^\]]*\]", "", path).split("."):
        if isinstance(described, inspect.UnionType):  # a table, or none
            described = next(one for one in described.types if not isinstance(one, inspect.NoneType))
        if not isinstance(described, inspect.StructType | inspect.DataclassType):
            return []
        described = next(field.type for field in described.fields if field.encode_name == name)
        while isinstance(described, inspect.Metadata | inspect.ListType | inspect.VarTupleType):
            described = described.type if isinstance(described, inspect.Metadata) else described.item_type
    if isinstance(described, inspect.LiteralType):
        return [str(value) for value in described.values]
    return [str(one.value) for one in described.cls] if isinstance(described, inspect.EnumType) else []


def is_settings_type(kind: Any) -> bool:
    """Say whether *kind* can be a plugin's `Config`: a frozen struct or a frozen dataclass."""
    if not isinstance(kind, type):
        return False
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.frozen
    return dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
