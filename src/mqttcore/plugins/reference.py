"""What there is to know of a plugin without making one: its hooks, and its settings with their defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from mqttcore.errors import PluginError
from mqttcore.plugins.hooks import implementations
from mqttcore.plugins.loading import load_class
from mqttcore.settings import HIDDEN, Secret, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqttcore.plugins.discovery import InstalledPlugin

__all__ = ["DescribedPlugin", "Setting", "describe", "settings_reference"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a plugin's table. default: as TOML would say it, None: must be given. fields: of tables inside."""

    key: str
    kind: str
    default: str | None
    description: str
    fields: tuple[Setting, ...] = ()


@dataclass(frozen=True, slots=True)
class DescribedPlugin:
    """An installed plugin. error: why it cannot be used; then the rest is empty."""

    name: str
    place: str
    distribution: str
    summary: str = ""
    hooks: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    error: str = ""


def describe(plugin: InstalledPlugin) -> DescribedPlugin:
    """Import a plugin and describe it."""
    try:
        cls = load_class(plugin)
        settings = tuple(_settings(inspect.type_info(cls.Config))) if hasattr(cls, "Config") else ()
    except PluginError as error:
        return DescribedPlugin(plugin.name, plugin.place, plugin.distribution, error=error.reason)
    except TypeError as error:
        return DescribedPlugin(plugin.name, plugin.place, plugin.distribution, error=f"its Config: {error}")
    summary = (cls.__doc__ or "").strip().partition("\n")[0]
    hooks = tuple(sorted(implementations(plugin.name, cls)))
    return DescribedPlugin(plugin.name, plugin.place, plugin.distribution, summary, hooks, settings)


def settings_reference(described: DescribedPlugin) -> str:
    """Return the table of a plugin's settings in Markdown."""
    if not described.settings:
        return f"`[plugins.{described.name}]` has no keys.\n"
    lines = [f"## `[plugins.{described.name}]`", "", described.summary, ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    lines += _rows(described.settings, "")
    return "\n".join(lines) + "\n"


def _rows(settings: tuple[Setting, ...], prefix: str) -> Iterator[str]:
    for one in settings:
        default = "required" if one.default is None else f"`{one.default}`" if one.default else ""
        yield f"| `{prefix}{one.key}` | {one.kind} | {default} | {one.description} |"
        inside = f"{prefix}{one.key}[]." if one.kind == "tables" else f"{prefix}{one.key}."
        yield from _rows(one.fields, inside)


def _settings(described: inspect.Type) -> Iterator[Setting]:
    assert isinstance(described, inspect.StructType | inspect.DataclassType)
    for field in described.fields:
        said: dict[str, Any] = {}
        kind = field.type
        while isinstance(kind, inspect.Metadata):
            said = {**(kind.extra_json_schema or {}), **said}
            kind = kind.type
        yield Setting(
            field.encode_name,
            _kind(kind),
            None if field.required else _default(field),
            str(said.get("description", "")),
            tuple(_settings(inner)) if (inner := _inner(kind)) is not None else (),
        )


def _default(field: inspect.Field) -> str:
    value = field.default
    if value is msgspec.NODEFAULT:
        assert field.default_factory is not msgspec.NODEFAULT
        value = field.default_factory()
    if value is None:
        return "not set"
    if isinstance(value, Secret):
        return HIDDEN
    plain = visible(value)
    if isinstance(plain, dict) and plain:
        return ""  # its keys say theirs
    return json.dumps(plain, ensure_ascii=False)


def _inner(kind: inspect.Type) -> inspect.Type | None:
    match kind:
        case inspect.StructType() | inspect.DataclassType():
            return kind
        case inspect.Metadata():
            return _inner(kind.type)
        case inspect.ListType() | inspect.VarTupleType():
            return _inner(kind.item_type)
        case inspect.DictType():
            return _inner(kind.value_type)
        case inspect.UnionType():
            found = [inner for one in kind.types if (inner := _inner(one)) is not None]
            return found[0] if len(found) == 1 else None
    return None


_WORDS = {
    inspect.BoolType: "true, false",
    inspect.StrType: "text",
    inspect.BytesType: "text, base64",
    inspect.DateTimeType: "date and time",
    inspect.AnyType: "anything",
}


def _kind(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _kind(kind.type)
        case inspect.IntType() | inspect.FloatType():
            name = "integer" if isinstance(kind, inspect.IntType) else "number"
            low, high = kind.ge if kind.ge is not None else kind.gt, kind.le if kind.le is not None else kind.lt
            if low is None and high is None:
                return name
            return f"{'' if low is None else f'{low:g}'}…{'' if high is None else f'{high:g}'}"
        case inspect.LiteralType():
            return ", ".join(json.dumps(value) for value in kind.values)
        case inspect.EnumType():
            return ", ".join(json.dumps(one.value) for one in kind.cls)
        case inspect.UnionType():
            return " or ".join(_kind(one) for one in kind.types if not isinstance(one, inspect.NoneType))
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            return "tables" if _inner(kind.item_type) is not None else f"list of {_kind(kind.item_type)}"
        case inspect.DictType():
            return "table of tables" if _inner(kind.value_type) is not None else f"table of {_kind(kind.value_type)}"
        case inspect.StructType() | inspect.DataclassType():
            return "table"
        case inspect.CustomType():
            return "secret text" if kind.cls is Secret else "path"
    return _WORDS.get(type(kind), type(kind).__name__.removesuffix("Type").lower())
