"""Every scenario once, small, against mosquitto."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the load generator is built on epoll", allow_module_level=True)

from mqttcore.bench.accounting import cpu_seconds, process_tree, rss_bytes
from mqttcore.bench.run import LoadError, Options, run_scenario
from mqttcore.bench.scenarios import SCENARIOS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not shutil.which("mosquitto", path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin"), reason="mosquitto is missing"
    ),
]


@pytest.fixture(scope="module")
def websocket_broker() -> Iterator[tuple[int, int]]:
    """The same of a mosquitto that speaks WebSocket."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.syspath_prepend(BENCHMARKS)
        from peers import COMMANDS, Peer

        yield stack.enter_context(Peer("mosquitto", COMMANDS["mosquitto"]).running(None, is_websocket=True))


@pytest.fixture(scope="module")
def broker() -> Iterator[tuple[int, int]]:
    """The process id and port of a mosquitto."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.syspath_prepend(BENCHMARKS)
        from peers import COMMANDS, Peer  # type: ignore[import-not-found]

        yield stack.enter_context(Peer("mosquitto", COMMANDS["mosquitto"]).running(None))


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_runs_and_nothing_is_lost(
    name: str, broker: tuple[int, int], websocket_broker: tuple[int, int]
) -> None:
    pid, port = websocket_broker if SCENARIOS[name].is_websocket else broker
    looks: list[float] = []
    kind = name.removesuffix("_tls")
    is_counted = kind not in ("idle", "latency")
    options = Options(
        "127.0.0.1",
        port,
        clients=3 if SCENARIOS[name].counts else None,
        count=600 if is_counted else None,
        duration_s=1.0 if kind == "latency" else 0.2,
        stall_s=60.0,
        warm_up_s=0.0,
        rate=500.0,
    )
    report = run_scenario(name, options, *[lambda: looks.append(cpu_seconds(pid))] * 2)
    assert report.is_correct, report
    assert len(looks) == 2
    assert looks[0] <= looks[1]
    copies = {"fanout": 3, "fanout_q1": 3, "wild": 10}.get(kind, 1)
    if kind == "idle":
        assert report.messages == 3
    elif kind == "latency":
        assert report.messages >= 50
    elif kind in ("retain", "connect"):
        assert report.messages >= 600
    else:
        assert report.messages == 600 * copies


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [4, 5])
def test_version_qos_and_payload_can_be_chosen(version: int, qos: int, broker: tuple[int, int]) -> None:
    options = Options(
        "127.0.0.1", broker[1], version=version, qos=qos, payload=5000, clients=2, count=100, stall_s=60.0
    )
    report = run_scenario("pairs", options)
    assert report.is_correct, report
    assert (report.version, report.qos, report.payload, report.messages) == (version, qos, 5000, 100)


@pytest.mark.parametrize("payload", [24, 100, 70_000])
def test_every_length_of_websocket_frames(payload: int, websocket_broker: tuple[int, int]) -> None:
    options = Options("127.0.0.1", websocket_broker[1], qos=1, payload=payload, clients=2, count=200, stall_s=60.0)
    report = run_scenario("pairs_ws", options)
    assert report.is_correct, report
    assert report.messages == 200


def test_broker_without_websocket_is_an_error(broker: tuple[int, int]) -> None:
    options = Options("127.0.0.1", broker[1], clients=1, count=1, stall_s=5.0)
    with pytest.raises(LoadError, match=r"closed the connection|reset by peer|did not agree"):
        run_scenario("pairs_ws", options)


def test_accounting_sees_the_process(broker: tuple[int, int]) -> None:
    pid = broker[0]
    assert process_tree(pid)[0] == pid
    assert rss_bytes(pid) > 1_000_000
    assert cpu_seconds(pid) >= 0
