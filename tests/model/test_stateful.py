"""The SQL core does what the oracle does, whatever is asked of it in whatever order."""

from __future__ import annotations

import pytest

from model.machine import SEED, run_machine


@pytest.mark.slow
@pytest.mark.fault(
    "Concurrency",
    "random operations against an oracle: lost answers, crashes, lapsed leases",
    "P1, P2, P3, P4, P5, P6, P9",
)
def test_the_core_agrees_with_its_oracle(db, record_property):
    record_property("seed", SEED)
    print(f"MODEL_SEED={SEED}")

    run_machine(db)
