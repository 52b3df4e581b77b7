"""System calls of a process while it is measured: `perf stat` counts them in the kernel, `strace` by stopping it."""

import re
import shutil
import signal
import subprocess
from collections import Counter

# Those that perf counts by name, besides the total.
NAMES = [
    "read",
    "write",
    "writev",
    "recvfrom",
    "recvmsg",
    "sendto",
    "sendmsg",
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
]
TOTAL = "all"


class SyscallCount:
    """Counts from `start()` to `stop()`. Needs the rights of a tracer; *tool* is what is used, None: nothing."""

    def __init__(self, pid: int) -> None:
        self.tool = next((tool for tool in ("perf", "strace") if shutil.which(tool)), None)
        events = ",".join(["raw_syscalls:sys_enter", *(f"syscalls:sys_enter_{name}" for name in NAMES)])
        self._command = {
            "perf": ["perf", "stat", "-x", ",", "-e", events, "-p", str(pid)],
            "strace": ["strace", "-c", "-f", "-p", str(pid)],
        }.get(self.tool or "", [])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Attach; what happens in the first milliseconds may be missed."""
        if self._command:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def stop(self) -> Counter[str]:
        """Detach and return calls by name, and under TOTAL; empty when the tool was not allowed to look."""
        if self._process is None:
            return Counter()
        self._process.send_signal(signal.SIGINT)
        text, _ = self._process.communicate(timeout=30)
        return parse(text.decode(errors="replace"))


# perf:   "1000,,syscalls:sys_enter_write,473695735,100.00,,"
# strace: " 45.10    0.012345          12      1000           write"     share, seconds, µs a call, calls, errors?, name
_PERF = re.compile(r"^(\d+),,(raw_syscalls:sys_enter|syscalls:sys_enter_\w+),", re.MULTILINE)
_STRACE = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z_][a-z0-9_]*)$", re.MULTILINE)


def parse(text: str) -> Counter[str]:
    """Return calls by name, and under TOTAL, from what either tool prints."""
    calls: Counter[str] = Counter()
    for count, event in _PERF.findall(text):
        calls[TOTAL if event.startswith("raw") else event.removeprefix("syscalls:sys_enter_")] += int(count)
    for count, name in _STRACE.findall(text):
        calls[TOTAL if name == "total" else name] += int(count)
    return +calls
