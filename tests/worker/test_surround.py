"""What surrounds attempts may fail: a run's outcome is its handler's, and no place is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from builders import Database, column_of, submit
from simpleworkflow import Worker
from worker.stage import WorkerThread, ended, error_of

PLACES = 2


@pytest.mark.fault("Bad input", "what surrounds an attempt raises before it", "P11")
def test_what_raises_on_the_way_in_fails_its_run_alone(db: Database, database_url: str) -> None:
    called: list[str] = []
    worker = Worker(concurrency=PLACES, database_url=database_url)

    @worker.handler("surround.%", max_attempts=1)
    async def handle(run: Any) -> None:
        called.append(run.type)

    @contextmanager
    def around(claimed: Any) -> Iterator[None]:
        if claimed[0].type.endswith("bad.v1"):
            raise LookupError("no such tracer")
        yield

    worker.surround(around)
    with WorkerThread(worker):
        bad = [submit(db, "surround.bad.v1") for _ in range(PLACES + 1)]
        assert [ended(db, run_id) for run_id in bad] == ["failed"] * len(bad)
        assert ended(db, submit(db, "surround.good.v1")) == "succeeded"

    assert error_of(db, bad[0]) == "LookupError: no such tracer"
    assert called == ["surround.good.v1"]


@pytest.mark.fault("Bad input", "what surrounds an attempt raises after it", "P2, P11")
@pytest.mark.parametrize("where", ["telling", "leaving"])
def test_what_raises_on_the_way_out_changes_no_outcome(
    db: Database, database_url: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(concurrency=PLACES, database_url=database_url)

    @worker.handler("surround.run.v1", max_attempts=1)
    async def handle(run: Any) -> int:
        return 7

    def fail(_: Any) -> None:
        raise LookupError("secret")

    @contextmanager
    def around(_: Any) -> Iterator[Any]:
        yield fail if where == "telling" else None
        if where == "leaving":
            fail(None)

    worker.surround(around)
    with WorkerThread(worker):
        runs = [submit(db, "surround.run.v1") for _ in range(PLACES + 1)]
        assert [ended(db, run_id) for run_id in runs] == ["succeeded"] * len(runs)

    assert column_of(db, runs[0], "result") == 7
    assert "what surrounds attempts has failed: LookupError" in caplog.text
    assert "secret" not in caplog.text
