"""The slot table: read by another process at any moment of the worker's writing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from simpleworkflow.worker.slots import SlotTable

WRITER = """
import sys
from simpleworkflow.worker.slots import SlotTable
table, number = SlotTable(int(sys.argv[1])), 0
while True:
    number += 1
    table.hold(0, f"{number:036}", number, 0.0)
    table.free(0)
"""


@pytest.mark.fault(
    "Death, pause, leases", "a worker process stopped amid writing down what it holds, 500 times", "P3"
)
def test_a_slot_is_never_read_half_written() -> None:
    table = SlotTable.create(1)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(table.fd)], pass_fds=[table.fd])
    try:
        while not table.held():
            assert writer.poll() is None

        found = [slot for _ in range(500) for slot in _held_while_stopped(table, writer.pid)]
    finally:
        writer.kill()
        writer.wait(10)
        table.close()

    assert found
    assert [slot for slot in found if slot.run_id != f"{slot.fencing_token:036}"] == []


def _held_while_stopped(table: SlotTable, pid: int) -> list[object]:
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    held = table.held()
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.0005)
    return list(held)
