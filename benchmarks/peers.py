"""The brokers that are compared: how each is configured, started on a loopback port, and stopped."""

import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 20.0
STOP_S = 10.0

OURS = "mqttcore"
REFERENCE = "mosquitto"

# Nothing is written to disk, nothing is dropped, every message leaves at once; the rest is as the broker has it.
# *tls* is empty, or the lines of TLS_LINES.
CONFIGS = {
    "mqttcore": """\
[[listeners]]
host = "127.0.0.1"
port = {port}
{tls}""",
    "mosquitto": """\
listener {port} 127.0.0.1
{tls}allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_dest none
""",
    "flashmq": """\
allow_anonymous true
thread_count 1
quiet true
max_qos_msg_pending_per_client 65535
max_qos_bytes_pending_per_client 1000000000
listen {{
  protocol mqtt
  inet_protocol ip4
  inet4_bind_address 127.0.0.1
  port {port}
}}
""",
    "nanomq": """\
listeners.tcp {{ bind = "127.0.0.1:{port}" }}
mqtt {{ max_packet_size = 1MB, max_mqueue_len = 65535 }}
auth {{ allow_anonymous = true, no_match = allow }}
""",
}

# Brokers without an entry take no part in scenarios over TLS. Mosquitto gives up root before it reads the key.
TLS_LINES = {
    "mqttcore": """\
[listeners.tls]
certificate_file = "{folder}/server.crt"
key_file = "{folder}/server.key"
""",
    "mosquitto": """\
certfile {folder}/server.crt
keyfile {folder}/server.key
user root
""",
}

COMMANDS = {
    OURS: f"{shlex.quote(sys.executable)} -m mqttcore serve --port 0",
    "mosquitto": "mosquitto -c {config}",
    "flashmq": "flashmq --config-file {config}",
    "nanomq": "nanomq start --conf {config}",
}


# Command and config of brokers that shall speak MQTT in WebSocket, at the path /mqtt.
WEBSOCKET = {
    OURS: (
        f"{shlex.quote(sys.executable)} -m mqttcore serve --config {{config}}",
        '[[listeners]]\nport = {port}\nprotocol = "http"\n',
    ),
    "mosquitto": (
        "mosquitto -c {config}",
        # 2.0.11 does not start without a listener that is none for WebSocket
        CONFIGS["mosquitto"].replace("127.0.0.1\n", "127.0.0.1\nprotocol websockets\nlistener {other} 127.0.0.1\n", 1),
    ),
}


# Where topics name the receiver's client id, ours delivers by that; other brokers by subscription.
P2P = f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('p2p_broker.py').absolute()))}"


class PeerError(Exception):
    """A broker that did not start."""


@dataclass(frozen=True)
class Peer:
    """A broker by name; in *command*, {port} is its port and {config} the file with its program's entry of CONFIGS.

    A command that names neither prints its port, as `… listening on 127.0.0.1:PORT …`.
    place: (pid, port) of one that runs already, which is neither pinned nor stopped.
    """

    name: str
    command: str
    place: tuple[int, int] | None = None

    @contextmanager
    def running(
        self,
        core: int | None,
        certificates: Path | None = None,
        *,
        is_websocket: bool = False,
        is_p2p: bool = False,
    ) -> Iterator[tuple[int, int]]:
        """Start it, pinned to *core*; yield (pid, port); stop it, whatever happened.

        certificates: folder with server.crt and server.key; then it speaks TLS. is_p2p: with a handler for `pairs_p2p`.
        """
        if self.place is not None:
            yield self.place
            return
        with tempfile.TemporaryDirectory(prefix="mqttcore-compare-") as folder:
            port, other = _free_ports(2)
            config = Path(folder, f"{self.name}.conf")
            program = self.name if self.name == OURS else Path(shlex.split(self.command)[0]).name
            command, text = self.command, CONFIGS.get(program, "")
            if is_websocket:
                if self.name not in WEBSOCKET:
                    raise PeerError("we know no way to make it speak WebSocket")
                command, text = WEBSOCKET[self.name]
            if is_p2p and self.name == OURS:
                command = P2P
            tls = ""
            if certificates is not None:
                if program not in TLS_LINES:
                    raise PeerError("we know no way to make it speak TLS")
                tls = TLS_LINES[program].format(folder=certificates)
                if self.name == OURS:
                    command = command.replace("--port 0", "--config {config}")
            config.write_text(text.format(port=port, other=other, tls=tls))
            words = shlex.split(command.format(port=port, config=shlex.quote(str(config))))
            words[0] = _find(words[0]) or words[0]
            is_told = "{port}" in command or "{config}" in command
            log = Path(folder, "log")
            with log.open("wb") as out, _pinned(core):
                process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, cwd=folder, env=_environment())
            try:
                if not is_told:
                    port = _wait(lambda: _announced(log), process, log)
                _wait(lambda: _accepts(port), process, log)
                yield process.pid, port
            finally:
                _stop(process)


def _environment() -> dict[str, str]:
    # Brokers start in an empty folder, so a relative PYTHONPATH would lead nowhere.
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _find(program: str) -> str | None:
    # Debian keeps daemons in /usr/sbin, which is not on everyone's PATH.
    return shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")


def available(names: list[str], extra: dict[str, str]) -> list[Peer]:
    """Return the peers called *names*, those in *extra* (name → command) included; no *names*: all installed ones."""
    commands = COMMANDS | extra
    wanted = names or list(commands)
    unknown = [name for name in wanted if name not in commands]
    if unknown:
        raise PeerError(f"unknown peers: {', '.join(unknown)}; there are {', '.join(commands)}")
    found = [name for name in wanted if _find(shlex.split(commands[name])[0])]
    missing = [name for name in names if name not in found]
    if missing:
        raise PeerError(f"not installed: {', '.join(missing)}")
    return [Peer(name, commands[name]) for name in found]


@contextmanager
def _pinned(core: int | None) -> Iterator[None]:
    # What is started meanwhile inherits the core, threads it makes later included.
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _free_ports(count: int) -> list[int]:
    # Below those that the system gives to outgoing connections: one of these would be taken again before long.
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.randrange(15_000, 30_000)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    return found


def _announced(log: Path) -> int:
    for line in log.read_text(errors="replace").splitlines():
        _, found, rest = line.partition(" listening on ")
        address = rest.split()[0] if found and rest else ""
        if address.rpartition(":")[2].isdigit():
            return int(address.rpartition(":")[2])
    return 0


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait(ready: Callable[[], int], process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + START_S
    while not (answer := ready()):
        if process.poll() is not None or time.monotonic() > until:
            raise PeerError(f"did not start: {log.read_text(errors='replace')[-500:].strip()}")
        time.sleep(0.02)
    return answer


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
