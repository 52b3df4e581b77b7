"""What the load generator notices, shown with a broker that misbehaves on purpose."""

import socket
import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the load generator is built on epoll", allow_module_level=True)

from bench_fake_broker import FakeBroker
from click.testing import CliRunner

from mqttcore.bench.run import LoadError, Options, Report, run_scenario
from mqttcore.bench.scenarios import SCENARIOS
from mqttcore.cli.bench import bench

COUNT = 200
PATIENCE_S = 60.0  # with a broker that answers: a silence is the machine's
SILENCE_S = 2.0  # after which what is missing counts as lost


def run(broker: FakeBroker, name: str = "one2one", **more: object) -> Report:
    with broker.running():
        changes: dict[str, object] = {"count": COUNT, "stall_s": PATIENCE_S, **more}
        return run_scenario(name, Options("127.0.0.1", broker.port, **changes))  # type: ignore[arg-type]


def faults(report: Report) -> tuple[int, int, int, int]:
    return report.lost, report.duplicated, report.reordered, report.foreign


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("name", ["one2one", "pairs", "fanout"])
def test_faithful_broker_is_found_correct(name: str, qos: int) -> None:
    clients = None if name == "one2one" else 5
    broker = FakeBroker()
    report = run(broker, name, qos=qos, clients=clients)
    copies = 5 if name == "fanout" else 1
    assert faults(report) == (0, 0, 0, 0)
    assert report.is_correct
    assert report.messages == COUNT * copies
    assert broker.published == COUNT
    assert report.p50_us > 0
    # Acknowledgements of both legs: PUBACK from subscribers; PUBREC, PUBCOMP from subscribers, PUBREL from publishers.
    expected = {0: (0, 0, 0, 0), 1: (COUNT * copies, 0, 0, 0), 2: (0, COUNT * copies, COUNT, COUNT * copies)}[qos]
    assert tuple(broker.packets[kind] for kind in (4, 5, 6, 7)) == expected


def test_dropped_message_is_lost() -> None:
    report = run(FakeBroker(forward=lambda number, packet: [] if number == 50 else [packet]), stall_s=SILENCE_S)
    assert faults(report) == (1, 0, 0, 0)
    assert not report.is_correct


def test_message_sent_twice_is_duplicated() -> None:
    report = run(FakeBroker(forward=lambda number, packet: [packet] * (2 if number == 50 else 1)))
    assert faults(report) == (0, 1, 0, 0)


def test_message_held_back_is_reordered() -> None:
    held: list[bytes] = []

    def swap(number: int, packet: bytes) -> list[bytes]:
        if number == 50:
            held.append(packet)
            return []
        return [packet, held.pop()] if held else [packet]

    assert faults(run(FakeBroker(forward=swap))) == (0, 0, 1, 0)


def test_other_size_and_other_content_are_foreign_and_the_original_lost() -> None:
    def damage(number: int, packet: bytes) -> list[bytes]:
        return {50: [packet + b"!"], 51: [bytes(len(packet))]}.get(number, [packet])

    assert faults(run(FakeBroker(forward=damage), stall_s=SILENCE_S)) == (2, 0, 0, 2)


def test_lower_qos_than_granted_is_foreign() -> None:
    report = run(FakeBroker(qos=0), qos=1, stall_s=SILENCE_S)
    assert (report.lost, report.foreign) == (COUNT, COUNT)


def test_loss_without_count_is_found_when_draining() -> None:
    broker = FakeBroker(forward=lambda number, packet: [] if number == 50 else [packet])
    report = run(broker, count=None, duration_s=1.0, warm_up_s=0.0, stall_s=SILENCE_S)
    assert faults(report) == (1, 0, 0, 0)
    assert broker.published > 100


def test_full_window_with_silent_broker_is_a_stall() -> None:
    with pytest.raises(LoadError, match=r"stalled: nothing heard for 0\.5 s .* 4 messages in flight"):
        run(FakeBroker(is_silent=True), "pairs", clients=1, stall_s=0.5)


def test_missing_acknowledgement_is_not_mistaken_for_success() -> None:
    with pytest.raises(LoadError, match="all messages arrived, but 200 were never acknowledged"):
        run(FakeBroker(answers_publish=False), qos=1, stall_s=SILENCE_S)


