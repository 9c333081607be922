"""Memory that processes share: a file without a name, which the system forgets with the last that has it."""

from __future__ import annotations

import os
import tempfile

__all__ = ["unnamed_file"]


def unnamed_file(name: str) -> int:
    """Return the descriptor of a new, empty file; ``name`` is only what a list of open files shows."""
    # In memory where the system can: a full disk would end whoever first writes to a page with SIGBUS.
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
