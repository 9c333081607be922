"""What was told and what was done, kept outside the system under test: files that are only appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any


class Ledger:
    """One line for each entry, written in one call: a killed writer leaves a whole line or none."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, what: str, **values: Any) -> None:
        """Append an entry.  Its time is the monotonic clock's, which nobody shifts."""
        line = json.dumps({"what": what, "at": round(monotonic(), 3), **values})
        os.write(self._fd, line.encode() + b"\n")


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what a ledger holds, in its order."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