def test_closed_connection_ends_the_run() -> None:
    with pytest.raises(LoadError, match=r"client 0: the broker closed the connection|reset by peer|Broken pipe"):
        run(FakeBroker(closes_at=20))


def test_refused_connection_ends_the_run() -> None:
    with pytest.raises(LoadError, match="CONNACK refused the connection with code 0x05"):
        run(FakeBroker(connack=b"\x20\x02\x00\x05"))


def test_refused_subscription_ends_the_run() -> None:
    with pytest.raises(LoadError, match="SUBACK refused a subscription with code 0x80"):
        run(FakeBroker(granted=0x80))


def test_nobody_listening_ends_the_run() -> None:
    with socket.socket() as bound:  # bound, not listening: nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(LoadError, match="Connection refused"):
            run_scenario("pairs", Options("127.0.0.1", bound.getsockname()[1], clients=1))


def test_receive_maximum_of_the_broker_bounds_the_window() -> None:
    # Receive Maximum 2 behind a User Property and Maximum QoS.
    properties = b"\x26\x00\x01a\x00\x01b" + b"\x24\x01" + b"\x21\x00\x02"
    connack = b"\x20" + bytes([3 + len(properties), 0, 0, len(properties)]) + properties
    broker = FakeBroker(version=5, connack=connack)
    report = run(broker, qos=2, version=5)
    assert report.is_correct
    assert 1 <= broker.most_unacknowledged <= 2


def test_ingest_is_fenced_by_pings() -> None:
    broker = FakeBroker()
    report = run(broker, "ingest", clients=2)
    assert (report.messages, broker.published) == (COUNT, COUNT)
    assert broker.packets[12] == COUNT / 20


def test_open_loop_latency_counts_from_the_scheduled_time() -> None:
    held: list[bytes] = []

    def hold(number: int, packet: bytes) -> list[bytes]:
        held.append(packet)
        if number < 100:
            return []
        released = held[:]
        held.clear()
        return released

    # One pair, 1,000 a second: the first message is held for 100 ms, and nobody waits for it to send the next.
    broker = FakeBroker(forward=hold)
    report = run(broker, "latency", count=None, clients=1, rate=1000.0, warm_up_s=0.0, duration_s=1.0)
    assert report.is_correct
    assert broker.published >= 150
    assert report.p999_us >= 95_000


def test_open_loop_has_the_rate_whatever_the_batch() -> None:
    broker = FakeBroker()
    report = run(broker, "latency", count=None, clients=2, batch=50, rate=1000.0, warm_up_s=0.0, duration_s=1.0)
    assert report.is_correct
    assert broker.published % 50 == 0
    # it lasts as long as the machine makes it, and may end before the last ones are sent
    assert 500 <= broker.published <= 1000 * report.seconds + 100


@pytest.mark.parametrize(("name", "batch"), [("pairs", 5), ("idle", 2)])
def test_batch_beyond_the_window_is_an_error(name: str, batch: int) -> None:
    with pytest.raises(ValueError, match=f"{batch} messages a write"):
        run(FakeBroker(), name, count=None, batch=batch)


def test_measuring_is_bracketed_by_the_hooks() -> None:
    calls: list[str] = []
    with FakeBroker().running() as broker:
        options = Options("127.0.0.1", broker.port, count=10)
        run_scenario("one2one", options, lambda: calls.append("begin"), lambda: calls.append("end"))
    assert calls == ["begin", "end"]


def test_command_exits_with_1_on_loss_and_0_without() -> None:
    arguments = ["one2one", "--duration", "0.1", "--warm-up", "0", "--json", "--port"]
    with FakeBroker().running() as broker:
        result = CliRunner().invoke(bench, [*arguments, str(broker.port)])
        assert result.exit_code == 0, result.output
        assert '"lost": 0' in result.output
    with FakeBroker(forward=lambda number, packet: [packet] if number else []).running() as broker:
        result = CliRunner().invoke(bench, [*arguments, str(broker.port)])
        assert result.exit_code == 1
        assert '"lost": 1' in result.output


def test_command_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    result = CliRunner().invoke(bench, ["pairs"])
    assert result.exit_code == 1
    assert result.output.splitlines() == ["Error: bench needs Linux: its load generator is built on epoll"]


def test_command_lists_scenarios() -> None:
    result = CliRunner().invoke(bench, ["list"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == len(SCENARIOS)
