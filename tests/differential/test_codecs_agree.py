"""Random and damaged packets: our codec and another give the same packet, refuse both, or differ by a named rule."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import pytest

from mqttcore.codec import Connect, decode
from mqttcore.errors import ProtocolError

from .codecs import CODECS, Codec, Refused
from .packets import Maker
from .rules import THEY_REFUSE, WE_REFUSE, why_they_differ, why_they_refuse

DEFAULT_PACKETS = 20_000
SEED = 20
BATCH = 1_000

PACKETS = int(os.environ.get("MQTTCORE_DIFFERENTIAL_PACKETS", DEFAULT_PACKETS))
pytestmark = [pytest.mark.interop, pytest.mark.timeout(max(300, PACKETS // 200))]
PAIRS = [pytest.param(codec, version, id=f"{codec.name} {version}") for codec in CODECS for version in codec.versions]


@dataclass
class Outcome:
    """What came of comparing; unexplained: the shortest packet for each kind of difference without a rule."""

    seen: Counter[str] = field(default_factory=Counter)
    rules: set[str] = field(default_factory=set)
    unexplained: dict[str, str] = field(default_factory=dict)

    def add(self, data: bytes, what: str, why: str | None) -> None:
        if why == "":
            self.seen[what] += 1
        elif why is not None:
            self.seen["explained"] += 1
            self.rules.add(why)
        elif what not in self.unexplained or len(data.hex()) < len(self.unexplained[what]):
            self.unexplained[what] = data.hex()


def batches(version: int) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    for data in Maker(version, SEED).make(PACKETS):
        batch.append((version, data))
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


@cache
def outcome(kind: type[Codec], version: int) -> Outcome:
    """Decode everything with both; done once for all tests."""
    found = Outcome()
    with kind() as codec:
        for batch in batches(version):
            for (_, data), theirs in zip(batch, codec.decode(batch), strict=True):
                found.add(data, *compare(codec, version, data, theirs))
    return found


def compare(codec: Codec, version: int, data: bytes, theirs: object) -> tuple[str, str | None]:
    """Return what came of it and the rule that explains it: "" where none is needed, None where there is none."""
    try:
        packet, size = decode(data, version)
    except ProtocolError as error:
        if isinstance(theirs, Refused):
            return "both refuse", ""
        return f"we refuse: {error}", WE_REFUSE.get((codec.name, error.text))
    assert size == len(data)
    if isinstance(packet, Connect) and packet.protocol_version not in codec.versions:
        return "not its version", ""
    if isinstance(theirs, Refused):
        return f"they refuse: {theirs}", why_they_refuse(codec.name, str(theirs), version, packet)
    assert isinstance(theirs, dict)
    ours = codec.form_of(packet, getattr(packet, "protocol_version", version))
    if ours == theirs:
        return "same", ""
    return f"differ: {ours} and {theirs}", why_they_differ(codec.name, version, packet, ours, theirs)


@pytest.mark.parametrize(("kind", "version"), PAIRS)
def test_every_difference_has_a_rule(kind: type[Codec], version: int):
    if reason := kind.missing():
        pytest.skip(reason)
    found = outcome(kind, version)
    assert not found.unexplained
    # the damage is neither too little nor too much to compare anything
    total = found.seen.total()
    assert min(found.seen["same"], found.seen["both refuse"]) > total // 5
    assert found.seen["explained"] < total // 2


@pytest.mark.parametrize("kind", CODECS, ids=lambda kind: kind.name)
def test_every_rule_is_needed(kind: type[Codec]):
    if reason := kind.missing():
        pytest.skip(reason)
    if PACKETS < DEFAULT_PACKETS:
        pytest.skip("too few packets to need every rule")
    needed = set().union(*(outcome(kind, version).rules for version in kind.versions))
    written = {why for (name, _), why in WE_REFUSE.items() if name == kind.name}
    written |= {why for name, _, _, _, why in THEY_REFUSE if name == kind.name}
    assert written <= needed
