"""The command line: ``wf``, also called ``simpleworkflow``."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``wf`` with these arguments, by default the program's own; return its exit code."""
    from simpleworkflow.cli.edge import run_program

    return run_program(arguments)
