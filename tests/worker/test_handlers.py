"""Which handler gets a run, with what, and what becomes of what it returns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

from builders import Database, a_type, column_of, count, events_of, rewrite, status_of, submit
from simpleworkflow import AsyncWorkflowRun, Worker, WorkflowExecutor, WorkflowRun
from worker.stage import WorkerThread, ended, error_of, eventually


@dataclass
class Invoice:
    number: str
    cents: int


class Order(pydantic.BaseModel):
    number: str
    cents: int


class Receipt(msgspec.Struct):
    number: str
    cents: int


class Doubler(WorkflowExecutor):
    def execute(self, run: WorkflowRun) -> int:
        return run.payload["n"] * 2


class AsyncDoubler(WorkflowExecutor):
    async def execute(self, run: AsyncWorkflowRun) -> int:
        await asyncio.sleep(0)
        return run.payload["n"] * 2


PAYLOAD_KINDS = {"dataclass": Invoice, "pydantic": Order, "msgspec": Receipt}
UNSTORABLE: dict[str, Any] = {
    "nan": float("nan"),
    "set": {1, 2},
    "bytes": b"abc",
    "nul": "a\x00b",
    "large": "x" * 2_000_000,
}


def a_worker(url: str) -> Worker:
    worker = Worker(lease_seconds=3, poll_seconds=0.2, database_url=url, concurrency=150, threads=10)
    worker.register("doubler.sync.v1", Doubler())
    worker.register("doubler.async.v1", AsyncDoubler())
    worker.handler("echo.sync.v1")(
        lambda run: {"got": run.payload, "thread": threading.current_thread().name}
    )

    @worker.handler("echo.async.v1")
    async def echo(run: AsyncWorkflowRun) -> dict[str, Any]:
        return {"got": run.payload, "thread": threading.current_thread().name}

    worker.handler("match.exact.v1")(lambda _: "exact")
    worker.handler("match.%")(lambda _: "prefix")
    worker.handler("match.long.%")(lambda _: "longer prefix")
    for name, kind in PAYLOAD_KINDS.items():
        worker.handler(f"typed.{name}.v1")(_typed(kind))

    @worker.handler("unstorable.%")
    async def unstorable(run: AsyncWorkflowRun) -> Any:
        return UNSTORABLE.get(run.payload.get("return", ""), "fine")

    @worker.handler("plain.%")
    async def plain(run: AsyncWorkflowRun) -> str:
        return "fine"

    worker.handler("about.sync.v1", max_attempts=5)(_about)

    @worker.handler("about.async.v1")
    async def about(run: AsyncWorkflowRun) -> list[Any]:
        is_wanted = await run.heartbeat(30)
        await run.progress(50, "half")
        return [
            str(run.id),
            run.type,
            run.attempt,
            run.max_attempts,
            run.fencing_token,
            is_wanted,
            run.is_cancelled(),
        ]

    return worker


def _typed(kind: type) -> Callable[..., Any]:
    def handler(run: WorkflowRun, payload: Any) -> list[Any]:
        return [type(payload).__name__, payload.number, payload.cents]

    handler.__annotations__["payload"] = kind
    return handler


def _about(run: WorkflowRun) -> list[Any]:
    is_wanted = run.heartbeat(30)
    run.progress(50, "half")
    return [
        str(run.id),
        run.type,
        run.attempt,
        run.max_attempts,
        run.fencing_token,
        is_wanted,
        run.is_cancelled(),
    ]


@pytest.fixture(scope="module", autouse=True)
def working(module_url: str, run_worker: Callable[[Worker], WorkerThread]) -> WorkerThread:
    return run_worker(a_worker(module_url))


def result_of(db: Database, type_: str, payload: Any = None) -> Any:
    run_id = submit(db, type_, payload, max_attempts=3)
    assert ended(db, run_id) == "succeeded", error_of(db, run_id)
    return column_of(db, run_id, "result")


# ── who gets it ────────────────────────────────────────────────────────────────────────────────────


def test_a_sync_handler_runs_in_a_thread(module_db: Database) -> None:
    result = result_of(module_db, "echo.sync.v1", {"a": [1, None, "ü"]})

    assert result["got"] == {"a": [1, None, "ü"]}
    assert result["thread"].startswith("handler-")


def test_an_async_handler_runs_on_the_loop_of_the_worker(module_db: Database, working: WorkerThread) -> None:
    result = result_of(module_db, "echo.async.v1", "text")

    assert result == {"got": "text", "thread": working.thread.name}


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_executor_object_may_be_sync_or_async(module_db: Database, colour: str) -> None:
    assert result_of(module_db, f"doubler.{colour}.v1", {"n": 21}) == 42


def test_an_exact_type_wins_over_every_prefix(module_db: Database) -> None:
    assert result_of(module_db, "match.exact.v1") == "exact"


def test_a_longer_prefix_wins_over_a_shorter_one(module_db: Database) -> None:
    assert result_of(module_db, "match.long.way.v1") == "longer prefix"
    assert result_of(module_db, "match.lon.v1") == "prefix"


def test_a_type_without_a_handler_stays_pending_with_attempt_0(module_db: Database) -> None:
    stranger = submit(module_db, "nobody.handles.v1")

    result_of(module_db, "echo.sync.v1")

    assert status_of(module_db, stranger) == "pending"
    assert column_of(module_db, stranger, "attempt") == 0


def test_the_types_of_a_worker_are_in_the_registry(module_db: Database) -> None:
    rows = module_db.execute("select workflow_name, runtime from workflow_registry").fetchall()

    assert ("match.long.%", "python") in rows
    assert ("echo.async.v1", "python") in rows


def test_a_type_that_an_operator_disabled_is_not_claimed(module_db: Database) -> None:
    module_db.execute(
        "insert into workflow_registry (workflow_name, runtime, is_enabled) values ('plain.off.v1', 'python', false)"
    )

    disabled = submit(module_db, "plain.off.v1")
    result_of(module_db, "plain.on.v1")

    assert status_of(module_db, disabled) == "pending"
    module_db.execute("update workflow_registry set is_enabled = true where workflow_name = 'plain.off.v1'")
    assert ended(module_db, disabled) == "succeeded"


def test_patterns_narrow_what_a_worker_claims(
    db: Database, database_url: str, start: Callable[..., Any]
) -> None:
    worker = Worker(patterns=["mine.%"], poll_seconds=0.1, database_url=database_url)
    worker.handler("%")(lambda _: "done")
    mine, other = submit(db, "mine.a.v1"), submit(db, "other.a.v1")

    start(worker)

    assert ended(db, mine) == "succeeded"
    assert (status_of(db, other), column_of(db, other, "attempt")) == ("pending", 0)


# ── payloads ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", PAYLOAD_KINDS)
def test_the_payload_is_read_into_what_the_handler_names(module_db: Database, name: str) -> None:
    result = result_of(module_db, f"typed.{name}.v1", {"number": "INV-1", "cents": 995})

    assert result == [PAYLOAD_KINDS[name].__name__, "INV-1", 995]


@pytest.mark.parametrize("name", PAYLOAD_KINDS)
def test_a_payload_that_does_not_fit_fails_without_retry_and_names_the_field(
    module_db: Database, name: str
) -> None:
    run_id = submit(module_db, f"typed.{name}.v1", {"number": "INV-1", "cents": "many"})

    assert ended(module_db, run_id) == "failed"
    assert column_of(module_db, run_id, "attempt") == 1
    assert "cents" in error_of(module_db, run_id)


@pytest.mark.fault("Concurrency", "one undecodable payload among 100 claimed", "P11")
@pytest.mark.parametrize(
    "payload",
    ["1" + "0" * 400 + ".5", "1" * 5000, "[" * 3000 + "]" * 3000, "-1e99999"],
    ids=["float", "int", "deep", "neg"],
)
def test_a_payload_that_python_cannot_decode_fails_alone_among_a_hundred(
    module_db: Database, payload: str
) -> None:
    type_ = a_type("plain")
    with module_db.transaction():
        module_db.execute(
            "insert into workflow_run (type, payload) select %s, '{}' from generate_series(1, 99)", [type_]
        )
        row = module_db.execute(
            "insert into workflow_run (type) values (%s) returning id", [type_]
        ).fetchone()
        assert row is not None
        # Past the guard, which lets nothing in that is too deep: a row may be older than the guard.
        rewrite(module_db, str(row[0]), f"payload = '{{\"n\": {payload}}}'")

    eventually(
        lambda: count(module_db, "workflow_run", "type = %s and finished_at is not null", type_) == 100
    )

    assert status_of(module_db, str(row[0])) == "failed"
    assert error_of(module_db, str(row[0])).startswith("PayloadMismatch: payload ")
    assert count(module_db, "workflow_run", "type = %s and status = 'succeeded'", type_) == 99
    assert count(module_db, "workflow_run", "type = %s and attempt <> 1", type_) == 0


# ── results ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Concurrency", "un-storable results among 100 finished together", "P11")
def test_results_that_cannot_be_stored_fail_alone_among_a_hundred_without_retry(module_db: Database) -> None:
    type_ = a_type("unstorable")
    kinds = [*UNSTORABLE, *[""] * (100 - len(UNSTORABLE))]
    module_db.execute(
        "insert into workflow_run (type, payload) select %s, jsonb_build_object('return', kind) "
        "from unnest(%s::text[]) as kind",
        [type_, kinds],
    )

    eventually(
        lambda: count(module_db, "workflow_run", "type = %s and finished_at is not null", type_) == 100
    )

    failed = module_db.execute(
        "select payload ->> 'return', last_error, attempt from workflow_run where type = %s and status = 'failed'",
        [type_],
    ).fetchall()
    assert sorted(row[0] for row in failed) == sorted(UNSTORABLE)
    assert all("the result cannot be stored" in row[1] and row[2] == 1 for row in failed)
    assert count(module_db, "workflow_run", "type = %s and result = '\"fine\"'", type_) == 100 - len(
        UNSTORABLE
    )


# ── the run itself ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_handler_knows_its_run_and_may_extend_it_and_say_how_far_it_is(
    module_db: Database, colour: str
) -> None:
    run_id = submit(module_db, f"about.{colour}.v1", max_attempts=7)

    assert ended(module_db, run_id) == "succeeded", error_of(module_db, run_id)

    assert column_of(module_db, run_id, "result") == [run_id, f"about.{colour}.v1", 1, 7, 1, True, False]
    assert events_of(module_db, run_id) == ["created", "leased", "heartbeat", "progress", "succeeded"]
    said = module_db.execute(
        "select data -> 'progress' from workflow_event where workflow_id = %s and event_type = 'progress'",
        [run_id],
    ).fetchone()
    assert said == ({"percent": 50, "message": "half"},)
