"""Medians, ratios and what is written, without a broker."""

import csv
import shlex
import socket
import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the load generator is built on epoll", allow_module_level=True)

from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_ratio_is_the_median_of_rounds_and_failures_do_not_count() -> None:
    from samples import Sample, rows  # type: ignore[import-not-found]

    samples = [
        Sample("pairs", peer, number, figure=figure)
        for peer, figures in {"mqttcore": (1.0, 4.0, 9.0), "mosquitto": (10.0, 10.0, 10.0)}.items()
        for number, figure in enumerate(figures)
    ]
    samples.append(Sample("pairs", "nanomq", 0, error="did not start"))
    (row,) = rows(samples)
    assert row.ratio == pytest.approx(0.4)
    assert row.figures == {"mqttcore": 4.0, "mosquitto": 10.0}
    assert row.failed == ["nanomq"]
    assert row.is_met
    (row,) = rows([*samples, Sample("pairs", "mqttcore", 3, figure=1.0, lost=1)])
    assert row.is_met is False  # a broker that loses messages meets no goal
    (row,) = rows([Sample("connect", "mqttcore", 0, figure=31.0)])
    assert (row.ratio, row.is_met) == (None, False)


def test_table_csv_and_readme(tmp_path: Path) -> None:
    import report  # type: ignore[import-not-found]
    from samples import Sample, rows

    samples = [
        Sample("latency", "mosquitto", 0, figure=50.0, p99_us=300.0),
        Sample("latency", "mqttcore", 0, figure=50.0, p99_us=360.0),
    ]
    text = report.table(rows(samples))
    assert text.splitlines()[2] == (
        "| `latency` | µs p50 | 50 / 360 p99 | 50 / 300 p99 | 1.000 / 1.200 | ≤ 1.1 | **no** |"
    )
    report.write_csv(samples, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as lines:
        assert [row["peer"] for row in csv.DictReader(lines)] == ["mosquitto", "mqttcore"]
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_readme("new", readme)
    assert readme.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the marks"):
        report.write_readme("new", readme)


def test_syscalls_are_read_from_perf_and_strace() -> None:
    from syscalls import TOTAL, parse  # type: ignore[import-not-found]

    perf = "1500,,raw_syscalls:sys_enter,473695735,100.00,,\n900,,syscalls:sys_enter_write,1,100.00,,\n"
    perf += "<not counted>,,syscalls:sys_enter_read,0,0.00,,\n0,,syscalls:sys_enter_sendto,1,100.00,,\n"
    assert parse(perf) == {TOTAL: 1500, "write": 900}
    strace = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100        10 read
 40.00    0.000400           4       100           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           5       200        10 total
"""
    assert parse(strace) == {TOTAL: 200, "read": 100, "write": 100}


def test_port_is_read_from_the_line_that_a_broker_prints() -> None:
    from peers import Peer, PeerError  # type: ignore[import-not-found]

    code = "import mqttcore, socket, time; s = socket.create_server(('127.0.0.1', 0)); "
    code += "print('x 1.0 listening on 127.0.0.1:%d (mqtt)' % s.getsockname()[1], flush=True); time.sleep(60)"
    with Peer("ours", shlex.join([sys.executable, "-c", code])).running(None) as (pid, port):
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    assert not Path(f"/proc/{pid}").exists()
    failing = Peer("ours", shlex.join([sys.executable, "-c", "raise SystemExit('no such thing')"]))
    with pytest.raises(PeerError, match="did not start: no such thing"), failing.running(None):
        pass


def test_every_scenario_has_a_goal_and_the_dry_run_names_it() -> None:
    from compare import compare  # type: ignore[import-not-found]
    from goals import GOALS  # type: ignore[import-not-found]
    from mqttcore.bench.scenarios import SCENARIOS

    assert list(GOALS) == list(SCENARIOS)
    result = CliRunner().invoke(compare, ["--ours-only", "--dry-run"])
    assert result.exit_code == 0, result.output
    for name in SCENARIOS:
        assert f"\n{name}: 3 x (mqttcore)" in result.output
    assert CliRunner().invoke(compare, ["--scenarios", "pairs,nonsense", "--dry-run"]).exit_code == 2
    assert CliRunner().invoke(compare, ["--pid", "1", "--dry-run"]).exit_code == 2
