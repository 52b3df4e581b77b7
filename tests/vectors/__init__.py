"""Wire vectors: rows of the JSON files in this folder, as packets or as faults.

A row has `name`, `version` (3, 4, 5), `sender` (client, server), `hex` (one whole packet, or its start) and either
`packet` (its type and the fields that differ from the class's defaults) or `reason_code` and `clause` of the fault.
Optional: `canonical` false when encoding gives other bytes, `maximum_packet_size_bytes`, and for a fault in a CONNECT
the `protocol_version` that the error carries. Bytes stand as {"hex": "..."}, properties under their PropertyId names.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqttcore import codec
from mqttcore.constants import PacketType, PropertyId, ReasonCode

FOLDER = Path(__file__).parent
LARGEST_PACKET_BYTES = 268_435_460

CLASSES: dict[str, type[Any]] = {
    packet_class.packet_type.name: packet_class
    for name in codec.__all__
    if hasattr(packet_class := getattr(codec, name), "packet_type")
}


@dataclass(frozen=True)
class Vector:
    """One row; `packet` is None for a fault, and the other way round."""

    name: str
    version: int
    sender: str
    data: bytes
    packet: Any
    is_canonical: bool
    reason_code: ReasonCode | None
    clause: str | None
    protocol_version: int | None
    maximum_packet_size_bytes: int
    row: dict[str, Any]

    @property
    def packet_type(self) -> PacketType:
        """Type of the packet that the bytes are or were meant to be."""
        return PacketType(self.data[0] >> 4)


def load() -> tuple[list[Vector], list[Vector]]:
    """Return the rows that are packets and those that are faults."""
    rows = list(read())
    return [row for row in rows if row.packet is not None], [row for row in rows if row.packet is None]


def read() -> Iterator[Vector]:
    """Return all rows, file by file."""
    for path in sorted(FOLDER.glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            yield Vector(
                name=f"{path.stem}: {row['name']}",
                version=row["version"],
                sender=row["sender"],
                data=bytes.fromhex(row["hex"]),
                packet=packet_of(row["packet"]) if "packet" in row else None,
                is_canonical=row.get("canonical", True),
                reason_code=ReasonCode[row["reason_code"]] if "reason_code" in row else None,
                clause=row.get("clause"),
                protocol_version=row.get("protocol_version"),
                maximum_packet_size_bytes=row.get("maximum_packet_size_bytes", LARGEST_PACKET_BYTES),
                row=row,
            )


def packet_of(fields: dict[str, Any]) -> Any:
    """Return the packet that a row's `packet` describes."""
    arguments = {name: value_of(name, value) for name, value in fields.items() if name != "type"}
    return CLASSES[fields["type"]](**arguments)


def value_of(name: str, value: Any) -> Any:
    """Return a field's value from its JSON form."""
    if isinstance(value, dict) and value.keys() == {"hex"}:
        return bytes.fromhex(value["hex"])
    if name == "properties":
        return {PropertyId[key]: property_value_of(key, item) for key, item in value.items()}
    if name == "will":
        return codec.Will(**{key: value_of(key, item) for key, item in value.items()})
    if name == "subscriptions":
        return [codec.Subscription(**item) for item in value]
    return value


def property_value_of(name: str, value: Any) -> Any:
    """Return a property's value from its JSON form."""
    if name == "USER_PROPERTY":
        return [tuple(pair) for pair in value]
    return value_of(name, value)


VALID, FAULTY = load()
