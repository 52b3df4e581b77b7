"""codes.pxd and constants.py are the same numbers."""

import re
from enum import IntEnum
from pathlib import Path

import pytest

from mqttcore.constants import PacketType, PropertyId, ReasonCode

CODES = Path(__file__).parents[2] / "src" / "mqttcore" / "codec" / "codes.pxd"


def codes(prefix: str) -> dict[str, int]:
    text = CODES.read_text(encoding="utf-8")
    return {name: int(value, 0) for name, value in re.findall(rf"^    {prefix}_(\w+) = (\w+)$", text, re.MULTILINE)}


@pytest.mark.parametrize(("prefix", "enum"), [("PT", PacketType), ("RC", ReasonCode), ("PROP", PropertyId)])
def test_codes_are_constants(prefix: str, enum: type[IntEnum]):
    assert codes(prefix) == {member.name: member.value for member in enum}
