"""A store as lines of JSON, for backups, for changing the store, and for looking at it.

    {"kind":"store","format_version":2}
    {"kind":"session","key":1,"number":1,"client_id":"c",…}
    {"kind":"value","namespace":"bans","name":"…","value":"…"}

One record a line, its fields as in `mqttcore.store.records`, bytes as base64; values of plugins behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mqttcore.errors import StoreError
from mqttcore.store import records
from mqttcore.store.contract import StoreBatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from mqttcore.store.contract import SessionStore, ValueChange

__all__ = ["export_lines", "import_lines"]

_IMPORT_BYTES = 1_048_576


class _Header(msgspec.Struct, frozen=True, tag_field="kind", tag="store"):
    format_version: int


class _Value(msgspec.Struct, frozen=True, tag_field="kind", tag="value"):
    namespace: str
    name: bytes
    value: bytes


class _Key(msgspec.Struct, frozen=True):
    key: int


_Line = (
    _Header
    | _Value
    | records.SessionRecord
    | records.SubscriptionRecord
    | records.MessageRecord
    | records.EntryRecord
    | records.ReceivedRecord
    | records.RetainedRecord
)


async def export_lines(store: SessionStore, namespaces: Iterable[str] = ()) -> AsyncIterator[bytes]:
    """Give the lines of an opened store, without line ends. namespaces: whose values are to be there."""
    encode = msgspec.json.Encoder().encode
    yield encode(_Header(records.FORMAT_VERSION))
    async for chunk in store.load():
        for key, record in records.decode(chunk):
            fields: dict[str, Any] = msgspec.to_builtins(record)
            yield encode({"kind": fields.pop("kind"), "key": key, **fields})
    for namespace in namespaces:
        async for name, value in store.values(namespace):
            yield encode(_Value(namespace, name, value))


async def import_lines(store: SessionStore, lines: Iterable[bytes]) -> int:
    """Fill an opened, empty store; how many records and values came in.

    Raises StoreError: (corrupt) a line that is none of ours, with its number, and keys that do not ascend; (version) an
    export of a newer format; the store's own. What came before the fault stays.
    """
    if store.last_key:
        raise StoreError("io", "import needs an empty store")
    decode = msgspec.json.Decoder(_Line).decode
    decode_key = msgspec.json.Decoder(_Key).decode
    taken: list[bytes] = []
    keys: list[int] = []
    values: list[ValueChange] = []
    size = count = number = 0
    has_header = False

    async def flush() -> None:
        nonlocal number, size
        number += 1
        chunk = b"".join(taken)
        first, last = (keys[0], keys[-1]) if keys else (0, 0)
        await store.commit(StoreBatch(number, chunk, len(keys), first, last, values=tuple(values)))
        taken.clear()
        keys.clear()
        values.clear()
        size = 0

    last_key = 0
    for line_number, line in enumerate(lines, 1):
        try:
            found = decode(line)
        except msgspec.MsgspecError as error:
            raise StoreError("corrupt", f"line {line_number}: {error}") from error
        if isinstance(found, _Header):
            if found.format_version > records.FORMAT_VERSION:  # fields that older ones lack have defaults
                raise StoreError("version", f"an export of format {found.format_version}")
            has_header = True
            continue
        if not has_header:
            raise StoreError("corrupt", f"line {line_number}: a line before the header")
        count += 1
        if isinstance(found, _Value):
            values.append((found.namespace, found.name, found.value))
            size += len(line)
        else:
            key = decode_key(line).key
            if key <= last_key:
                raise StoreError("corrupt", f"line {line_number}: key {key} behind {last_key}")
            last_key = key
            taken.append(records.encode(key, found))
            keys.append(key)
            size += len(taken[-1])
        if size >= _IMPORT_BYTES:
            await flush()
    if taken or values:
        await flush()
    return count
