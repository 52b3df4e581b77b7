"""Labels of the standard, what statements/*.toml says of them, the tests that carry them: docs/conformance.md.

Everything here is read from files and from the marks of the test functions, without running them; only the last column
of the report comes from a run.
"""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

HERE = Path(__file__).parent
WRITTEN = HERE.parents[1] / "docs" / "conformance.md"

TITLES = {"mqtt3": "MQTT 3.1.1", "mqtt5": "MQTT 5.0"}
COMPLETE = ("mqtt3", "mqtt5")

HEAD = """\
# Conformance

Every labelled statement of the MQTT standards, what this broker does about it, and the tests that prove it.
The wording is ours; the standard's stands under its label. Labels are printed as the standard prints them in its text.

This page is generated: `pytest tests/conformance --conformance-report`.
"""
RESULTS = "Results: "


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What we say of one label.

    reason: why there is no test. pending: not obeyed yet, and known. setting: keys of the configuration, after commas.
    """

    side: str
    behaviour: str = ""
    reason: str = ""
    choice: str = ""
    setting: str = ""
    pending: bool = False

    @property
    def settings(self) -> list[str]:
        """The keys that change what was chosen."""
        return [key.strip() for key in self.setting.split(",") if key.strip()]

    @property
    def needs_test(self) -> bool:
        """Whether the server is bound and does what it says."""
        return self.side != "client" and not self.pending


def in_order(labels: Iterable[str]) -> list[str]:
    """Return labels sorted by their numbers."""
    return sorted(labels, key=lambda label: [int(number) for number in re.findall(r"\d+", label)])


def read_labels() -> dict[str, dict[str, str]]:
    """Return {"mqtt3": {label: section}, "mqtt5": …}: all that the standards have."""
    return json.loads((HERE / "labels.json").read_text(encoding="utf-8"))


def read_statements(folder: Path = HERE / "statements") -> dict[str, dict[str, Statement]]:
    """Return {"mqtt3": {label: Statement}, …} of all files; a label that stands twice is a ValueError."""
    statements: dict[str, dict[str, Statement]] = {version: {} for version in TITLES}
    for path in sorted(folder.glob("*.toml")):
        for version, entries in tomllib.loads(path.read_text(encoding="utf-8")).items():
            for label, entry in entries.items():
                if label in statements[version]:
                    raise ValueError(f"{path.name}: {version} {label} is in another file as well")
                statements[version][label] = msgspec.convert(entry, Statement)
    return statements


def _marks_of(test: Any) -> Iterator[pytest.Mark]:
    for mark in getattr(test, "pytestmark", ()):
        yield mark
        if mark.name == "parametrize":
            for row in mark.args[1]:
                yield from getattr(row, "marks", ())


def read_proofs() -> dict[str, dict[str, list[str]]]:
    """Return {"mqtt3": {label: ["test_file.py::test_name", …]}, …} from the marks of all tests in this folder."""
    proofs: dict[str, dict[str, list[str]]] = {version: {} for version in TITLES}
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"{HERE.name}.{path.stem}")
        for name, test in vars(module).items():
            if not name.startswith("test_"):
                continue
            for mark in _marks_of(test):
                if mark.name in proofs:
                    for label in mark.args:
                        tests = proofs[mark.name].setdefault(label, [])
                        if (test_id := f"{path.name}::{name}") not in tests:
                            tests.append(test_id)
    return proofs


def id_of_test(node_id: str) -> str:
    """Return "test_file.py::test_name" of pytest's node id."""
    return node_id.partition("[")[0].rpartition("/")[2]


def result_of(tests: Iterable[str], results: Mapping[str, str]) -> str:
    """Return the worst result of *tests*, "not run" where one did not run."""
    found = {results.get(test, "not run") for test in tests}
    return next(result for result in ("failed", "skipped", "not run", "passed") if result in found)


def _cell(text: str) -> str:
    return text.strip().replace("\n", " ").replace("|", "\\|")


def _tests_cell(tests: Iterable[str]) -> str:
    return "<br>".join(f"[{name}](../tests/conformance/{file})" for file, _, name in (t.partition("::") for t in tests))


def _rows(version: str, results: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield label, section, side, behaviour, tests, result."""
    statements = read_statements()[version]
    proofs = read_proofs()[version]
    for label, section in read_labels()[version].items():
        statement = statements[label]
        tests = proofs.get(label, [])
        if statement.pending:
            result = "pending"
        elif tests:
            result = result_of(tests, results)
        else:
            result = "binds clients"
        said = " ".join(filter(None, [statement.behaviour, statement.reason]))
        yield label, section, statement.side, _cell(said), _tests_cell(tests), result


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def render(results: Mapping[str, str]) -> str:
    """Return the report. results: {"test_file.py::test_name": "passed" | "failed" | "skipped"}, of a run or empty."""
    parts = [HEAD]
    for version in COMPLETE:
        statements = read_statements()[version]
        rows = list(_rows(version, results))
        sides = [f"{sum(s.side == side for s in statements.values())} {side}" for side in ("server", "both", "client")]
        pending = sum(s.pending for s in statements.values())
        parts.append(f"\n## {TITLES[version]}\n\n{len(rows)} statements: {', '.join(sides)}; {pending} pending.\n")
        counts = {row[-1]: sum(other[-1] == row[-1] for other in rows) for row in rows}
        parts.append(f"{RESULTS}{', '.join(f'{counts[result]} {result}' for result in sorted(counts))}.\n\n")
        parts.append(_table(("Label", "§", "Side", "What we do", "Tests", "Result"), rows))
        choices = [
            (label, _cell(statement.choice or statement.behaviour), ", ".join(f"`{key}`" for key in statement.settings))
            for label, statement in ((label, statements[label]) for label in in_order(statements))
            if statement.choice or statement.settings
        ]
        parts.append(f"\n### Where {TITLES[version]} leaves a choice, or a setting changes what we do\n\n")
        parts.append(_table(("Label", "What we chose", "Setting"), choices))
    return "".join(parts)


def without_results(report: str) -> str:
    """Return a report as it is before a run: everything but the results."""
    lines = [line for line in report.splitlines(keepends=True) if not line.startswith(RESULTS)]
    return "".join(re.sub(r"\| (passed|failed|skipped|not run) \|$", "| |", line) for line in lines)
