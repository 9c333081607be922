"""One thing that an examination found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Severity = Literal["ok", "notice", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("ok", "notice", "warning", "error")


class Finding(NamedTuple):
    """What a check found: how bad it is, the fact, why it matters, and the remedy as a command or setting.

    ``ok`` and ``notice`` need no attention; of ``ok`` only the fact is said.
    """

    check: str
    severity: Severity
    found: str
    why: str | None = None
    remedy: str | None = None


def needs_attention(findings: Iterable[Finding]) -> bool:
    """Return whether one of the findings is a warning or an error."""
    return any(one.severity in ("warning", "error") for one in findings)
