"""What a worker and its handlers are told, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from simpleworkflow.model import ATTEMPTS_MAX
from simpleworkflow.retry import RetryPolicy

__all__ = ["HandlerOptions", "WorkerOptions"]

# The supervisor extends leases every third of them; a lease must outlive a missed beat and a slow answer.
LEASE_SECONDS_MIN = 1.0
WORKER_LEASE_SECONDS_MAX = 24 * 3600.0
BATCH_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How one worker process works.

    ``concurrency``: runs at once.  ``threads``: sync handlers at once; ``cpu_processes``: cpu ones (0: as
    many as there are cores).  ``lease_seconds``: how long a run is held without an extension.
    ``poll_seconds``: how long an idle worker waits at most before it looks again.  ``grace_seconds``: how
    long a stopping worker lets its handlers end by themselves.

    Raises:
        ValueError: a number is out of its range.
    """

    concurrency: int = 100
    threads: int = 10
    cpu_processes: int = 0
    lease_seconds: float = 30.0
    poll_seconds: float = 2.0
    grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        _check("concurrency", self.concurrency, 1, 10_000)
        _check("threads", self.threads, 1, 1_000)
        _check("cpu_processes", self.cpu_processes, 0, 1_000)
        _check("lease_seconds", self.lease_seconds, LEASE_SECONDS_MIN, WORKER_LEASE_SECONDS_MAX)
        _check("poll_seconds", self.poll_seconds, 0.01, 3600)
        _check("grace_seconds", self.grace_seconds, 0, 24 * 3600)

    @property
    def heartbeat_seconds(self) -> float:
        """How often leases are extended: every third of a lease."""
        return self.lease_seconds / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """How one handler's attempts run and end.

    ``timeout_seconds``: None for no limit.  ``max_attempts``: give up earlier than the run itself would;
    never later.  ``cpu``: run in a process of its own that can be killed.  ``batch_max``: how many runs one call
    executes at most; None for a handler of one run.

    Raises:
        ValueError: a number is out of its range.
    """

    timeout_seconds: float | None = None
    max_attempts: int | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    cpu: bool = False
    batch_max: int | None = None

    def __post_init__(self) -> None:
        if self.timeout_seconds is not None:
            _check("timeout_seconds", self.timeout_seconds, 0.001, 365 * 24 * 3600)
        if self.max_attempts is not None:
            _check("max_attempts", self.max_attempts, 1, ATTEMPTS_MAX)
        if self.batch_max is not None:
            _check("batch_max", self.batch_max, 1, BATCH_MAX)


def _check(name: str, value: float, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: expected a number, got {value!r}")
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{name}: expected {least:g} to {most:g}, got {value!r}")
