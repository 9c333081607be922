"""A module whose first import by a handler's own process hangs: ``HANG_ONCE`` names the file that remembers."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

from apps import ENVIRONMENT, worker

if multiprocessing.parent_process() is not None and not (hung := Path(ENVIRONMENT["HANG_ONCE"])).exists():
    hung.touch()
    time.sleep(60)


def work(run: Any) -> int:
    return int(run.attempt)


worker.register("hanging.cpu.v1", work, cpu=True, backoff=0.0)
