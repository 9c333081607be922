"""What the SQL core should do, in plain Python: the table and its events as lists, time as a number.

Times are in periods of eleven days that the tests move the clock by, so that the seconds which a test itself takes
never decide anything; a lease and a delay end in the middle of a period.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

PERIOD_SECONDS = 1_000_000
ENDED = ("succeeded", "failed", "cancelled")
# The event of each end of an attempt.
FINISHED = {"succeeded": "succeeded", "failed": "failed", "pending": "retried"}


@dataclass
class ExpectedRun:
    """One run as it should be."""

    id: str
    type: str
    run_at: float
    priority: int = 100
    key: str | None = None
    max_attempts: int = 3
    status: str = "pending"
    attempt: int = 0
    token: int = 0
    leased_by: str | None = None
    lease_until: float | None = None
    finished_at: float | None = None
    crashes: int = 0
    is_suspect: bool = False
    is_hidden: bool = False
    events: list[str] = field(default_factory=lambda: ["created"])

    def row(self) -> tuple[object, ...]:
        """Return what the table should say of it, and its events."""
        return (
            *(self.id, self.type, self.priority, self.key, self.max_attempts, self.status, self.attempt),
            *(self.token, self.leased_by, self.crashes, self.is_suspect, self.is_hidden),
            *(self.finished_at is not None, ",".join(self.events)),
        )

    def times(self) -> tuple[float | None, ...]:
        """Return the times that the table should hold."""
        return (self.run_at, self.lease_until, self.finished_at)

    def is_held(self, token: int) -> bool:
        """Return whether ``token`` is that of the present lease."""
        return self.status == "leased" and self.token == token

    def leave(self, status: str, event: str, now: float) -> None:
        """End the lease, if there is one, in ``status``."""
        self.status, self.leased_by, self.lease_until = status, None, None
        self.finished_at = now if status in ENDED else None
        self.events.append(event)


class Oracle:
    """The table as it should be, and the transitions."""

    def __init__(self) -> None:
        self.now = 0.0
        self.runs: dict[str, ExpectedRun] = {}
        self.disabled: set[str] = set()

    def of_key(self, key: str | None) -> ExpectedRun | None:
        """Return the run that has the key."""
        return next((run for run in self.runs.values() if key is not None and run.key == key), None)

    def add(self, run: ExpectedRun) -> None:
        """A new run."""
        assert run.id not in self.runs
        self.runs[run.id] = run

    # ── claim ──────────────────────────────────────────────────────────────────────────────────────

    def claimable(self, patterns: Iterable[str]) -> Iterator[ExpectedRun]:
        """Return the pending runs of the patterns that may be claimed once they are due."""
        for run in self.runs.values():
            is_wanted = covers(patterns, run.type) and not covers(self.disabled, run.type)
            if run.status == "pending" and not run.is_hidden and is_wanted:
                yield run

    def check_claim(self, patterns: Sequence[str], limit: int, held: int, got: Sequence[str]) -> None:
        """Hold what a claim brought against what it should bring: as many as it may, the best first."""
        due = [run for run in self.claimable(patterns) if run.run_at <= self.now]
        suspects = [run for run in due if run.is_suspect]
        assert len(set(got)) == len(got), "a run came twice"
        if suspects and held == 0:
            oldest = min(run.run_at for run in suspects)
            assert [self.runs[one].run_at for one in got] == [oldest], "a suspect comes first, and alone"
            assert self.runs[got[0]].is_suspect
            return
        expected = {run.id: run.priority for run in due if not run.is_suspect}
        assert set(got) <= set(expected), "what was claimed could not be"
        assert len(got) == min(limit, len(expected)), "as many as there are, up to the limit"
        left = [priority for run_id, priority in expected.items() if run_id not in got]
        assert max((expected[one] for one in got), default=0) <= min(left, default=2**31), "the best first"

    def check_claim_from_memory(
        self, patterns: Sequence[str], limit: int, held: int, got: Sequence[str]
    ) -> None:
        """Hold what a claim brought that did not look everywhere against what it may bring."""
        due = [run for run in self.claimable(patterns) if run.run_at <= self.now]
        if held == 0 and any(run.is_suspect for run in due):
            self.check_claim(patterns, limit, held, got)
            return
        assert len(set(got)) == len(got), "a run came twice"
        assert set(got) <= {run.id for run in due if not run.is_suspect}, "what was claimed could not be"
        assert len(got) <= limit

    def next_due(self, patterns: Sequence[str]) -> float | None:
        """Return when the next run is due, of those that are not due yet."""
        return min((run.run_at for run in self.claimable(patterns) if not run.is_suspect), default=None)

    def claim(self, run_id: str, worker: str, lease: float) -> ExpectedRun:
        """A run goes to a worker."""
        run = self.runs[run_id]
        run.status, run.leased_by, run.lease_until = "leased", worker, self.now + lease
        run.attempt, run.token = run.attempt + 1, run.token + 1
        run.events.append("leased")
        return run

    # ── what a worker says ─────────────────────────────────────────────────────────────────────────

    def finish(self, run_id: str, token: int, worker: str, status: str, delay: float) -> bool:
        """The end of an attempt; whether it counts."""
        run = self.runs.get(run_id)
        if run is None or not run.is_held(token) or run.leased_by != worker:
            return False
        if status == "succeeded":
            run.attempt -= run.crashes
        run.crashes, run.is_suspect = 0, False
        if status == "pending" and run.attempt >= run.max_attempts:
            status, event = "failed", "failed"
        else:
            event = FINISHED[status]
        if status == "pending":
            run.run_at = self.now + delay
        run.leave(status, event, self.now)
        return True

    def release(self, run_id: str, token: int, worker: str) -> bool:
        """A run comes back untried; whether it did."""
        run = self.runs.get(run_id)
        if run is None or not run.is_held(token) or run.leased_by != worker:
            return False
        run.attempt -= 1
        run.leave("pending", "released", self.now)
        return True

    def heartbeat(self, run_id: str, token: int, lease: float, *, is_explicit: bool) -> str:
        """A lease is extended; what its holder is told."""
        run = self.runs.get(run_id)
        if run is None or run.token != token or run.status not in ("leased", "cancelled"):
            return "lost"
        if run.status == "leased":
            assert run.lease_until is not None
            run.lease_until = max(run.lease_until, self.now + lease)
            if is_explicit:
                run.events.append("heartbeat")
        return run.status

    def progress(self, run_id: str, token: int) -> bool:
        """A note of an attempt; whether it was taken."""
        run = self.runs.get(run_id)
        if run is None or not run.is_held(token):
            return False
        run.events.append("progress")
        return True

    # ── what time and people do ────────────────────────────────────────────────────────────────────

    def expire(self, dead: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
        """Lapsed leases and those of dead workers, given back if taken before; what each run became."""
        late = [run for run in self.runs.values() if run.leased_by in dead and run.id in taken]
        for run in late:
            assert self.release(run.id, run.token, run.leased_by or "")
        return {run.id: "pending" for run in late} | self._expire(dead)

    def _expire(self, dead: Sequence[str]) -> dict[str, str]:
        held: dict[str, int] = {}
        for run in self.runs.values():
            if run.leased_by is not None:
                held[run.leased_by] = held.get(run.leased_by, 0) + 1
        became = {}
        for run in self.runs.values():
            is_dead = run.leased_by in dead
            if run.lease_until is None or not (is_dead or run.lease_until < self.now):
                continue
            if is_dead:
                run.is_suspect |= run.crashes > 0 or run.attempt + 1 >= run.max_attempts
                run.crashes += held[run.leased_by or ""] > 1
            run.leave("pending" if run.attempt < run.max_attempts else "failed", "expired", self.now)
            became[run.id] = run.status
        return became

    def cancel(self, run_id: str) -> bool:
        """A run is not wanted any more; whether this ended it."""
        run = self.runs[run_id]
        if run.status in ENDED:
            return False
        run.leave("cancelled", "cancelled", self.now)
        return True

    def reopen(self, run_id: str, attempts: int) -> bool:
        """A new budget; whether it was given."""
        run = self.runs[run_id]
        if run.status not in ("failed", "cancelled") or run.is_hidden:
            return False
        run.max_attempts, run.run_at = run.attempt + attempts, self.now
        run.crashes, run.is_suspect = 0, False
        run.leave("pending", "reopened", self.now)
        return True

    def prune(self, age: float, patterns: Sequence[str]) -> int:
        """Old ended runs go; how many."""
        gone = [
            run.id
            for run in self.runs.values()
            if run.finished_at is not None and run.finished_at < self.now - age and covers(patterns, run.type)
        ]
        for run_id in gone:
            del self.runs[run_id]
        return len(gone)


def covers(patterns: Iterable[str], type_: str) -> bool:
    """Return whether one of the patterns covers the type: only a trailing ``%`` is special."""
    return any(
        type_.startswith(one.removesuffix("%")) if one.endswith("%") else type_ == one for one in patterns
    )
