"""The processes of a worker, started by its supervisor or by the program that it runs in."""

from __future__ import annotations

import asyncio
import signal
import sys


def main(role: str, lifeline: int, table_fd: int) -> int:
    """Be a ``heart`` beside a program, or a ``child`` of a supervisor; return the exit code."""
    # Ctrl-C, and the terminal's end, reach all its processes; what becomes of us is for whoever started us.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if role == "heart":
        from simpleworkflow.worker.heart import beat_beside

        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        asyncio.run(beat_beside(lifeline, table_fd))
        return 0
    from simpleworkflow.worker.child import work_for_supervisor

    return work_for_supervisor(lifeline, table_fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
