"""What the fuzzers share: rounds that follow from a seed, and the command line that plays them."""

import argparse
import contextlib
import logging
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping


class Finding(Exception):
    """Something that must not be."""


class _OurErrors(logging.Handler):
    """Turns records of level ERROR into a finding: the engine logs there what it caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


@contextlib.contextmanager
def our_errors() -> Iterator[list[str]]:
    """Give the list of what the broker logs as its own error from here to the end; nothing is printed."""
    errors = _OurErrors()
    logger = logging.getLogger("mqttcore")
    before = logger.level, logger.propagate
    logger.addHandler(errors)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield errors.found
    finally:
        logger.removeHandler(errors)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def fuzz_rounds(
    plays: Mapping[str, tuple[Callable[[random.Random], object], int]],
    seed: int,
    seconds: float,
    rounds: int | None = None,
) -> int:
    """Play rounds from *seed* on until *seconds* are over; the number played. Raises Finding, with the seed in it.

    plays: by name, what is played and how often in a round.
    """
    end_s = time.monotonic() + seconds
    played = 0
    with our_errors() as errors:
        while time.monotonic() < end_s and played != rounds:
            rng = random.Random(seed + played)
            for name, (play, times) in plays.items():
                for _ in range(times):
                    try:
                        play(rng)
                    except Exception as error:
                        raise Finding(f"seed {seed + played}, {name}: {type(error).__name__}: {error}") from error
                    if errors:
                        raise Finding(f"seed {seed + played}, {name}: logged as an error: {errors[0]}")
            played += 1
    return played


def run_command(title: str, fuzz: Callable[[int, float, int | None], int]) -> None:
    """Fuzz as told on the command line; exit 1 with a finding."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**40))
    parser.add_argument("--rounds", type=int, help="stop after so many rounds")
    told = parser.parse_args()
    print(f"seed {told.seed}", flush=True)  # noqa: T201  it is a command
    try:
        played = fuzz(told.seed, told.seconds, told.rounds)
    except Finding as finding:
        traceback.print_exception(finding)
        sys.exit(1)
    print(f"{played} rounds, nothing found")  # noqa: T201
