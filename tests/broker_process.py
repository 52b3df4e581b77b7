"""A broker in a process of its own, on a port that the system chose.

MQTTCORE_TEST_BROKER=mosquitto runs Debian's mosquitto in its place, to tell a fault of the broker from one of a test.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_DEADLINE_S = 60  # what is waited for comes in milliseconds; a machine may have other things to do
STOP_DEADLINE_S = 60
LISTENING = re.compile(r"listening on (?P<host>\S+):(?P<port>\d+) \((?P<protocol>mqtt|http)( over TLS)?\)")
# What must not stand in a broker's stderr, however it ended.
FAULTS = ("Traceback", "Task was destroyed", "was never awaited", "never retrieved", "ResourceWarning", "Segmentation")
MOSQUITTO_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 100
sys_interval 1
listener {websocket_port} 127.0.0.1
protocol websockets
"""
# One listener for MQTT and one for HTTP with WebSocket.
BOTH_LISTENERS = """\
[[listeners]]
name = "tcp"
port = 0
[[listeners]]
name = "web"
port = 0
protocol = "http"
"""


def broker_kind() -> str:
    return os.environ.get("MQTTCORE_TEST_BROKER", "mqttcore")


@dataclass
class BrokerProcess:
    """A running broker. port: of its first listener; websocket_port: of the one that speaks HTTP, 0 without.

    ports: of all listeners that mqttcore announced, in their order. errors: what it has written to stderr so far.
    """

    kind: str
    process: subprocess.Popen[str]
    host: str
    port: int
    websocket_port: int = 0
    ports: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def rss_bytes(self) -> int:
        """Resident memory, now (Linux)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def reserved_port() -> Iterator[int]:
    """Give a port of loopback to a program that cannot tell which one the system chose.

    It stays bound here, without listening: the system gives it to nobody else, and who sets SO_REUSEADDR, as servers
    do, can listen on it.
    """
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def _command(kind: str, folder: Path, config: str | None, held: ExitStack) -> tuple[list[str], int, int]:
    """Return the command line and the two ports in it, which *held* holds; 0 when the broker will tell its ports."""
    if kind == "mosquitto":
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        port, websocket_port = (held.enter_context(reserved_port()) for _ in range(2))
        path = folder / "mosquitto.conf"
        path.write_text(MOSQUITTO_CONFIG.format(port=port, websocket_port=websocket_port))
        return [program, "-c", str(path)], port, websocket_port
    command = [
        sys.executable,
        "-W",
        "always::ResourceWarning",
        "-X",
        "faulthandler",
        "-m",
        "mqttcore",
        "serve",
    ]
    config = config or ""
    if "[[listeners]]" not in config:
        command += ["--port", "0"]
    if "overload_lag_ms" not in config:
        config = f"overload_lag_ms = 0  # a busy machine is no reason to refuse a client\n{config}"
    path = folder / "broker.toml"
    path.write_text(config)
    return [*command, "--config", str(path)], 0, 0


def _wait_for_port(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except ConnectionRefusedError:
            time.sleep(0.01)  # mosquitto says nothing on stdout that could be awaited
    raise AssertionError("mosquitto does not listen")


@contextmanager
def running_broker(folder: Path, config: str | None = None, kind: str | None = None) -> Iterator[BrokerProcess]:
    """Start a broker, stop it by SIGTERM, and insist on exit code 0 and a clean stderr.

    folder: where its files go. config: TOML for mqttcore; mosquitto always has its own.
    """
    kind = kind or broker_kind()
    held = ExitStack()
    command, port, websocket_port = _command(kind, folder, config, held)
    announced = max(1, (config or "").count("[[listeners]]"))
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    broker = BrokerProcess(kind, process, "127.0.0.1", port, websocket_port)
    assert process.stdout
    assert process.stderr
    readers = [threading.Thread(target=broker.errors.extend, args=(process.stderr,))]
    readers[0].start()
    try:
        # A broker that neither prints nor ends is cut short, so readline() has a deadline.
        watchdog = threading.Timer(START_DEADLINE_S, process.kill)
        watchdog.start()
        try:
            if port:
                _wait_for_port(port, process)
                _wait_for_port(websocket_port, process)
            else:
                for _ in range(announced):
                    line = process.stdout.readline()
                    match = LISTENING.search(line)
                    assert match, (
                        f"the broker printed {line!r} and not where it listens\n{_ended(process, broker, readers)}"
                    )
                    broker.host = match["host"]
                    broker.port = broker.port or int(match["port"])
                    broker.ports.append(int(match["port"]))
                    if match["protocol"] == "http":
                        broker.websocket_port = int(match["port"])
        finally:
            watchdog.cancel()
        readers.append(threading.Thread(target=process.stdout.read))  # or its pipe fills
        readers[1].start()
        yield broker
        process.terminate()
        code = process.wait(STOP_DEADLINE_S)
    finally:
        process.kill()
        process.wait()
        for reader in readers:
            reader.join()
        process.stdout.close()
        process.stderr.close()
        held.close()
    text = "".join(broker.errors)
    assert code == 0, f"the broker ended with {code}\n{text}"
    found = [fault for fault in FAULTS if fault in text]
    assert not found, f"the broker's stderr has {found}\n{text}"


def _ended(process: subprocess.Popen[str], broker: BrokerProcess, readers: list[threading.Thread]) -> str:
    process.kill()
    process.wait()
    readers[0].join()
    return "".join(broker.errors)
