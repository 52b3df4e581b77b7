"""Nothing that was acknowledged is lost, nothing of QoS 2 comes twice, everything is in order; whatever happens."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from durability.power import Power, build
from durability.rounds import Checker, Setup

ROUNDS = 200
POWER_ROUNDS = 30


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


@pytest.mark.timeout(0)
async def test_faulty_disk_makes_no_liar(tmp_path: Path, rounds: int | None, seed: int):
    """A sync that fails, no space, a sync that takes 200 ms; then it works again, and the power goes."""
    watched = tmp_path / "data"
    watched.mkdir(mode=0o700)
    power = Power(build(tmp_path), watched, tmp_path / "power")
    faults: tuple[dict[str, float], ...] = (
        {"sync_errno": errno.EIO},
        {"write_errno": errno.ENOSPC},
        {"write_errno": errno.EIO},
        {"sync_delay_s": 0.2},
    )
    checker = Checker(Setup(watched / "broker.db", seed, power=power, faults=faults, deaths=("kill",)))
    ledger = await checker.run(rounds or POWER_ROUNDS)
    print(checker.summary())  # noqa: T201
    assert ledger.faults == [], checker.summary()
    assert power.failures > 0


@pytest.mark.parametrize(
    ("store", "expected"),
    [("early", "without|never got|is gone|retains|subscription"), ("forgetful", "of QoS 2 twice")],
)
@pytest.mark.timeout(0)
async def test_checker_catches_a_store_that_lies(tmp_path: Path, seed: int, store: str, expected: str):
    checker = Checker(Setup(tmp_path / "broker.db", seed, store=store, deaths=("kill",)))
    ledger = await checker.run(40)
    print(checker.summary(), ledger.faults[:3])  # noqa: T201
    assert any(re.search(expected, fault) for fault in ledger.faults), checker.summary()


@pytest.mark.timeout(0)
async def test_checker_catches_a_store_that_does_not_sync(tmp_path: Path, seed: int):
    watched = tmp_path / "data"
    watched.mkdir(mode=0o700)
    power = Power(build(tmp_path), watched, tmp_path / "power")
    setup = Setup(watched / "broker.db", seed, power=power, settings={"synchronous": "off"}, deaths=("kill",))
    ledger = await Checker(setup).run(40)
    assert ledger.faults
