"""One measurement of one broker, and the rows that medians of them make."""

from dataclasses import dataclass
from statistics import median

from goals import GOALS, Goal
from peers import OURS, REFERENCE


@dataclass(frozen=True)
class Sample:
    """A run. figure: what the scenario is about, in its goal's unit: mostly the broker's CPU time per message."""

    scenario: str
    peer: str
    round: int
    figure: float = 0.0
    broker_cpu_us: float = 0.0
    generator_cpu_us: float = 0.0
    broker_share: float = 0.0  # CPU time of the broker over wall time: near 1, the broker was the bottleneck
    messages: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    foreign: int = 0
    error: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it ran to its end and every message arrived once and in order."""
        return not (self.error or self.lost or self.duplicated or self.reordered or self.foreign)


@dataclass(frozen=True)
class Row:
    """A scenario's outcome. figures: median by peer; ratio: median over the rounds of ours ÷ mosquitto's."""

    scenario: str
    goal: Goal
    figures: dict[str, float]
    p99_us: dict[str, float]
    ratio: float | None
    p99_ratio: float | None
    failed: list[str]

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None when there is nothing to tell it by."""
        if OURS in self.failed:
            return False
        if not self.goal.is_ratio:
            return self.figures[OURS] <= self.goal.limit if OURS in self.figures else None
        if self.ratio is None:
            return None
        worst = max(self.ratio, self.p99_ratio or 0.0) if self.scenario == "latency" else self.ratio
        return worst <= self.goal.limit


def rows(samples: list[Sample]) -> list[Row]:
    """Return one row per scenario, in the order in which they were run. Failed samples count only as failures."""
    return [_row(scenario, [sample for sample in samples if sample.scenario == scenario])
            for scenario in dict.fromkeys(sample.scenario for sample in samples)]  # fmt: skip


def _row(scenario: str, samples: list[Sample]) -> Row:
    good = [sample for sample in samples if sample.is_good]
    peers = list(dict.fromkeys(sample.peer for sample in good))
    by_round = {(sample.peer, sample.round): sample for sample in good}
    pairs = [
        (by_round[OURS, number], by_round[REFERENCE, number])
        for number in sorted({sample.round for sample in good})
        if (OURS, number) in by_round and (REFERENCE, number) in by_round
    ]
    return Row(
        scenario=scenario,
        goal=GOALS[scenario],
        figures={peer: median(sample.figure for sample in good if sample.peer == peer) for peer in peers},
        p99_us={peer: median(sample.p99_us for sample in good if sample.peer == peer) for peer in peers},
        ratio=_ratio([(ours.figure, reference.figure) for ours, reference in pairs]),
        p99_ratio=_ratio([(ours.p99_us, reference.p99_us) for ours, reference in pairs]),
        failed=list(dict.fromkeys(sample.peer for sample in samples if not sample.is_good)),
    )


def _ratio(pairs: list[tuple[float, float]]) -> float | None:
    ratios = [ours / reference for ours, reference in pairs if reference]
    return median(ratios) if ratios else None
