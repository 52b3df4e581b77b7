"""`mqttcore serve` as a process: what it prints, its signals and exit codes; the broker is a double."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mqttcore._version import __version__

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

DOUBLE = str(Path(__file__).with_name("broker_double.py"))
LISTENING = re.compile(rf"mqttcore {re.escape(__version__)} listening on (\S+):(\d+) \(mqtt\)\n")


@pytest.fixture
def serve():
    processes = []

    def start(*arguments, before=()):
        command = [sys.executable, DOUBLE, *before, "serve", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def listening(process):
    """Return host and port of the next line on standard output."""
    line = process.stdout.readline()
    found = LISTENING.fullmatch(line)
    assert found, (line, process.communicate())
    return found[1], int(found[2])


def line_with(process, text):
    """Return the first line on standard error that has *text* in it."""
    for line in process.stderr:
        if text in line:
            return line
    pytest.fail(f"{text!r} is not in the log")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_prints_the_real_port_and_stops_on_signal(serve, number):
    process = serve("--port", 0)
    host, port = listening(process)
    assert host == "127.0.0.1"
    socket.create_connection((host, port), timeout=60).close()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == ""
    assert "broker_double: stopped\n" in err


def test_one_line_per_listener_and_brackets_around_ipv6(serve, config_file):
    path = config_file('[[listeners]]\nname="a"\nport=0\n[[listeners]]\nname="b"\nhost="::1"\nport=0\n')
    process = serve("--config", path)
    assert [listening(process)[0] for _ in range(2)] == ["127.0.0.1", "[::1]"]
    process.terminate()
    assert process.wait(60) == 0


def test_second_signal_ends_at_once(serve, config_file):
    process = serve("--config", config_file("[[listeners]]\nport=0\n[plugins.slow]\n"))
    listening(process)
    process.terminate()
    line_with(process, "stopping for ever")
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM


def test_ctrl_c_stops_cleanly_where_the_loop_takes_no_signal_handlers(serve, config_file):
    path = config_file('loop = "asyncio"\n[[listeners]]\nport = 0\n')
    process = serve("--config", path, before=["--without-signal-handlers"])
    listening(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.endswith("broker_double: stopped\n")


def test_port_in_use_is_one_line_and_exit_code_1(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = serve("--port", taken.getsockname()[1])
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("mqttcore: ")
    assert "address already in use" in err.lower()
    assert err.count("\n") == 1


def test_plugin_that_does_not_start_is_exit_code_1(serve, config_file):
    process = serve("--config", config_file("[plugins.broken]\n"), "--port", 0)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "mqttcore: plugin broken, hook startup: does not start\n"


@pytest.mark.parametrize(
    ("text", "arguments", "error"),
    [
        ("[limits]\nreceive_maximum = 0\n", [], "limits.receive_maximum: Expected `int` >= 1\n"),
        ('[[listeners]]\nname="a"\n[[listeners]]\nname="b"\nport=0\n', ["--port", 0], "listeners: --host and --port"),
        ("# defaults\n", ["--host", "0.0.0.0", "--port", 0], "listeners[0].host: 0.0.0.0 can be reached by others"),
    ],
)
def test_wrong_configuration_is_exit_code_2(serve, config_file, text, arguments, error):
    process = serve("--config", config_file(text), *arguments)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert error in err


def test_sighup_rereads_the_configuration(serve, config_file):
    path = config_file("[[listeners]]\nport = 0\n")
    process = serve("--config", path)
    listening(process)
    config_file('log_level = "debug"\n[[listeners]]\nport = 0\nbacklog = 10\n')
    process.send_signal(signal.SIGHUP)
    line_with(process, "configuration reread")
    assert "need a restart: listeners" in process.stderr.readline()
    config_file("log_level = 3\n")
    process.send_signal(signal.SIGHUP)
    assert "stays in force" in line_with(process, "log_level: Expected `str`")
    config_file("[[listeners]]\nport = 0\n[plugins.unreloadable]\n")
    process.send_signal(signal.SIGHUP)
    line_with(process, "RuntimeError: no reload of this")
    process.terminate()
    assert process.wait(60) == 0


def test_sighup_without_file_is_harmless(serve):
    process = serve("--port", 0)
    listening(process)
    process.send_signal(signal.SIGHUP)
    line_with(process, "no configuration file to reread")
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.parametrize(("choice", "module"), [("asyncio", "asyncio.unix_events"), ("uvloop", "uvloop")])
def test_loop_is_the_configured_one(serve, config_file, choice, module):
    process = serve("--config", config_file(f'loop = "{choice}"\nlog_format = "json"\n[[listeners]]\nport = 0\n'))
    listening(process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    records = [json.loads(line) for line in err.splitlines()]
    assert [record["message"] for record in records] == [f"started on {module}", "stopped"]
    assert {record["level"] for record in records} == {"info"}


def test_log_level_option_overrides_the_file(serve, config_file):
    process = serve("--config", config_file('log_level = "debug"\n[[listeners]]\nport = 0\n'), "--log-level", "error")
    listening(process)
    process.terminate()
    assert process.communicate(timeout=60)[1] == ""
