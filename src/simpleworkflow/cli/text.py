"""Text for terminals: whatever rows hold, nothing but letters, numbers and signs reaches the screen."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

# Control, format (bidirectional overrides), surrogate, private, unassigned, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def safe(text: object) -> str:
    r"""Return ``text`` with everything that a terminal may obey written out, such as ``\x1b`` or ``\n``."""
    return "".join(_safe_character(character) for character in str(text))


def one_line(text: object) -> str:
    """Return ``text`` in one line, safe: every run of white space becomes one space."""
    return safe(" ".join(str(text).split()))


def shortened(text: str, length: int) -> str:
    """Return at most ``length`` characters of ``text``, with an ellipsis where it was longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _safe_character(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else ascii(character)[1:-1]
    return character if unicodedata.category(character) not in _UNSAFE else ascii(character)[1:-1]


def clock(time: datetime) -> str:
    """Return the time of day in UTC, to the millisecond."""
    return time.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def moment(time: datetime) -> str:
    """Return date and time in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """Return a length of time in its largest unit, short: ``17 ms``, ``3.0 s``, ``5 min``, ``2 h``, ``9 d``."""
    seconds = max(seconds, 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    for size, unit in ((86400, "d"), (3600, "h")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds / 60:.0f} min"


def age(time: datetime) -> str:
    """Return how long ago ``time`` was by this machine's clock, which is good enough to look at."""
    seconds = max((datetime.now(UTC) - time).total_seconds(), 0.0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"
