"""A run that kills its workers, among others that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Database, column_of, count, events_of, submit
from worker.stage import Notes, Program, ended

INNOCENT_SECONDS = 0.8
POISON_SECONDS = 0.3


@pytest.mark.fault("Death, pause, leases", "one poison run among nine innocent long ones", "P4, P1")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_poison_run_costs_the_innocent_beside_it_no_attempt_in_the_end(
    processes: int, db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, options=["--processes", str(processes)]) as program:
        program.started(processes)
        poison = submit(db, "app.poison.v1", {"seconds": POISON_SECONDS})
        innocents = [submit(db, "app.long.v1", {"seconds": INNOCENT_SECONDS}) for _ in range(9)]

        assert ended(db, poison, seconds=30) == "failed"
        assert {ended(db, run_id, seconds=30) for run_id in innocents} == {"succeeded"}

    notes = Notes(tmp_path)
    assert len(notes.all("poison")) == 3
    assert events_of(db, poison) == ["created", *["leased", "expired"] * 3]
    assert {column_of(db, run_id, "attempt") for run_id in innocents} == {1}
    assert count(db, "workflow_event", "event_type = 'failed'") == 0
    # The third time the poison was alone: nothing that ran beside it has died with it.
    last_pid = notes.all("poison")[-1][3]
    beside = [note for note in notes.all("long") if note[3] == last_pid]
    assert {note[1:] for note in beside} <= {note[1:] for note in notes.all("long-end")}
