"""What the kernel says of a tree of processes: CPU seconds and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(roots: Iterable[int]) -> set[int]:
    """Return the processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, fields in _all():
        children.setdefault(int(fields[1]), []).append(pid)
    found, look = set(), list(roots)
    while look:
        pid = look.pop()
        found.add(pid)
        look += children.get(pid, [])
    return found


def cpu_seconds(roots: Iterable[int], without: int | None = None) -> float:
    """Return user and system time of the trees, of their ended and awaited children too; ``without`` one process."""
    ticks = 0
    for pid in tree(roots) - {without}:
        fields = _fields(pid)
        if fields:
            ticks += sum(int(value) for value in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / TICKS


def memory_mb(roots: Iterable[int]) -> float:
    """Return the trees' memory, each shared page counted by its share."""
    kilobytes = 0
    for pid in tree(roots):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024


def parent(pid: int) -> int | None:
    """Return the parent of a process that this machine knows."""
    fields = _fields(pid)
    return int(fields[1]) if fields else None


def name(pid: int) -> str:
    """Return what the kernel calls a process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _all() -> Iterable[tuple[int, list[str]]]:
    for entry in os.listdir("/proc") if Path("/proc").exists() else []:
        if entry.isdigit() and (fields := _fields(int(entry))):
            yield int(entry), fields


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, …"""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []
