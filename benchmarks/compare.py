"""Compare mqttcore with other brokers: CPU time per message, in interleaved runs, beside mosquitto. See README.md."""

import atexit
import functools
import os
import platform
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

import report
from goals import GOALS
from mqttcore.bench.accounting import cpu_seconds, rss_bytes
from mqttcore.bench.loadgen import LoadError
from mqttcore.bench.run import Options, run_scenario
from mqttcore.bench.scenarios import SCENARIOS
from peers import OURS, Peer, PeerError, available
from samples import Sample, rows
from syscalls import TOTAL, SyscallCount

HERE = Path(__file__).parent


@click.command()
@click.option("--scenarios", default=",".join(SCENARIOS), help="Names with commas between.  [default: all]")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=3.0, show_default=True, type=click.FloatRange(0.05), help="Measured time of a run.")
@click.option("--warm-up", default=1.0, show_default=True, type=click.FloatRange(0))
@click.option("--clients", type=click.IntRange(1), help="For scenarios that can be resized; not comparable then.")
@click.option("--peers", "names", default="", help="Names with commas between.  [default: all that are installed]")
@click.option("--peer", "extra", multiple=True, metavar="NAME=COMMAND", help="Another broker, or another command.")
@click.option("--ours-only", is_flag=True, help="Measure mqttcore alone: no ratios.")
@click.option("--pid", type=int, help="With --ours-only: a broker that runs already, together with --port.")
@click.option("--port", type=click.IntRange(1, 65535))
@click.option("--cores", default="0,1", show_default=True, help="Core of the broker, core of the generator.")
@click.option("--syscalls", is_flag=True, help="Afterwards, one more run of ours under a tracer: calls per message.")
@click.option("--results", default=HERE / "results", type=click.Path(path_type=Path), help="Folder for CSV and plot.")
@click.option("--write-readme", is_flag=True, help="Put the table into README.md.")
@click.option("--dry-run", is_flag=True, help="Say what would be run.")
def compare(
    scenarios: str,
    rounds: int,
    seconds: float,
    warm_up: float,
    clients: int | None,
    names: str,
    extra: tuple[str, ...],
    ours_only: bool,
    pid: int | None,
    port: int | None,
    cores: str,
    syscalls: bool,
    results: Path,
    write_readme: bool,
    dry_run: bool,
) -> None:
    """Measure brokers in interleaved rounds and print medians, ratios to mosquitto, and goals.

    Exits with 1 when mqttcore failed a scenario. Missed goals are shown only: other work on the machine
    shifts them.
    """
    wanted = [name for name in scenarios.split(",") if name]
    if unknown := [name for name in wanted if name not in SCENARIOS]:
        raise click.UsageError(f"no scenarios {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    broker_core, generator_core = _cores(cores)
    peers = _peers(names, extra, ours_only, pid, port)
    for line in facts(peers):
        click.echo(line)
    if dry_run:
        for name in wanted:
            click.echo(f"{name}: {rounds} x ({', '.join(peer.name for peer in peers)}), {SCENARIOS[name].summary}")
        return
    # Brokers inherit it: `idle` holds 10,000 connections.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if generator_core is not None:
        os.sched_setaffinity(0, {generator_core})
    samples: list[Sample] = []
    for name in wanted:
        resized = clients if SCENARIOS[name].counts else None
        for number in range(rounds):
            # A B, B A, …: whoever comes first has no standing advantage.
            for peer in peers if number % 2 == 0 else peers[::-1]:
                folder = certificates() if SCENARIOS[name].is_tls else None
                sample = measure(peer, name, number, seconds, warm_up, resized, broker_core, folder)
                samples.append(sample)
                click.echo(_progress(sample), err=True)
    outcome = rows(samples)
    text = report.table(outcome)
    click.echo(text)
    results.mkdir(parents=True, exist_ok=True)
    report.write_csv(samples, results / "compare.csv")
    is_drawn = report.plot(outcome, results / "compare.svg")
    click.echo(
        f"written: compare.csv{', compare.svg' if is_drawn else ' (no plot: that needs mosquitto and matplotlib)'}",
        err=True,
    )
    if write_readme:
        listed = "\n".join(f"- {line}" for line in facts(peers))
        picture = "\n\n![÷ mosquitto](results/compare.svg)" if is_drawn else ""
        report.write_readme(f"{listed}\n- {rounds} rounds of {seconds:g} s\n\n{text}{picture}", HERE / "README.md")
    ours = [peer for peer in peers if peer.name == OURS]
    if syscalls and ours:
        for name in wanted:
            click.echo(count_syscalls(ours[0], name, seconds, broker_core))
    if any(not sample.is_good for sample in samples if sample.peer == OURS):
        raise SystemExit(1)


def _cores(text: str) -> tuple[int | None, int | None]:
    try:
        broker, generator = (int(core) for core in text.split(","))
    except ValueError:
        raise click.UsageError("--cores takes two numbers with a comma between") from None
    if {broker, generator} <= os.sched_getaffinity(0) and broker != generator:
        return broker, generator
    click.echo(f"not pinned: cores {text} are not both ours to use, figures mean little", err=True)
    return None, None


def _peers(names: str, extra: tuple[str, ...], ours_only: bool, pid: int | None, port: int | None) -> list[Peer]:
    if pid is not None or port is not None:
        if not (ours_only and pid is not None and port is not None):
            raise click.UsageError("--pid and --port belong together, and to --ours-only")
        return [Peer(OURS, "", (pid, port))]
    added = {}
    for entry in extra:
        name, equals, command = entry.partition("=")
        if not equals:
            raise click.UsageError(f"--peer takes NAME=COMMAND, not {entry!r}")
        added[name] = command
    wanted = [OURS] if ours_only else [name for name in names.split(",") if name]
    try:
        return available(wanted, added)
    except PeerError as error:
        raise click.UsageError(str(error)) from error


def facts(peers: list[Peer]) -> Iterator[str]:
    """Yield what somebody who reads the figures must know about where they come from."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    yield f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    yield f"load average when started: {os.getloadavg()[0]:.2f}"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    yield f"brokers: {', '.join(peer.name for peer in peers)}; commit {commit.stdout.strip() or 'unknown'}"


def measure(
    peer: Peer,
    name: str,
    number: int,
    seconds: float,
    warm_up: float,
    clients: int | None,
    core: int | None,
    folder: Path | None,
) -> Sample:
    """Start *peer* afresh, run the scenario once, return what it cost. Failures become part of the sample.

    folder: certificates, for a scenario over TLS.
    """
    seen: list[tuple[float, int]] = []
    try:
        with peer.running(core, folder, is_websocket=SCENARIOS[name].is_websocket, is_p2p=SCENARIOS[name].is_p2p) as (
            pid,
            port,
        ):

            def look() -> None:
                seen.append((cpu_seconds(pid), rss_bytes(pid)))

            tls = None if folder is None else ssl.create_default_context(cafile=str(folder / "ca.crt"))
            options = Options("127.0.0.1", port, clients=clients, duration_s=seconds, warm_up_s=warm_up, tls=tls)
            got = run_scenario(name, options, look, look)
    except (LoadError, PeerError, OSError) as error:
        return Sample(name, peer.name, number, error=str(error))
    if not got.messages:
        return Sample(name, peer.name, number, error="no message arrived")
    cpu_s = seen[1][0] - seen[0][0]
    cpu_us = cpu_s * 1e6 / got.messages
    rss = (seen[1][1] - seen[0][1]) / got.messages
    figure = {"idle": rss, "idle_tls": rss, "latency": got.p50_us}.get(name, cpu_us)
    return Sample(
        scenario=name,
        peer=peer.name,
        round=number,
        figure=figure,
        broker_cpu_us=cpu_us,
        generator_cpu_us=got.generator_cpu_s * 1e6 / got.messages,
        broker_share=cpu_s / got.seconds,
        messages=got.messages,
        seconds=got.seconds,
        rate=got.rate,
        p50_us=got.p50_us,
        p99_us=got.p99_us,
        p999_us=got.p999_us,
        lost=got.lost,
        duplicated=got.duplicated,
        reordered=got.reordered,
        foreign=got.foreign,
    )


@functools.cache
def certificates() -> Path:
    """Return a folder with a CA and the server's certificate and key, made for this run."""
    folder = Path(tempfile.mkdtemp(prefix="mqttcore-compare-certs-"))
    atexit.register(shutil.rmtree, folder)
    subprocess.run([sys.executable, "-m", "mqttcore", "certs", str(folder)], check=True, capture_output=True)
    return folder


def _progress(sample: Sample) -> str:
    head = f"{sample.scenario} {sample.round + 1} {sample.peer}: "
    if sample.error:
        return head + sample.error
    wrong = f", lost {sample.lost} duplicated {sample.duplicated} reordered {sample.reordered} foreign {sample.foreign}"
    return (
        head
        + f"{sample.figure:.3f} {GOALS[sample.scenario].unit}, {sample.rate:.0f}/s, broker {sample.broker_share:.0%}, "
        f"generator {sample.generator_cpu_us:.2f} µs" + ("" if sample.is_good else wrong)
    )


def count_syscalls(peer: Peer, name: str, seconds: float, core: int | None) -> str:
    """Run the scenario once more under a tracer and return a line of calls per message, commonest first."""
    calls: Counter[str] = Counter()
    folder = certificates() if SCENARIOS[name].is_tls else None
    tls = None if folder is None else ssl.create_default_context(cafile=str(folder / "ca.crt"))
    try:
        with peer.running(core, folder, is_websocket=SCENARIOS[name].is_websocket, is_p2p=SCENARIOS[name].is_p2p) as (
            pid,
            port,
        ):
            counter = SyscallCount(pid)
            if counter.tool is None:
                return f"{name}: system calls not counted, neither perf nor strace is installed"
            options = Options("127.0.0.1", port, duration_s=seconds, tls=tls)
            got = run_scenario(name, options, counter.start, lambda: calls.update(counter.stop()))
    except (LoadError, PeerError, OSError, subprocess.TimeoutExpired) as error:
        return f"{name}: system calls not counted, {error}"
    if not calls or not got.messages:
        return f"{name}: {counter.tool} counted nothing; it may lack the right to trace"
    each = ", ".join(f"{call} {count / got.messages:.3f}" for call, count in calls.most_common(7) if call != TOTAL)
    return f"{name}: {calls[TOTAL] / got.messages:.3f} system calls a message ({each}), {counter.tool}"


if __name__ == "__main__":
    sys.exit(compare())
