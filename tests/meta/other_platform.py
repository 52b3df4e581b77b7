"""Python as it is on another system, as far as that can be had here: run as `other_platform.py SYSTEM PROGRAM...`.

Takes away what only Linux has (and for win32 what only POSIX has), and everything compiled that is not built there;
then runs PROGRAM: `modules`, which imports all of ours, or the command line. os.name stays: the standard library would
not survive its change.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import types
from importlib.abc import MetaPathFinder
from typing import Any, NoReturn

# Others' modules find out about the system when they are imported; they are not what is tried out here.
import aiohttp.web
import click
import msgspec
import orjson
import pluggy
import psutil

OTHERS = (aiohttp, click, msgspec, orjson, pluggy, psutil)
LINUX = {
    os: ["O_TMPFILE", "posix_fallocate", "sched_getaffinity", "sendfile", "splice", "eventfd", "memfd_create"],
    select: ["epoll"],
    socket: [
        "TCP_USER_TIMEOUT",
        "TCP_KEEPIDLE",
        "TCP_QUICKACK",
        "TCP_CORK",
        "TCP_DEFER_ACCEPT",
        "SOCK_CLOEXEC",
        "SOCK_NONBLOCK",
        "SO_INCOMING_CPU",
        "SO_PEERCRED",
        "MSG_NOSIGNAL",
    ],
}
POSIX = {
    os: [
        "O_CLOEXEC",
        "O_NONBLOCK",
        "O_NOFOLLOW",
        "O_SYNC",
        "fchmod",
        "fchown",
        "chown",
        "fork",
        "geteuid",
        "getuid",
        "getgid",
        "mkfifo",
        "fdatasync",
        "pread",
        "pwrite",
        "sysconf",
        "uname",
    ],
    signal: ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGPIPE", "SIGALRM", "pthread_sigmask", "sigwait"],
    socket: ["AF_UNIX", "SO_REUSEPORT"],
}
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "uvloop", "posix_ipc"}
NOT_BUILT = ("mqttcore.net.poller", "mqttcore.bench")


class Hidden(MetaPathFinder):
    """Says of modules that they are not there."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in self._names or name.startswith(NOT_BUILT):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def missing(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError


def take_away(system: str) -> None:
    """Make this process one on *system*, "darwin" or "win32"."""
    hidden = set()
    attributes = [LINUX]
    if system == "win32":
        attributes.append(POSIX)
        hidden = POSIX_MODULES
        # the event loop wakes itself by a pair
        socket.socketpair = functools.partial(socket.socketpair, socket.AF_UNIX)  # type: ignore[assignment]
        loop = asyncio.SelectorEventLoop
        for name in ("add_signal_handler", "remove_signal_handler", "create_unix_server", "create_unix_connection"):
            setattr(loop, name, missing)
        locking = types.ModuleType("msvcrt")
        locking.LK_NBLCK, locking.locking = 2, lambda *_: None  # type: ignore[attr-defined]
        sys.modules["msvcrt"] = locking
    for of_system in attributes:
        for module, names in of_system.items():
            for name in names:
                if hasattr(module, name):
                    delattr(module, name)
    for name in list(sys.modules):
        if name in hidden or name.startswith(("mqttcore.", "mqttcore_plugins")):
            del sys.modules[name]
    sys.meta_path.insert(0, Hidden(hidden))
    sys.platform = system


def may_be_absent(name: str) -> None:
    """Of pkgutil: a package could not be imported."""
    if not name.startswith(NOT_BUILT):
        raise  # called amid handling


def import_all() -> None:
    import mqttcore
    from mqttcore.plugins.discovery import open_source_tree

    open_source_tree()
    import mqttcore_plugins

    names = [
        found.name
        for package in (mqttcore, mqttcore_plugins)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=may_be_absent)
        if not found.name.startswith(NOT_BUILT)
        and not found.name.endswith("__main__")
        and ".examples" not in found.name
    ]
    for name in names:
        importlib.import_module(name)
    print(len(names))  # noqa: T201


if __name__ == "__main__":
    _, system, *sys.argv[1:] = sys.argv
    take_away(system)
    if sys.argv[1:] == ["modules"]:
        import_all()
    else:
        runpy.run_module("mqttcore", run_name="__main__", alter_sys=False)
