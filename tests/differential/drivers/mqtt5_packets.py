"""Decodes with mqtt5, as mqtt_packet.js does with mqtt-packet.

In a process of its own, because the package panics where a string is ill-formed.
"""

import json
import sys
from typing import Any

import mqtt5


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "__int__"):  # numbers, booleans and its enumerations, which are no int
        return int(value)
    names = [name for name in dir(value) if not name.startswith("_") and not callable(getattr(value, name))]
    return {"type": type(value).__name__} | {name: plain(getattr(value, name)) for name in names}


def decode(data: bytearray) -> dict[str, Any]:
    try:
        packet, size = mqtt5.read(data)
    except (ValueError, IndexError) as error:
        return {"error": str(error)}
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3's, which is no Exception
            raise
        return {"error": f"panic: {error}"}
    assert size == len(data)
    return {"packet": plain(packet)}


for line in sys.stdin:
    sys.stdout.write(json.dumps(decode(bytearray.fromhex(line.split()[1]))) + "\n")
    sys.stdout.flush()
