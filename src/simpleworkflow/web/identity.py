"""Who asks, and what their role may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ROLES", "Identity", "Role"]

Role = Literal["reader", "operator", "admin"]
# Each may do what those before it may.
ROLES: tuple[Role, ...] = ("reader", "operator", "admin")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whoever asks: a name, which the events of their changes tell (None: nobody in particular), and a role.

    ``reader`` sees what happens, but no payloads, results, errors and data of events; ``operator`` sees all, submits
    and steers.

    Raises:
        ValueError: ``role`` is none of the three.
    """

    name: str | None
    role: Role

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role: expected one of {', '.join(ROLES)}, got {self.role!r}")

    def has(self, role: Role) -> bool:
        """Return whether this one may do what ``role`` may."""
        return ROLES.index(self.role) >= ROLES.index(role)
