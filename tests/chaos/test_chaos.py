"""All faults at random against a system under load; then the audit.

``make chaos`` runs it: ``SEED=…`` and ``MINUTES=…``, or ``PLAN=…`` to repeat the faults of a former run.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos import faults
from chaos.audit import audit, gather
from chaos.plan import KINDS, Plan, make_plan, read_plan
from chaos.report import complaint, figures, table
from chaos.stage import log_problems, played

SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
MINUTES = float(os.environ.get("CHAOS_MINUTES") or 0.5)
RATE = float(os.environ.get("CHAOS_RATE") or 200)
PLAN = os.environ.get("CHAOS_PLAN")


@pytest.mark.fault(
    "Death, pause, leases",
    "chaos: all faults at random under load, 6 workers, 3 producers, an operator",
    "P1, P2, P3, P4, P5, P6, P9",
)
def test_whatever_happens_nothing_is_lost_and_nothing_ends_twice(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    plan = read_plan(Path(PLAN)) if PLAN else make_plan(SEED, MINUTES * 60)
    record_property("seed", plan.seed)
    print(f"\n{plan}\nin {tmp_path}")

    with played(plan, tmp_path, RATE) as run, run.ground.server.connect() as conn:
        evidence = gather(conn, tmp_path)
        broken = audit(conn, evidence, run.windows())
        others = run.problems + log_problems(run.ground)

        if broken or others:
            pytest.fail(complaint(run, evidence, broken, others), pytrace=False)
        shown = figures(run, evidence)
        print(table(shown))
        print(json.dumps(shown))


# ── the plan ───────────────────────────────────────────────────────────────────────────────────────


def test_a_seed_gives_the_same_plan_again_and_another_seed_another() -> None:
    assert make_plan(7, 120) == make_plan(7, 120)
    assert make_plan(7, 120) != make_plan(8, 120)


def test_a_plan_that_was_written_to_a_file_is_the_same_when_read(tmp_path: Path) -> None:
    plan = make_plan(7, 60)
    (tmp_path / "plan.json").write_text(plan.to_json())

    assert read_plan(tmp_path / "plan.json") == plan


def test_two_minutes_have_every_kind_of_fault_and_each_is_over_in_time() -> None:
    plan: Plan = make_plan(7, 120)

    assert {fault.kind for fault in plan.faults} == set(KINDS)
    assert all(fault.at > 0 and fault.at + fault.seconds <= 120.01 for fault in plan.faults)


def test_every_kind_in_a_plan_is_one_that_can_be_done() -> None:
    assert set(KINDS) == set(faults.KINDS)
