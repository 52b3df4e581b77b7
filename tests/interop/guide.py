"""Runs the blocks of a guide as a reader would: files written, commands run, each long one in a terminal of its own.

A block's first word is its language. `toml` and the like are files, named by their first line, `# NAME`. `sh` is run
and has to succeed; `sh fails` has to fail, with words and without a traceback; `sh NAME` is a terminal that stays open.
Only ports are changed: the system chooses them, and the guide's stand for those chosen.
"""

from __future__ import annotations

import os
import queue
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import mqttcore

__all__ = ["Block", "Terminal", "Walk", "parts"]

DEADLINE_S = 100
_BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<name>\w+))?\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_FAULTS = ("Traceback", "was never awaited", "never retrieved", "ResourceWarning")


@dataclass(frozen=True)
class Block:
    language: str
    name: str
    text: str


def parts(text: str) -> dict[str, list[Block]]:
    """Return the blocks of a guide by the `##` heading above them; "" is what stands before the first."""
    found = {}
    for part in re.split(r"^## ", f"\n{text}", flags=re.MULTILINE):
        heading, _, rest = part.partition("\n")
        found[heading] = [Block(one["language"], one["name"] or "", one["text"]) for one in _BLOCK.finditer(rest)]
    return found


class Terminal:
    """A command that goes on; what it prints is waited for, line by line."""

    def __init__(self, command: str, folder: Path, environment: dict[str, str], inherited: tuple[int, ...]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=folder,
            env=environment,
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.errors: list[str] = []
        assert self._process.stdout
        assert self._process.stderr
        self._readers = [
            threading.Thread(target=self._read),
            threading.Thread(target=self.errors.extend, args=(self._process.stderr,)),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")  # the end: nobody has to wait out the deadline

    def line(self, timeout_s: float = DEADLINE_S) -> str | None:
        """Return the next line; None: there was none in time; empty: there will be none."""
        try:
            return self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> str:
        """End the command by SIGTERM; return what it wrote to standard error."""
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_S)
        finally:
            self._process.kill()
            self._process.wait()
            for reader in self._readers:
                reader.join()
            for pipe in (self._process.stdout, self._process.stderr):
                assert pipe
                pipe.close()
        return "".join(self.errors)


class Walk:
    """One reader in one folder. HOME is in that folder, too; `mqttcore` is the one that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.terminals: dict[str, Terminal] = {}
        self._ports: dict[str, int] = {}  # the guide's, and which they are
        self._bound: dict[str, socket.socket] = {}
        self._ports_of: dict[str, list[str]] = {}  # the guide's, by file
        bin_ = folder / "bin"
        home = folder / "home"
        bin_.mkdir()
        home.mkdir()
        command = bin_ / "mqttcore"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mqttcore "$@"\n')
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        path = os.pathsep.join((str(bin_), str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))
        self.environment = os.environ | {
            "PATH": path,
            "HOME": str(home),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(Path(mqttcore.__file__).parents[1]),  # a relative one is wrong in that folder
            "NPM_CONFIG_CACHE": str(Path.home() / ".npm"),  # what setup.sh has fetched
            "NPM_CONFIG_PREFER_OFFLINE": "true",
            "NPM_CONFIG_AUDIT": "false",
        }

    def close(self) -> None:
        """Close all terminals, newest first, and insist that none of them had a fault of ours."""
        try:
            said = {name: terminal.close() for name, terminal in reversed(self.terminals.items())}
        finally:
            for one in self._bound.values():
                one.close()
        assert {name: text for name, text in said.items() if any(fault in text for fault in _FAULTS)} == {}

    def actual(self, text: str) -> str:
        """Return *text* with the ports in force."""
        for port, chosen in self._ports.items():
            text = re.sub(rf"\b{port}\b", str(chosen), text)
        return text

    def bind(self, port: str) -> None:
        """Take a port for a program that cannot tell which one it was given; it inherits the socket."""
        one = self._bound[port] = socket.create_server(("127.0.0.1", 0))
        self._ports[port] = one.getsockname()[1]

    def follow(self, blocks: list[Block]) -> None:
        """Do what *blocks* say, in their order."""
        for block in blocks:
            self.do(block)

    def do(self, block: Block) -> str:
        """Do what a block says; return what a command that ended printed."""
        if block.language != "sh":
            self._write(block)
        elif block.name == "fails":
            done = self._run(block)
            assert done.returncode != 0
            assert done.stderr
            assert "Traceback" not in done.stderr
        elif block.name:
            self._start(block)
        else:
            done = self._run(block)
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
            return done.stdout
        return ""

    def do_until(self, block: Block, terminal: str) -> str:
        """Do what *block* says until *terminal* prints a line, and return that; it may not have subscribed yet."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            self.do(block)
            if (line := self.terminals[terminal].line(1)) is not None:
                assert line, f"{terminal} ended\n{self.terminals[terminal].errors}"
                return line
        raise AssertionError(f"{terminal} prints nothing\n{self.terminals[terminal].errors}")

    def _write(self, block: Block) -> None:
        first, _, text = block.text.partition("\n")
        name = first.removeprefix("# ")
        if block.language == "toml":
            self._ports_of[name] = re.findall(r"^port = (\d+)$", text, re.MULTILINE)
            text = re.sub(r"^port = \d+$", "port = 0", text, flags=re.MULTILINE)
        for port, one in self._bound.items():
            text = text.replace(f"bind 127.0.0.1:{port}", f"bind fd@{one.fileno()}")
        (self.folder / name).write_text(self.actual(text))

    def _run(self, block: Block) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-euo", "pipefail", "-c", self.actual(block.text)]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def _start(self, block: Block) -> None:
        inherited = tuple(one.fileno() for one in self._bound.values())
        for one in self._bound.values():
            one.set_inheritable(True)
        terminal = Terminal(self.actual(block.text), self.folder, self.environment, inherited)
        self.terminals[block.name] = terminal
        if block.name == "broker":
            text = (self.folder / block.text.split()[-1]).read_text()
            ports = iter(self._ports_of[block.text.split()[-1]])
            for _ in range(text.count("[[listeners]]")):
                line = terminal.line()
                assert line, f"the broker does not listen\n{terminal.errors}"
                where = re.search(r" listening on (\S+) \(", line)
                assert where, line
                if f'path = "{where[1]}"' not in text:
                    self._ports[next(ports)] = int(where[1].rpartition(":")[2])
        elif block.name == "page":
            line = terminal.line() or ""
            found = re.search(r"Serving HTTP on \S+ port (\d+)", line)
            assert found, f"{line}\n{terminal.errors}"
            self._ports[block.text.split()[-1]] = int(found[1])
