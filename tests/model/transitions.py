"""One run, two workers, an operator and a clock: every state that they can reach, and what must hold in each.

The rules are those of the table of transitions.  Each guard can be weakened by name, to show that it is needed: the
search must then find a violation.  A worker may hold several claims of the run, of which it has not learned that they
are over; an answer may be lost, so that it goes on believing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

WORKERS = (0, 1)
ENDED = ("succeeded", "failed", "cancelled")
TOKENS_MAX = 4
ATTEMPTS_MAX = 2
REOPENED_MAX = 1

ALLOWED = {
    ("pending", "claim", "leased"),
    ("leased", "succeed", "succeeded"),
    ("leased", "fail", "failed"),
    ("leased", "retry", "pending"),
    ("leased", "retry", "failed"),
    ("leased", "release", "pending"),
    ("leased", "expire", "pending"),
    ("leased", "expire", "failed"),
    ("pending", "cancel", "cancelled"),
    ("leased", "cancel", "cancelled"),
    ("failed", "reopen", "pending"),
    ("cancelled", "reopen", "pending"),
}
WEAKENED = {
    "finish without a look at the token": "who acts on a lease holds its token",
    "finish without a look at the lease": "at most one outcome for each claim",
    "release without a look at the token": "who acts on a lease holds its token",
    "heartbeat without a look at the token": "who acts on a lease holds its token",
    "release gives the token back": "the token never goes down",
    "claim leaves the token": "the token grows by one at each claim",
    "claim without a lock": "every change is one of the table",
    "expire by id, without looking again": "every change is one of the table",
    "expire before the lease has lapsed": "a lease is taken only when it has lapsed or its worker is dead",
    "expire gives the attempt back": "failures stay within their budget",
    "retry gives the attempt back": "failures stay within their budget",
    "retry without an attempt left": "a pending run has an attempt left",
    "release keeps the attempt": "a release costs no attempt",
    "cancel of what has ended": "every change is one of the table",
    "cancel leaves the lease": "leased if and only if somebody holds it",
    "reopen of a success": "every change is one of the table",
    "reopen without a budget": "a pending run has an attempt left",
}


@dataclass(frozen=True)
class State:
    """The run, what each worker believes to hold, and what the laws need to remember."""

    status: str = "pending"
    attempt: int = 0
    max_attempts: int = ATTEMPTS_MAX
    token: int = 0
    holder: int | None = None
    is_lapsed: bool = False
    beliefs: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
    alive: tuple[bool, bool] = (True, True)
    looked: tuple[bool, bool] = (False, False)  # who has read the run as pending, where claims do not lock
    is_marked: bool = False  # read as lapsed, where expiry does not look again
    outcomes: int = 0  # of the present claim
    failures: int = 0  # executions that ended by error or crash
    budget: int = ATTEMPTS_MAX
    reopened: int = 0


class Step(NamedTuple):
    """What happened, by which worker with which token, and the state that it made."""

    name: str
    after: State
    worker: int | None = None
    token: int | None = None


class Violation(NamedTuple):
    """A law that is broken, and the shortest way to it."""

    law: str
    way: tuple[str, ...]


def steps(state: State, weak: str | None) -> Iterator[Step]:
    """Return everything that can happen next."""
    for worker in WORKERS:
        yield from _claims(state, worker, weak)
        for token in state.beliefs[worker]:
            yield from _reports(state, worker, token, weak)
        if state.alive[worker]:
            yield Step("die", replace(_forget(state, worker), alive=_put(state.alive, worker, value=False)))
        else:
            yield Step("start", replace(state, alive=_put(state.alive, worker, value=True)))
    if state.status == "leased" and not state.is_lapsed:
        yield Step("lapse", replace(state, is_lapsed=True))
    yield from _expiries(state, weak)
    yield from _operators(state, weak)


def _claims(state: State, worker: int, weak: str | None) -> Iterator[Step]:
    if not state.alive[worker] or state.token == TOKENS_MAX:
        return
    # Nothing is asked of the attempts: a pending run has one left, or a law is broken.
    may = state.status == "pending"
    if weak == "claim without a lock":
        if may and not state.looked[worker]:
            yield Step("look", replace(state, looked=_put(state.looked, worker, value=True)))
        may = state.looked[worker]
    if may:
        token = state.token + (weak != "claim leaves the token")
        claimed = replace(
            state,
            status="leased",
            attempt=state.attempt + 1,
            token=token,
            holder=worker,
            is_lapsed=False,
            outcomes=0,
            looked=_put(state.looked, worker, value=False),
            beliefs=_put(state.beliefs, worker, value=state.beliefs[worker] | {token}),
        )
        yield Step("claim", claimed, worker, token)


def _reports(state: State, worker: int, token: int, weak: str | None) -> Iterator[Step]:
    """What a worker says of a claim; each answer may come, or be lost."""
    for name in ("succeed", "fail", "retry", "release", "heartbeat"):
        verb = name if name in ("release", "heartbeat") else "finish"
        is_held = state.status == "leased" or weak == f"{verb} without a look at the lease"
        is_same = state.token == token or weak == f"{verb} without a look at the token"
        by_holder = state.holder == worker or not (state.status == "leased" and verb != "heartbeat")
        if not (is_held and is_same and by_holder):
            yield Step("refused", _disbelieve(state, worker, token))
            continue
        after = _reported(state, name, weak)
        yield Step(name, after, worker, token)  # the answer is lost: the worker goes on believing
        if name != "heartbeat":
            yield Step(name, _disbelieve(after, worker, token), worker, token)


def _reported(state: State, name: str, weak: str | None) -> State:
    if name == "heartbeat":
        return replace(state, is_lapsed=False)
    left = replace(state, holder=None, is_lapsed=False)
    if name == "release":
        back = state.attempt - (weak != "release keeps the attempt")
        token = state.token - (weak == "release gives the token back")
        return replace(left, status="pending", attempt=back, token=token)
    left = replace(left, outcomes=state.outcomes + 1)
    if name == "succeed":
        return replace(left, status="succeeded")
    is_last = state.attempt >= state.max_attempts and weak != "retry without an attempt left"
    status = "failed" if name == "fail" or is_last else "pending"
    back = state.attempt - (weak == "retry gives the attempt back" and status == "pending")
    return replace(left, status=status, attempt=back, failures=state.failures + 1)


def _expiries(state: State, weak: str | None) -> Iterator[Step]:
    is_over = state.status == "leased" and (
        state.is_lapsed
        or (state.holder is not None and not state.alive[state.holder])
        or weak == "expire before the lease has lapsed"
    )
    if weak == "expire by id, without looking again":
        if is_over and not state.is_marked:
            yield Step("mark", replace(state, is_marked=True))
        is_over = state.is_marked
    if is_over:
        status = "pending" if state.attempt < state.max_attempts else "failed"
        yield Step(
            "expire",
            replace(
                state,
                status=status,
                attempt=state.attempt - (weak == "expire gives the attempt back" and status == "pending"),
                holder=None,
                is_lapsed=False,
                is_marked=False,
                failures=state.failures + 1,
            ),
        )


def _operators(state: State, weak: str | None) -> Iterator[Step]:
    if state.status not in ENDED or (weak == "cancel of what has ended" and state.status != "cancelled"):
        holder = state.holder if weak == "cancel leaves the lease" else None
        yield Step("cancel", replace(state, status="cancelled", holder=holder, is_lapsed=False))
    may = state.status in ("failed", "cancelled") or (
        weak == "reopen of a success" and state.status == "succeeded"
    )
    if may and state.reopened < REOPENED_MAX:
        more = 0 if weak == "reopen without a budget" else 1
        yield Step(
            "reopen",
            replace(
                state,
                status="pending",
                max_attempts=state.attempt + more,
                budget=state.failures + 1,
                reopened=state.reopened + 1,
            ),
        )


# ── what must hold ─────────────────────────────────────────────────────────────────────────────────


def broken_laws(before: State, step: Step) -> Iterator[str]:
    """Return the laws that a step breaks."""
    after = step.after
    if before.status != after.status and (before.status, step.name, after.status) not in ALLOWED:
        yield "every change is one of the table"
    if step.name == "claim" and before.status != "pending":
        yield "every change is one of the table"
    if before.status in ENDED and after.status != before.status and step.name != "reopen":
        yield "an end is left only by a reopen"
    if (
        step.token is not None
        and step.name != "claim"
        and (step.token != before.token or (before.status == "leased" and before.holder != step.worker))
    ):
        yield "who acts on a lease holds its token"
    if after.token < before.token:
        yield "the token never goes down"
    if step.name == "claim" and after.token != before.token + 1:
        yield "the token grows by one at each claim"
    if after.outcomes > 1:
        yield "at most one outcome for each claim"
    if (after.status == "leased") != (after.holder is not None):
        yield "leased if and only if somebody holds it"
    believers = sum(after.token in beliefs for beliefs in after.beliefs)
    if after.status == "leased" and believers > 1:
        yield "one valid lease"
    if after.attempt > after.max_attempts:
        yield "attempts stay within their budget"
    if after.failures > after.budget:
        yield "failures stay within their budget"
    if after.status == "pending" and after.attempt >= after.max_attempts:
        yield "a pending run has an attempt left"
    if step.name == "release" and after.attempt != before.attempt - 1:
        yield "a release costs no attempt"
    is_dead = before.holder is not None and not before.alive[before.holder]
    if step.name == "expire" and not (before.is_lapsed or is_dead):
        yield "a lease is taken only when it has lapsed or its worker is dead"


def explore(weak: str | None = None) -> tuple[int, dict[str, Violation]]:
    """Visit every state, breadth first; return how many there are, and the shortest way to each broken law.

    With a weakened guard the search ends at the first law that is broken in the way expected of it.
    """
    start = State()
    ways: dict[State, tuple[State, str] | None] = {start: None}
    to_visit = deque([start])
    found: dict[str, Violation] = {}
    while to_visit:
        state = to_visit.popleft()
        for step in steps(state, weak):
            for law in broken_laws(state, step):
                found.setdefault(law, Violation(law, (*_way(ways, state), step.name)))
            if weak is not None and WEAKENED[weak] in found:
                return len(ways), found
            if step.after not in ways:
                ways[step.after] = (state, step.name)
                to_visit.append(step.after)
    return len(ways), found


def _way(ways: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    names: list[str] = []
    while (before := ways[state]) is not None:
        state, name = before
        names.append(name)
    return tuple(reversed(names))


def _put(pair: tuple, place: int, *, value: object) -> tuple:  # type: ignore[type-arg]
    return (value, pair[1]) if place == 0 else (pair[0], value)


def _disbelieve(state: State, worker: int, token: int) -> State:
    return replace(state, beliefs=_put(state.beliefs, worker, value=state.beliefs[worker] - {token}))


def _forget(state: State, worker: int) -> State:
    looked = _put(state.looked, worker, value=False)
    return replace(state, beliefs=_put(state.beliefs, worker, value=frozenset()), looked=looked)
