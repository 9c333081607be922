"""Random operations on the SQL core and on the oracle; after each, the table is what the oracle says."""

from __future__ import annotations

import os
import uuid
from typing import Any, ClassVar

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from builders import Database, Held, ask, attempt, expire, finish, heartbeat, progress, release, submit_many
from model.oracle import ENDED, PERIOD_SECONDS, ExpectedRun, Oracle
from simpleworkflow import statements
from simpleworkflow.model import NewRun

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))
STEPS = int(os.environ.get("MODEL_STEPS", "50"))
SEED = int(os.environ.get("MODEL_SEED", "20"))

# In periods: leases and delays end between two moves of the clock.
LEASE = 1.5
DELAYS = (0.0, 2.5)
PRUNED_AGE = 1.5

TYPES = ("ab.x.v1", "ab.y.v1", "a_.x.v1", "AB.x.v1")
WORKERS = ("one", "two", "three")
# Some cover others, some nothing; ``_`` and a backslash are themselves.
PATTERNS = ("%", "ab.%", "a_.%", "ab.x.v1", "ab.x%", "AB.%", "a\\_.%", "no.such")

types = st.sampled_from(TYPES)
keys = st.sampled_from([None, None, "k", "l"])
priorities = st.sampled_from([1, 100])
workers = st.sampled_from(WORKERS)
# Drawn whether or not there is something to choose from: what is generated does not depend on what was answered.
which = st.integers(0, 999)
patterns = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3)

ROWS = """
    select run.id::text, run.type, run.priority, run.idempotency_key, run.max_attempts, run.status, run.attempt,
           run.fencing_token, run.leased_by, run.crashes, run.is_suspect, run.deleted_at is not null,
           run.finished_at is not null,
           (select string_agg(event.event_type, ',' order by event.id)
              from workflow_event as event where event.workflow_id = run.id),
           extract(epoch from run.run_at - clock_timestamp())::float8,
           extract(epoch from run.lease_until - clock_timestamp())::float8,
           extract(epoch from run.finished_at - clock_timestamp())::float8
      from workflow_run as run
"""
COLUMNS = 14


