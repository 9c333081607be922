"""What the kernel says about processes: memory, and processor time."""

from __future__ import annotations

import os
from pathlib import Path

from scenarios.ground import NotMeasured


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    lines = _read(pid, "status").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time that processes have used so far, in user and kernel mode."""
    ticks = 0
    for pid in pids:
        fields = _read(pid, "stat").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = _read(pid, f"task/{pid}/children").split()
    return [pid, *(one for child in children for one in family(int(child)))]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8")
    except OSError as error:
        raise NotMeasured(f"process {pid} cannot be looked at in /proc: {error.strerror}") from error
