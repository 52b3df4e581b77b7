"""How many rounds, and which."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; they are known when pytest is started on this folder."""
    parser.addoption("--durability-rounds", type=int, metavar="N", help="rounds of sudden death, each kind of test")
    parser.addoption("--durability-seed", type=int, metavar="N", help="the seed of a run to repeat")


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int | None:
    """Rounds that were asked for; None: as many as the test thinks fit."""
    return request.config.getoption("--durability-rounds", default=None)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed; a new one each time, printed with the outcome."""
    given: int | None = request.config.getoption("--durability-seed", default=None)
    return int.from_bytes(os.urandom(4)) if given is None else given
