"""What the demo shows: its own words, and the lines of four workers, one at a time."""

from __future__ import annotations

import threading

from rich.table import Table
from rich.text import Text

from simpleworkflow.cli.output import console
from simpleworkflow.cli.text import safe

WORKER_STYLES = {"basic": "cyan", "billing": "green", "video": "magenta", "notify": "blue"}
_NAME_WIDTH = max(len(name) for name in WORKER_STYLES)


class Screen:
    """Prints whole lines, from any thread."""

    def __init__(self) -> None:
        self._console = console()
        self._lock = threading.Lock()
        self._scene = 0

    def scene(self, title: str) -> None:
        """Begin a scene of the story."""
        self._scene += 1
        self._print(Text(f"\n{self._scene}. {title}", style="bold"))

    def say(self, text: str = "") -> None:
        """Print the narrator's words."""
        self._print(Text(text))

    def show(self, code: str) -> None:
        """Print what the demo does, as somebody would type it."""
        for line in code.strip("\n").splitlines():
            self._print(Text(f"  {line}", style="yellow"))

    def worker_line(self, name: str, line: str) -> None:
        """Print a line of a worker's output behind its name."""
        row = Table.grid()
        row.add_column(no_wrap=True)
        row.add_column(overflow="fold")
        row.add_row(Text(f"{name:<{_NAME_WIDTH}} | ", style=WORKER_STYLES.get(name, "")), safe(line))
        self._print(row)

    def _print(self, what: Text | Table) -> None:
        with self._lock:
            self._console.print(what, soft_wrap=isinstance(what, Text))
