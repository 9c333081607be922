"""The table of transitions keeps its laws in every state that can be reached, and each of its guards is needed."""

from __future__ import annotations

import pytest

from model.transitions import WEAKENED, explore


@pytest.mark.fault("Concurrency", "a model of the transitions, every state", "P2, P3, P4, P5")
def test_every_state_that_can_be_reached_keeps_the_laws(record_property):
    states, found = explore()

    record_property("states", states)
    assert found == {}
    assert states > 10_000


@pytest.mark.fault(
    "Concurrency", "a model of the transitions with a weakened guard is found out", "P2, P3, P4, P5"
)
@pytest.mark.parametrize("guard", WEAKENED)
def test_without_this_guard_a_law_is_broken(guard):
    _, found = explore(guard)

    assert WEAKENED[guard] in found
