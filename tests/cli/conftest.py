"""What the tests of client and command line share."""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripted_server import ScriptedServer

from broker_process import reserved_port

DEADLINE_S = 60.0


@pytest.fixture
async def server():
    async with ScriptedServer().running() as running:
        yield running


def _tool(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if found is None:
        reason = f"{name} is not installed"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return found


@dataclass(frozen=True)
class Mosquitto:
    """A running mosquitto; user `ann` with password `secret` on `guarded_port`, anybody on `port`."""

    port: int
    guarded_port: int

    def start(self, program, *arguments, **options):
        """Start mosquitto_pub or mosquitto_sub against it."""
        command = [_tool(program), "-p", str(self.port), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory):
    with reserved_port() as port, reserved_port() as guarded_port:
        yield from _serving(Mosquitto(port, guarded_port), tmp_path_factory)


def _serving(ports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mosquitto")
    passwords = folder / "passwords"
    subprocess.run([_tool("mosquitto_passwd"), "-c", "-b", passwords, "ann", "secret"], check=True, capture_output=True)
    passwords.chmod(0o644)  # mosquitto gives up root's rights before it reads the file
    folder.chmod(0o755)
    config = folder / "mosquitto.conf"
    config.write_text(
        f"""
        user root
        per_listener_settings true
        listener {ports.port} 127.0.0.1
        allow_anonymous true
        listener {ports.guarded_port} 127.0.0.1
        allow_anonymous false
        password_file {passwords}
        """,
        encoding="utf-8",
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([_tool("mosquitto"), "-c", config], stdout=log, stderr=log)
    try:
        for port in (ports.port, ports.guarded_port):
            _await_listening(port, process, folder / "log")
        yield ports
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _await_listening(port, process, log):
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)  # another program's start has no event to wait for
        else:
            return
    pytest.fail(f"mosquitto does not listen: {log.read_text()}")


class CommandLine:
    """Runs `python -m mqttcore …` and leaves no process behind."""

    def __init__(self):
        self._processes = []

    def start(self, *arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        process = subprocess.Popen([sys.executable, "-m", "mqttcore", *map(str, arguments)], **options)
        self._processes.append(process)
        return process

    def run(self, *arguments, **options):
        """Return the completed process, output as bytes."""
        return subprocess.run(
            [sys.executable, "-m", "mqttcore", *map(str, arguments)], capture_output=True, timeout=DEADLINE_S, **options
        )

    def end(self):
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture
def command_line():
    commands = CommandLine()
    yield commands
    commands.end()


@pytest.fixture
def config_file(tmp_path: Path):
    def write(text):
        path = tmp_path / "broker.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
