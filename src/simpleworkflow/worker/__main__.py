"""The processes of a worker, started by its supervisor or by the program that it runs in."""

from __future__ import annotations

import asyncio
import sys

from simpleworkflow.worker.lifeline import ignore_signals


def main(role: str, lifeline: int, table_fd: int, *board_fd: int) -> int:
    """Be a ``heart`` beside a program, or a ``child`` of a supervisor; return the exit code."""
    ignore_signals(role)
    if role == "heart":
        from simpleworkflow.worker.heart import beat_beside

        asyncio.run(beat_beside(lifeline, table_fd))
        return 0
    from simpleworkflow.worker.child import work_for_supervisor

    return work_for_supervisor(lifeline, table_fd, *board_fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
