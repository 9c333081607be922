"""The keyboard, key by key, for as long as the screen is ours."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Any, Self

__all__ = ["Keyboard"]

_NAMES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1b": "escape",
    "\t": "tab",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
}


class Keyboard:
    """Reads single keys from the terminal; leaves it as it was.  Ctrl-C stays what it is."""

    def __enter__(self) -> Self:
        self._fd = sys.stdin.fileno()
        self._before: list[Any] = termios.tcgetattr(self._fd)
        self._pending: list[str] = []
        tty.setcbreak(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def read(self, seconds: float) -> str | None:
        """Return the next key within so many seconds: a character, or a name such as ``up``.

        Raises:
            KeyboardInterrupt: the terminal is gone.
        """
        if not self._pending:
            if not select.select([self._fd], [], [], seconds)[0]:
                return None
            text = os.read(self._fd, 256).decode(errors="ignore")
            if not text:
                raise KeyboardInterrupt
            self._pending = list(_keys(text))
        return self._pending.pop(0) if self._pending else None


def _keys(text: str) -> list[str]:
    found = []
    while text:
        size = 1
        if text[:2] in ("\x1b[", "\x1bO"):
            size = next(
                (n + 1 for n in range(2, len(text)) if text[n].isalpha() or text[n] == "~"), len(text)
            )
        key, text = text[:size], text[size:]
        name = _NAMES.get(key, key)
        if (len(name) > 1 and not name.startswith("\x1b")) or name.isprintable():
            found.append(name)
    return found