class CoreMachine(RuleBasedStateMachine):
    """The SQL core beside its oracle."""

    db: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        self.db.execute("select setseed(0.5)")
        self.oracle = Oracle()
        self.claims: list[Held] = []
        self.lanes = "{}"

    # ── producers ──────────────────────────────────────────────────────────────────────────────────

    @rule(type_=types, key=keys, priority=priorities, attempts=st.integers(1, 3))
    def insert(self, type_: str, key: str | None, priority: int, attempts: int) -> None:
        row = self.db.execute(
            "insert into workflow_run (type, idempotency_key, priority, max_attempts) values (%s, %s, %s, %s)"
            " on conflict (idempotency_key) do nothing returning id::text",
            [type_, key, priority, attempts],
        ).fetchone()
        assert (row is None) == (self.oracle.of_key(key) is not None)
        if row is not None:
            self.oracle.add(ExpectedRun(row[0], type_, self.oracle.now, priority, key, attempts))

    @rule(type_=types, key=keys, delay=st.sampled_from(DELAYS), attempts=st.integers(1, 3))
    def submit(self, type_: str, key: str | None, delay: float, attempts: int) -> None:
        new = NewRun(type=type_, idempotency_key=key, delay=delay * PERIOD_SECONDS, max_attempts=attempts)
        self._submitted([new], [ask(self.db, statements.submit_run(new))])

    @rule(wanted=st.lists(st.tuples(types, keys), min_size=1, max_size=4))
    def submit_many(self, wanted: list[tuple[str, str | None]]) -> None:
        news = [NewRun(type=type_, idempotency_key=key) for type_, key in wanted]
        self._submitted(news, submit_many(self.db, news))

    def _submitted(self, news: list[NewRun], answers: list[Any]) -> None:
        assert len(answers) == len(news)
        for new, answer in zip(news, answers, strict=True):
            existing = self.oracle.of_key(new.idempotency_key)
            assert answer.created == (existing is None)
            if existing is not None:
                assert str(answer.id) == existing.id
                continue
            run_at = self.oracle.now + new.delay_seconds / PERIOD_SECONDS
            self.oracle.add(
                ExpectedRun(
                    str(answer.id), new.type, run_at, new.priority, new.idempotency_key, new.max_attempts
                )
            )

    # ── workers ────────────────────────────────────────────────────────────────────────────────────

    @rule(worker=workers, wanted=patterns, limit=st.integers(1, 4))
    def claim(self, worker: str, wanted: list[str], limit: int) -> None:
        self._exchange(worker, [], wanted, limit)

    @rule(worker=workers, limit=st.integers(1, 4))
    def claim_the_best(self, worker: str, limit: int) -> None:
        self._exchange(worker, [], ["%"], limit)

    @rule(worker=workers)
    def claim_all(self, worker: str) -> None:
        self._exchange(worker, [], ["%"], 100)

    @rule(worker=workers, limit=st.integers(1, 4))
    def claim_where_runs_were_found(self, worker: str, limit: int) -> None:
        self._exchange(worker, [], ["%"], limit, is_look=False)

    @rule(which=which, worker=workers, wanted=patterns, limit=st.integers(1, 4))
    def finish_and_claim(self, which: int, worker: str, wanted: list[str], limit: int) -> None:
        done = {held.id: held for held in (self._a_claim(which), self._a_claim(which // 7))}
        self._exchange(worker, list(done.values()), wanted, limit)

    def _exchange(
        self, worker: str, done: list[Held], wanted: list[str], limit: int, *, is_look: bool = True
    ) -> None:
        finished = [statements.Finished(one.id, one.fencing_token, "succeeded") for one in done]
        refused = {
            one.id
            for one in done
            if not self.oracle.finish(one.id, one.fencing_token, worker, "succeeded", 0)
        }
        held = sum(run.leased_by == worker for run in self.oracle.runs.values())
        said = ask(
            self.db,
            statements.exchange(
                worker,
                finished,
                wanted,
                limit=limit,
                lease_seconds=LEASE * PERIOD_SECONDS,
                held=held,
                lanes=self.lanes if wanted == ["%"] else None,
                is_look=is_look,
            ),
        )
        self.lanes = said.lanes or self.lanes
        assert said.refused == refused
        if said.is_suspect_waiting:  # by chance: make room for it
            assert held
            return
        got = [one.id for one in said.claimed]
        if is_look:
            self.oracle.check_claim(wanted, limit, held, got)
        else:
            self.oracle.check_claim_from_memory(wanted, limit, held, got)
        if is_look and not said.claimed:
            due = self.oracle.next_due(wanted)
            assert (said.due_in_seconds is None) == (due is None)
            assert due is None or _is_near(said.due_in_seconds, due - self.oracle.now)
        for one in said.claimed:
            run = self.oracle.claim(one.id, worker, LEASE)
            assert (one.attempt, one.fencing_token, one.is_suspect) == (
                run.attempt,
                run.token,
                run.is_suspect,
            )
            self.claims.append(Held(one.id, one.type, one.attempt, one.fencing_token, worker))

    @rule(
        which=which,
        status=st.sampled_from(["succeeded", "failed", "pending"]),
        delay=st.sampled_from(DELAYS),
        is_answer_lost=st.booleans(),
    )
    def finish(self, which: int, status: str, delay: float, *, is_answer_lost: bool) -> None:
        held = self._a_claim(which)
        seconds = delay * PERIOD_SECONDS
        said = finish(self.db, held, status=status, error="no", delay_seconds=seconds)
        assert said == self.oracle.finish(held.id, held.fencing_token, held.worker, status, delay)
        if is_answer_lost:
            assert finish(self.db, held, status=status, error="no", delay_seconds=seconds) is False

    @rule(which=which, worker=workers)
    def finish_as_another(self, which: int, worker: str) -> None:
        held = self._a_claim(which)
        said = finish(self.db, held, worker=worker)
        assert said == self.oracle.finish(held.id, held.fencing_token, worker, "succeeded", 0)

    @rule(which=which)
    def release(self, which: int) -> None:
        held = self._a_claim(which)
        assert release(self.db, held) == self.oracle.release(held.id, held.fencing_token, held.worker)

    @rule(which=which, lease=st.sampled_from([0.5, LEASE, 2.5]), is_explicit=st.booleans())
    def heartbeat(self, which: int, lease: float, *, is_explicit: bool) -> None:
        held = self._a_claim(which)
        said = heartbeat(self.db, held, seconds=lease * PERIOD_SECONDS, is_explicit=is_explicit)
        assert said == self.oracle.heartbeat(held.id, held.fencing_token, lease, is_explicit=is_explicit)

    @rule(which=which)
    def progress(self, which: int) -> None:
        held = self._a_claim(which)
        assert progress(self.db, held) == self.oracle.progress(held.id, held.fencing_token)

    # ── time, operators ────────────────────────────────────────────────────────────────────────────

    @rule(dead=st.lists(workers, max_size=2, unique=True))
    def expire(self, dead: list[str]) -> None:
        assert expire(self.db, *dead) == self.oracle.expire(dead)

    @rule(which=which)
    def crash(self, which: int) -> None:
        dead = [self._a_claim(which).worker]
        assert expire(self.db, *dead) == self.oracle.expire(dead)

    @rule(which=which)
    def crash_with_a_claim_on_its_way(self, which: int) -> None:
        claims = [self._a_claim(which), self._a_claim(which // 7)]
        dead, taken = claims[0].worker, [one.id for one in claims]
        assert expire(self.db, dead, taken=taken) == self.oracle.expire([dead], taken)

    @rule(periods=st.integers(1, 3))
    def clock_forward(self, periods: int) -> None:
        self.oracle.now += periods
        with self.db.transaction():
            self.db.execute("select set_config('workflow.transition', 'extend', true)")
            shift = f" - interval '{periods * PERIOD_SECONDS} seconds'"
            self.db.execute(
                f"update workflow_run set run_at = run_at{shift}, lease_until = lease_until{shift},"
                f" finished_at = finished_at{shift}, updated_at = updated_at{shift}".encode()
            )
            self.db.execute("select set_config('workflow.transition', '', true)")

    @rule(which=which, way=st.sampled_from(["function", "guarded", "unguarded"]))
    def cancel(self, which: int, way: str) -> None:
        run = self._a_run(which)
        ended = [one for one in self.oracle.runs.values() if one.status in ("succeeded", "failed")]
        if way == "unguarded" and ended:
            run = ended[which % len(ended)]
        was = run.status
        changes = self.oracle.cancel(run.id)
        if way == "function":
            said = ask(self.db, statements.cancel_runs([uuid.UUID(run.id)], None))
            assert said == {uuid.UUID(run.id): changes}
            return
        guard = " and status in ('pending', 'leased')" if way == "guarded" else ""
        refused = attempt(
            self.db, f"update workflow_run set status = 'cancelled' where id = %s{guard}", run.id
        )
        is_wrong = way == "unguarded" and was in ("succeeded", "failed")
        assert refused == ("WF001" if is_wrong else None)

    @rule(which=which, attempts=st.integers(1, 2))
    def reopen(self, which: int, attempts: int) -> None:
        run = self._a_run(which)
        said = ask(self.db, statements.reopen_runs([uuid.UUID(run.id)], attempts, None))
        assert said == {uuid.UUID(run.id): self.oracle.reopen(run.id, attempts)}

    @rule(wanted=patterns)
    def prune(self, wanted: list[str]) -> None:
        said = ask(self.db, statements.prune_runs(PRUNED_AGE * PERIOD_SECONDS, wanted, None, limit=1000))
        assert said.runs == self.oracle.prune(PRUNED_AGE, wanted)

    @rule(which=which, priority=priorities, later=st.sampled_from([-0.5, 1.5]))
    def edit(self, which: int, priority: int, later: float) -> None:
        run = self._a_run(which)
        refused = attempt(
            self.db,
            "update workflow_run set priority = %s, run_at = clock_timestamp() + make_interval(secs => %s)"
            " where id = %s",
            *(priority, later * PERIOD_SECONDS, run.id),
        )
        assert refused == (None if run.status == "pending" else "WF001")
        if refused is None:
            run.priority, run.run_at = priority, self.oracle.now + later

    @rule(which=which, is_hidden=st.booleans())
    def hide(self, which: int, *, is_hidden: bool) -> None:
        run = self._a_run(which)
        refused = attempt(
            self.db,
            f"update workflow_run set deleted_at = {'now()' if is_hidden else 'null'} where id = %s",
            run.id,
        )
        assert refused == ("WF001" if is_hidden and run.status == "leased" else None)
        if refused is None:
            run.is_hidden = is_hidden

    @rule(which=which, change=st.sampled_from(["status = 'succeeded'", "attempt = 0", "fencing_token = 9"]))
    def write_what_nobody_may(self, which: int, change: str) -> None:
        run = self._a_run(which)
        refused = attempt(self.db, f"update workflow_run set {change} where id = %s", run.id)
        is_so = {
            "status = 'succeeded'": run.status == "succeeded",
            "attempt = 0": run.attempt == 0,
            "fencing_token = 9": run.token == 9,
        }
        assert refused == (None if is_so[change] else "WF001")

    @rule(pattern=st.sampled_from(["ab.%", "a_.x.v1"]), is_enabled=st.sampled_from([True, True, False]))
    def switch(self, pattern: str, *, is_enabled: bool) -> None:
        self.db.execute(
            "insert into workflow_registry (workflow_name, runtime, is_enabled) values (%s, 'python', %s)"
            " on conflict (workflow_name) do update set is_enabled = excluded.is_enabled",
            [pattern, is_enabled],
        )
        (self.oracle.disabled.discard if is_enabled else self.oracle.disabled.add)(pattern)

    # ── what must hold ─────────────────────────────────────────────────────────────────────────────

    @invariant()
    def table_is_what_the_oracle_says(self) -> None:
        rows = {row[0]: row for row in self.db.execute(ROWS.encode()).fetchall()}
        assert rows.keys() == self.oracle.runs.keys()
        for run_id, run in self.oracle.runs.items():
            assert rows[run_id][:COLUMNS] == run.row(), (rows[run_id][:COLUMNS], run.row(), run.events)
            for is_, should in zip(rows[run_id][COLUMNS:], run.times(), strict=True):
                assert (is_ is None) == (should is None)
                assert should is None or _is_near(is_, should - self.oracle.now)

    def teardown(self) -> None:
        """Ask for violations, then forget everything."""
        try:
            found = ask(self.db, statements.verify(slack_seconds=100 * 365 * 86_400))
            assert found == []
        finally:
            self.db.execute("select set_config('workflow.transition', 'prune', false)")
            self.db.execute(
                "delete from workflow_event; delete from workflow_run; delete from workflow_registry"
            )
            self.db.execute("reset workflow.transition")

    def _a_claim(self, which: int) -> Held:
        """Return one of the claims: mostly one that still counts, if need be a new one, else one that is over."""
        if which % 4 and not self._held():
            self._exchange(WORKERS[which % 3], [], ["%"], 2)
        among = (self._held() if which % 4 else self._outlived()) or self.claims
        return among[which % len(among)] if among else Held(str(uuid.UUID(int=1)), TYPES[0], 1, 1, "one")

    def _held(self) -> list[Held]:
        runs = self.oracle.runs
        return [one for one in self.claims if one.id in runs and runs[one.id].is_held(one.fencing_token)]

    def _outlived(self) -> list[Held]:
        """Return the claims of runs that the same worker holds by a later claim."""
        runs = self.oracle.runs
        return [
            one
            for one in self.claims
            if one.id in runs
            and runs[one.id].leased_by == one.worker
            and runs[one.id].token != one.fencing_token
        ]

    def _a_run(self, which: int) -> ExpectedRun:
        if not self.oracle.runs:
            self.insert(TYPES[0], None, 100, 3)
        return list(self.oracle.runs.values())[which % len(self.oracle.runs)]


def _is_near(seconds: float, periods: float) -> bool:
    """Return whether a time is the one expected, up to what a test itself may take."""
    return abs(seconds - periods * PERIOD_SECONDS) < PERIOD_SECONDS / 4


def run_machine(
    db: Database,
    *,
    examples: int = EXAMPLES,
    seed: int = SEED,
    is_shrunk: bool = True,
) -> None:
    """Run the machine on the schema of ``db``; raise what it finds, with the steps that lead to it."""
    machine = type("Core", (CoreMachine,), {"db": db})
    hypothesis.seed(seed)(machine)
    phases = [Phase.generate, Phase.shrink] if is_shrunk else [Phase.generate]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            phases=phases,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


__all__ = ["ENDED", "EXAMPLES", "SEED", "run_machine"]
