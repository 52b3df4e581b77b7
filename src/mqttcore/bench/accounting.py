"""What the operating system says a broker costs: CPU time and memory of a process and its children (Linux)."""

import os
from pathlib import Path

__all__ = ["cpu_seconds", "process_tree", "rss_bytes"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str]:
    # Fields of /proc/PID/stat from the third on; the second, the name, may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def process_tree(pid: int) -> list[int]:
    """Return *pid* and all its descendants that are alive. Raises ProcessLookupError when *pid* is not."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(_stat(int(entry.name))[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended since
        children.setdefault(parent, []).append(int(entry.name))
    if not Path(f"/proc/{pid}").exists():
        raise ProcessLookupError(f"no process {pid}")
    tree = [pid]
    for member in tree:  # grows while it is walked
        tree += children.get(member, [])
    return tree


def cpu_seconds(pid: int) -> float:
    """Return user and system time of the tree below *pid*, all threads, and of its children that have ended.

    Counted in ticks of usually 10 ms. A difference is only right while no descendant ends without being waited for.
    """
    ticks = 0
    for member in process_tree(pid):
        ticks += sum(int(value) for value in _stat(member)[11:15])
    return ticks * _TICK_S


def rss_bytes(pid: int) -> int:
    """Return the resident memory of the tree below *pid*; pages shared between its processes count for each."""
    return sum(int(_stat(member)[21]) for member in process_tree(pid)) * _PAGE
