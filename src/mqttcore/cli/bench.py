"""`mqttcore bench`: measure a broker with one scenario, and check that it lost, doubled and swapped nothing."""

import json
import sys
from typing import Any

import click

from mqttcore.cli.tls_options import client_context, tls_options

__all__ = ["bench"]


@click.command()
@click.argument("scenario")
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or IPv4 address of the broker.")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port.  [default: 1883, with TLS 8883]")
@click.option("--version", type=click.Choice(["4", "5"]), help="Protocol: 4 is 3.1.1.  [default: the scenario's]")
@click.option("--qos", type=click.IntRange(0, 2), help="QoS of both legs.  [default: the scenario's]")
@click.option("--payload", default=64, show_default=True, type=click.IntRange(24, 1 << 27), help="Bytes a message.")
@click.option("--clients", type=click.IntRange(1), help="Pairs, publishers, subscribers or connections.")
@click.option("--batch", type=click.IntRange(1), help="Messages a write.  [default: the scenario's]")
@click.option("--duration", default=5.0, show_default=True, type=click.FloatRange(0.01), help="Seconds to measure.")
@click.option("--warm-up", default=1.0, show_default=True, type=click.FloatRange(0), help="Seconds before that.")
@click.option("--count", type=click.IntRange(1), help="Messages to publish, instead of a duration.")
@click.option("--rate", default=5000.0, show_default=True, type=click.FloatRange(1), help="`latency`: messages/s.")
@click.option("--websocket", "websocket_path", metavar="PATH", help="In WebSocket at PATH, often /mqtt.")
@click.option("--broker-pid", type=int, help="Also print the CPU time and memory of this process and its children.")
@tls_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    scenario: str,
    host: str,
    port: int | None,
    version: str | None,
    qos: int | None,
    payload: int,
    clients: int | None,
    batch: int | None,
    duration: float,
    warm_up: float,
    count: int | None,
    rate: float,
    websocket_path: str | None,
    broker_pid: int | None,
    as_json: bool,
    **tls: Any,
) -> None:
    """Measure the broker at HOST:PORT with SCENARIO; `bench list` names the scenarios.

    Exits with 1 when a message was lost, duplicated, reordered or went astray, or when the broker gave up.
    """
    if not sys.platform.startswith("linux"):
        raise click.ClickException("bench needs Linux: its load generator is built on epoll")
    from mqttcore.bench.accounting import cpu_seconds, rss_bytes
    from mqttcore.bench.run import LoadError, Options, run_scenario
    from mqttcore.bench.scenarios import SCENARIOS

    if scenario == "list":
        for row in SCENARIOS.values():
            click.echo(f"{row.name:<14}{row.summary}")
        return
    if scenario not in SCENARIOS:
        raise click.UsageError(f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    context = client_context(**tls)
    if SCENARIOS[scenario].is_tls and context is None:
        raise click.UsageError(f"{scenario} is run over TLS: --tls or one of its options is needed")
    options = Options(
        host=host,
        port=port or (1883 if context is None else 8883),
        tls=context,
        version=int(version) if version else None,
        qos=qos,
        payload=payload,
        clients=clients,
        batch=batch,
        duration_s=duration,
        warm_up_s=warm_up,
        count=count,
        rate=rate,
        websocket_path=websocket_path,
    )
    seen: list[tuple[float, int]] = []

    def look() -> None:
        if broker_pid is not None:
            seen.append((cpu_seconds(broker_pid), rss_bytes(broker_pid)))

    try:
        report = run_scenario(scenario, options, look, look)
    except (LoadError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    result = report.as_dict()
    if seen and report.messages:
        result["broker_cpu_us"] = (seen[1][0] - seen[0][0]) * 1e6 / report.messages
        result["broker_rss_bytes"] = seen[1][1]
        result["broker_rss_growth_bytes"] = seen[1][1] - seen[0][1]
    click.echo(json.dumps(result) if as_json else _as_text(result))
    if not report.is_correct:
        raise SystemExit(1)


def _as_text(result: dict[str, str | int | float]) -> str:
    values = {name: round(value, 1) if isinstance(value, float) else value for name, value in result.items()}
    lines = [
        "{scenario}: {messages} in {seconds} s, {rate} a second (version {version}, QoS {qos}, {payload} bytes)",
        "lost {lost}, duplicated {duplicated}, reordered {reordered}, foreign {foreign}",
    ]
    if result["p50_us"]:
        lines.append("latency p50 {p50_us} µs, p99 {p99_us} µs, p99.9 {p999_us} µs")
    if "broker_cpu_us" in result:
        values["broker_cpu_us"] = round(float(result["broker_cpu_us"]), 2)
        lines.append("broker: {broker_cpu_us} µs of CPU each, {broker_rss_bytes} bytes resident")
        if result["scenario"] == "idle":
            each = int(result["broker_rss_growth_bytes"]) / int(result["messages"])
            lines.append(f"broker: {each:.0f} bytes a connection")
    return "\n".join(lines).format(**values)
