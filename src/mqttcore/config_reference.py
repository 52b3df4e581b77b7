"""The reference of all configuration keys, made of the structs.

`python -m mqttcore.config_reference > docs/config.md`
"""

import sys
from collections.abc import Iterator

import msgspec
from msgspec import inspect

from mqttcore.config import Config, Flapping, HttpApi, KeyPair, Limits, Listener, StoreSettings, Tls, Tracing

__all__ = ["reference"]

_HEAD = """\
# Configuration

<!-- Made by `python -m mqttcore.config_reference`; edit the structs in src/mqttcore/config instead. -->

`mqttcore serve --config FILE` reads one TOML file, `mqttcore check FILE` tries it. Every key has a default.
An unknown key, a value of the wrong type or out of its range stops the start; path and reason are printed, exit code 2.

```toml
log_level = "info"

[[listeners]]
name = "lan"
host = "127.0.0.1"
port = 1883

[limits]
maximum_packet_size_bytes = 262144
```
"""

_PLACES: dict[type[msgspec.Struct], str] = {
    Config: "Top level",
    Listener: "`[[listeners]]`",
    Tls: "`[listeners.tls]`",
    KeyPair: "`[[listeners.tls.certificates]]`",
    Limits: "`[limits]`",
    StoreSettings: "`[store]`",
    Flapping: "`[flapping]`",
    HttpApi: "`[http_api]`",
    Tracing: "`[tracing]`",
}


def reference() -> str:
    """Return docs/config.md: one table per struct, in the order of the fields."""
    sections = [_HEAD]
    for struct, place in _PLACES.items():
        rows = "\n".join(_rows(struct))
        sections.append(
            f"## {place}\n\n{struct.__doc__}\n\n| key | value | default | meaning |\n|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(sections)


def _rows(struct: type[msgspec.Struct]) -> Iterator[str]:
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        assert isinstance(field.type, inspect.Metadata), f"{struct.__name__}.{field.name} has no Meta"
        meaning = (field.type.extra_json_schema or {})["description"]
        yield f"| `{field.name}` | {_value(field.type.type)} | {_default(field)} | {meaning} |"


def _value(described: inspect.Type) -> str:
    match described:
        case inspect.BoolType():
            return "true, false"
        case inspect.UnionType():
            return ", ".join(_value(one) for one in described.types if not isinstance(one, inspect.NoneType))
        case inspect.LiteralType():
            return ", ".join(f'"{value}"' for value in described.values)
        case inspect.IntType():
            return f"{described.ge}…{described.le}"
        case inspect.FloatType():
            return f"{described.ge:g}…{described.le:g}"
        case inspect.StrType():
            return "text"
        case inspect.Metadata():
            return _value(described.type)
        case inspect.ListType():
            if isinstance(described.item_type, inspect.StructType):
                return "tables, see below"
            return "list of texts"
        case inspect.StructType() | inspect.DictType():
            return "table, see below" if isinstance(described, inspect.StructType) else "tables"
    raise TypeError(f"{described!r} has no place in the reference")


def _default(field: inspect.Field) -> str:
    if field.default_factory is not msgspec.NODEFAULT and isinstance(made := field.default_factory(), list):
        return "" if any(isinstance(one, msgspec.Struct) for one in made) else msgspec.json.encode(made).decode()
    if field.required:
        return "must be set"
    if field.default is msgspec.NODEFAULT or isinstance(field.default, msgspec.Struct | dict):
        return ""
    if field.default is None:
        return "not set"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f'"{field.default}"' if isinstance(field.default, str) else str(field.default)


if __name__ == "__main__":
    sys.stdout.write(reference())
