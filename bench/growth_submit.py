"""Print by how many MB the memory of this process peaked above its start in one ``submit_many``.

DATABASE_URL=... RUNS=100000 python growth_submit.py
"""

from __future__ import annotations

import os
from pathlib import Path

from simpleworkflow import Client

RUNS = int(os.environ["RUNS"])


def peak_mb() -> float:
    """Return the peak of the resident memory, which is that of this program alone.

    Not ``ru_maxrss``: a process that was forked begins with the peak of its parent.
    """
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


with Client() as client:
    client.submit_many([("bench.memory.v1", {"n": n}) for n in range(10)])  # imports and connects
    before = peak_mb()
    client.submit_many([("bench.memory.v1", {"n": n}) for n in range(RUNS)])
    print(peak_mb() - before)
