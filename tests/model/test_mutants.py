"""The tests would notice: each guard that is taken away in the real functions is missed by the oracle or in a race."""

from __future__ import annotations

import os

import pytest

from model.machine import run_machine
from model.mutants import MUTANTS, plant
from sql import racing
from sql.interleaving import Session

# Enough for the latest of them to be found, with seeds of its own so that changing the other leaves it alone.  More
# than one: what a step finds due depends on how fast the machine is, so a seed does not always play the same.
EXAMPLES = 150
# The search ends with the first that finds it: one mutant took four, and now and then more.
SEEDS = range(1, 13)
# Those that the design names die within seconds; MODEL_MUTANTS=all tries all of them, some minutes.
NAMED = (
    "finish without a look at the token",
    "finish without a look at the holder",
    "release gives the token back",
    "claim leaves the token",
    "claim does not count",
    "a crash costs no attempt",
    "expire before the lease has lapsed",
    "cancel of what has ended",
    "prune leaves the events",
)
TRIED = list(MUTANTS) if os.environ.get("MODEL_MUTANTS") == "all" else NAMED


@pytest.fixture
def sessions(database_url):
    both = [Session(database_url), Session(database_url)]
    yield both
    for session in both:
        session.close()


def run_all(db):
    for seed in SEEDS:
        run_machine(db, examples=EXAMPLES, seed=seed, is_shrunk=False)


@pytest.mark.parametrize("name", [name for name in TRIED if MUTANTS[name].race is None])
def test_a_guard_that_is_gone_is_missed_by_the_oracle(db, name):
    plant(db, MUTANTS[name])

    with pytest.raises(BaseException) as found:  # noqa: PT011 - also PostgreSQL's own checks may find it
        run_all(db)

    assert not isinstance(found.value, KeyboardInterrupt)


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.race])
def test_a_guard_that_is_gone_is_missed_in_a_race(db, sessions, name):
    mutant = MUTANTS[name]
    assert mutant.race is not None
    first, second = mutant.race
    plant(db, mutant)

    with pytest.raises(AssertionError):
        racing.race(db, sessions, getattr(racing, mutant.begin), ([first], [second]))
