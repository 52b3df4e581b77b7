"""Nothing that was acknowledged is lost, nothing of QoS 2 comes twice, everything is in order; whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from durability.power import Power, build
from durability.rounds import Checker, Setup

ROUNDS = 200
POWER_ROUNDS = 30
ROUND_DEADLINE_S = 3


def deadline(rounds: int) -> float:
    return 60 + rounds * ROUND_DEADLINE_S


@pytest.mark.timeout(0)
async def test_killed_broker_keeps_its_word(tmp_path: Path, rounds: int | None, seed: int):
    checker = Checker(Setup(tmp_path / "broker.db", seed))
    ledger = await checker.run(rounds or ROUNDS)
    print(checker.summary())  # noqa: T201
    assert ledger.faults == [], checker.summary()


@pytest.mark.timeout(0)
async def test_power_cut_keeps_what_was_synced(tmp_path: Path, rounds: int | None, seed: int):
    watched = tmp_path / "data"
    watched.mkdir(mode=0o700)
    power = Power(build(tmp_path), watched, tmp_path / "power")
    checker = Checker(Setup(watched / "broker.db", seed, power=power, deaths=("kill",)))
    ledger = await checker.run(rounds or POWER_ROUNDS)
    print(checker.summary())  # noqa: T201
    assert ledger.faults == [], checker.summary()
    assert checker.pages_lost > 0


@pytest.mark.parametrize(
    ("store", "settings", "expected"),
    [("early", {}, "without"), ("forgetful", {}, "twice")],
)
@pytest.mark.timeout(0)
async def test_checker_catches_a_store_that_lies(
    tmp_path: Path, seed: int, store: str, settings: dict[str, object], expected: str
):
    checker = Checker(Setup(tmp_path / "broker.db", seed, store=store, settings=settings, deaths=("kill",)))
    ledger = await checker.run(40)
    assert any(expected in fault for fault in ledger.faults), checker.summary()


@pytest.mark.timeout(0)
async def test_checker_catches_a_store_that_does_not_sync(tmp_path: Path, seed: int):
    watched = tmp_path / "data"
    watched.mkdir(mode=0o700)
    power = Power(build(tmp_path), watched, tmp_path / "power")
    setup = Setup(watched / "broker.db", seed, power=power, settings={"synchronous": "off"}, deaths=("kill",))
    ledger = await Checker(setup).run(40)
    assert ledger.faults
