"""Real worker processes beside a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builders import connect, count
from waits import until

WF = Path(sys.executable).with_name("wf")


@contextmanager
def served(target: str, folder: Path, url: str) -> Iterator[None]:
    """Run ``wf worker target`` in ``folder`` as long as the block lasts; it must end well."""
    with connect(url) as conn:
        known = count(conn, "workflow_registry")
        supervisor = subprocess.Popen(
            [WF, "worker", target],
            cwd=folder,
            env=environment(url) | {"SIMPLEWORKFLOW_LOG_LEVEL": "ERROR"},
            stdin=subprocess.DEVNULL,
        )
        try:
            # A worker enters what it handles into the registry when it starts.
            until(lambda: count(conn, "workflow_registry") > known, f"wf worker {target} serves")
            yield
        finally:
            supervisor.terminate()
            code = supervisor.wait(40)
    assert code == 0, f"wf worker {target} ended badly"


def environment(url: str) -> dict[str, str]:
    """Return the environment of a program that is to use ``url``."""
    return os.environ | {"DATABASE_URL": url}
