"""The outcome as a table, a CSV file, a plot, and the marked section of README.md."""

import csv
from dataclasses import asdict, fields
from pathlib import Path

from peers import OURS, REFERENCE
from samples import Row, Sample

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def table(rows: list[Row]) -> str:
    """Return a Markdown table: a row per scenario, a column per peer, ours first."""
    peers = sorted(
        {peer for row in rows for peer in [*row.figures, *row.failed]}, key=lambda name: (name != OURS, name)
    )
    head = ["scenario", "unit", *peers, f"÷ {REFERENCE}", "goal", "met"]
    lines = [head, ["---", "---", *["---:"] * (len(peers) + 2), "---"]]
    for row in rows:
        met = {True: "yes", False: "**no**", None: "-"}[row.is_met]
        lines.append(
            [f"`{row.scenario}`", row.goal.unit, *(_cell(row, peer) for peer in peers), _ratio(row), _goal(row), met]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Row, peer: str) -> str:
    if peer not in row.figures:
        return "failed" if peer in row.failed else "-"
    text = _number(row.figures[peer])
    if row.scenario == "latency":
        text += f" / {_number(row.p99_us[peer])} p99"
    return text + (" (!)" if peer in row.failed else "")


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return "-"
    text = f"{row.ratio:.3f}"
    return f"{text} / {row.p99_ratio:.3f}" if row.scenario == "latency" and row.p99_ratio else text


def _goal(row: Row) -> str:
    return f"≤ {row.goal.limit:g}" if row.goal.is_ratio else f"≤ {row.goal.limit:g} {row.goal.unit}"


def write_csv(samples: list[Sample], path: Path) -> None:
    """Write every sample, failed ones too."""
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, [field.name for field in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)


def plot(rows: list[Row], path: Path) -> bool:
    """Draw each peer's figure as a share of mosquitto's, and the goals; return whether it could be drawn."""
    rows = [row for row in rows if REFERENCE in row.figures]
    if not rows:
        return False
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("svg")
    from matplotlib import pyplot

    peers = sorted({peer for row in rows for peer in row.figures}, key=lambda name: (name != OURS, name))
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.2 * len(rows) * (1 + len(peers))), layout="constrained")
    height = 0.8 / max(1, len(peers))
    for place, peer in enumerate(peers):
        drawn = [
            (at, row.figures[peer] / row.figures[REFERENCE])
            for at, row in enumerate(rows)
            if peer in row.figures and row.figures[REFERENCE]
        ]
        axes.barh([at + place * height for at, _ in drawn], [share for _, share in drawn], height, label=peer)
    for at, row in enumerate(rows):
        limit = row.goal.limit if row.goal.is_ratio else row.goal.limit / max(row.figures[REFERENCE], 1e-9)
        axes.plot(
            [limit, limit], [at - height / 2, at + 0.8 - height / 2], color="black", label="goal" if at == 0 else ""
        )
    axes.set_yticks([at + 0.4 - height / 2 for at in range(len(rows))], [f"{row.scenario}" for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=0.01)
    axes.set_xlabel("÷ mosquitto of the same run (left is cheaper)")
    axes.legend(loc="best")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def write_readme(text: str, path: Path) -> None:
    """Replace what stands between the two marks in *path* by *text*."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} lacks the marks {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
