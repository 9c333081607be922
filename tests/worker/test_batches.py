"""Handlers that take a list of runs, and what one run in a task leaves to the next."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from builders import a_type, column_of, events_of, rewrite, status_of, submit
from simpleworkflow import AsyncWorkflowRun, RunCancelled, Worker, WorkflowRun
from worker.stage import WorkerThread, ended, error_of, eventually


@dataclass
class Invoice:
    cents: int


@pytest.fixture
def worker(database_url: str) -> Worker:
    return Worker(lease_seconds=3, poll_seconds=0.2, database_url=database_url)


def test_a_batch_is_called_once_with_all_that_waits_and_each_run_has_its_result(db, worker):
    calls: list[list[int]] = []
    runs = [submit(db, "batch.v1", {"cents": cents}) for cents in range(30)]

    @worker.handler("batch.v1", batch_max=20)
    async def handle(runs: list[AsyncWorkflowRun], invoices: list[Invoice]) -> list[int]:
        calls.append([invoice.cents for invoice in invoices])
        return [run.payload["cents"] * 2 for run in runs]

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"succeeded"}

    assert [column_of(db, run_id, "result") for run_id in runs] == [cents * 2 for cents in range(30)]
    assert sorted(cents for call in calls for cents in call) == list(range(30))
    assert max(map(len, calls)) == 20
    assert events_of(db, runs[0]) == ["created", "leased", "succeeded"]


def test_a_batch_in_a_thread_may_return_nothing(db, worker):
    names: set[str] = set()
    runs = [submit(db, "batch.v1") for _ in range(5)]

    @worker.handler("batch.%", batch_max=5)
    def handle(runs: list[WorkflowRun]) -> None:
        names.add(threading.current_thread().name)
        assert not any(run.is_cancelled() for run in runs)

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"succeeded"}

    assert all("handler-" in name for name in names)


def test_an_error_in_the_list_fails_its_run_alone(db, worker):
    good, bad = submit(db, "batch.v1", {"n": 1}), submit(db, "batch.v1", {"n": 0}, max_attempts=1)

    @worker.handler("batch.v1", batch_max=10)
    async def handle(runs: list[AsyncWorkflowRun]) -> list[Any]:
        return ["fine" if run.payload["n"] else ValueError("no n") for run in runs]

    with WorkerThread(worker):
        assert (ended(db, good), ended(db, bad)) == ("succeeded", "failed")

    assert error_of(db, bad) == "ValueError: no n"
    assert column_of(db, good, "result") == "fine"


def test_what_a_batch_raises_fails_the_attempts_of_all_its_runs(db, worker):
    runs = [submit(db, "batch.v1", max_attempts=1) for _ in range(3)]

    @worker.handler("batch.v1", batch_max=10)
    async def handle(runs: list[AsyncWorkflowRun]) -> None:
        raise SystemExit("all of it")

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"failed"}

    assert {error_of(db, run_id) for run_id in runs} == {"SystemExit: all of it"}


@pytest.mark.parametrize("answer", ["text", [1], {"a": 1}, 7], ids=["text", "short", "object", "number"])
def test_an_answer_that_is_no_list_of_as_many_fails_without_retry(db, worker, answer):
    runs = [submit(db, "batch.v1") for _ in range(2)]

    @worker.handler("batch.v1", batch_max=2)
    async def handle(runs: list[AsyncWorkflowRun]) -> Any:
        return answer if len(runs) == 2 else [None]

    with WorkerThread(worker):
        states = {ended(db, run_id) for run_id in runs}

    assert states == {"failed"}
    assert "expected None or a list of 2 results from the batch, got" in error_of(db, runs[0])


@pytest.mark.fault("Bad input", "a payload in a batch cannot be decoded or does not fit", "P11")
def test_a_payload_that_cannot_be_read_is_not_in_the_batch(db, worker):
    seen: list[int] = []
    good = [submit(db, "batch.v1", {"cents": 1}) for _ in range(5)]
    misfit, undecodable = submit(db, "batch.v1", {"euros": 1}), submit(db, "batch.v1")
    rewrite(db, undecodable, f"payload = '{'1' * 5000}'")

    @worker.handler("batch.v1", batch_max=10)
    async def handle(runs: list[AsyncWorkflowRun], invoices: list[Invoice]) -> None:
        seen.append(len(runs))
        assert len(invoices) == len(runs)

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in good} == {"succeeded"}
        assert (ended(db, misfit), ended(db, undecodable)) == ("failed", "failed")

    assert sum(seen) == 5
    assert "cents" in error_of(db, misfit)
    assert "4300 digits" in error_of(db, undecodable)


def test_a_batch_goes_on_while_one_of_its_runs_is_wanted(db, worker):
    started, told, result = threading.Event(), [], []
    runs = [submit(db, "batch.v1") for _ in range(2)]

    @worker.handler("batch.v1", batch_max=2)
    async def handle(runs: list[AsyncWorkflowRun]) -> None:
        started.set()
        try:
            while not all(run.is_cancelled() for run in runs):
                told.extend(str(run.id) for run in runs if run.is_cancelled())
                await asyncio.sleep(0.01)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            result.append("cancelled")
            raise

    with WorkerThread(worker):
        assert started.wait(10)
        db.execute("update workflow_run set status = 'cancelled' where id = %s", [runs[0]])
        eventually(lambda: runs[0] in told)
        assert result == []
        db.execute("update workflow_run set status = 'cancelled' where id = %s", [runs[1]])
        eventually(lambda: result == ["cancelled"])

    assert [status_of(db, run_id) for run_id in runs] == ["cancelled", "cancelled"]


@pytest.mark.fault(
    "Concurrency", "one run of a batch is cancelled, and its handler stops for all", "P3, P4, P8"
)
@pytest.mark.parametrize("kind", ["async", "thread"])
def test_a_batch_that_stops_for_one_cancelled_run_gives_the_others_back(db, worker, kind):
    started, go_on = threading.Event(), threading.Event()
    runs = [submit(db, "batch.v1", max_attempts=1) for _ in range(4)]
    calls: list[int] = []

    def stop_for_one(runs: list[Any]) -> None:
        calls.append(len(runs))
        for run in runs:
            if run.is_cancelled():
                raise RunCancelled(run.id)

    async def handle_async(runs: list[AsyncWorkflowRun]) -> None:
        started.set()
        while not (go_on.is_set() or calls):
            await asyncio.sleep(0.01)
        stop_for_one(runs)

    def handle_in_thread(runs: list[WorkflowRun]) -> None:
        started.set()
        go_on.wait(10)
        stop_for_one(runs)

    worker.handler("batch.v1", batch_max=4)(handle_async if kind == "async" else handle_in_thread)
    with WorkerThread(worker):
        assert started.wait(10)
        db.execute("update workflow_run set status = 'cancelled' where id = %s", [runs[0]])
        threading.Event().wait(0.5)  # until it is told
        go_on.set()
        assert {ended(db, run_id) for run_id in runs[1:]} == {"succeeded"}

    assert status_of(db, runs[0]) == "cancelled"
    assert [events_of(db, run_id)[:4] for run_id in runs[1:]] == [
        ["created", "leased", "released", "leased"]
    ] * 3


def test_a_batch_that_says_cancelled_of_runs_that_are_not_fails_their_attempts(db, worker):
    runs = [submit(db, "batch.v1", max_attempts=1) for _ in range(2)]

    @worker.handler("batch.v1", batch_max=2)
    async def handle(runs: list[AsyncWorkflowRun]) -> None:
        raise RunCancelled("nobody")

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"failed"}


def test_a_batch_past_its_time_out_is_cancelled(db, worker):
    runs = [submit(db, "batch.v1", max_attempts=1) for _ in range(2)]

    @worker.handler("batch.v1", batch_max=2, timeout_seconds=0.2)
    async def handle(runs: list[AsyncWorkflowRun]) -> None:
        await asyncio.sleep(60)

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"failed"}

    assert "time-out of 0.2 s" in error_of(db, runs[0])


def test_a_batch_is_never_larger_than_the_concurrency(db, database_url):
    sizes: list[int] = []
    worker = Worker(concurrency=3, poll_seconds=0.2, database_url=database_url)
    runs = [submit(db, "batch.v1") for _ in range(10)]

    @worker.handler("batch.v1", batch_max=100)
    async def handle(runs: list[AsyncWorkflowRun]) -> None:
        sizes.append(len(runs))

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"succeeded"}

    assert max(sizes) <= 3


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"batch_max": 0}, "batch_max: expected 1 to 10000, got 0"),
        ({"batch_max": 10_001}, "batch_max: expected 1 to 10000, got 10001"),
        (
            {"batch_max": 5, "cpu": True},
            "'a.b': cpu=True executes one run in a process, got batch_max as well",
        ),
    ],
)
def test_a_batch_that_cannot_be_is_refused(worker, options, error):
    with pytest.raises((ValueError, TypeError), match=error):
        worker.handler("a.b", **options)(lambda _: None)


def test_a_batch_takes_a_list_of_payloads(worker):
    with pytest.raises(TypeError, match="expected a list of payloads for a batch"):

        @worker.handler("a.b", batch_max=2)
        def handle(runs: list[WorkflowRun], invoice: Invoice) -> None: ...


# ── one task after the other ───────────────────────────────────────────────────────────────────────

context: contextvars.ContextVar[str] = contextvars.ContextVar("context", default="nothing")


def test_what_a_handler_sets_in_its_context_is_not_seen_by_the_next(db, database_url):
    worker = Worker(concurrency=1, poll_seconds=0.2, database_url=database_url)
    name = a_type()
    runs = [submit(db, name) for _ in range(20)]

    @worker.handler(name)
    async def handle(run: AsyncWorkflowRun) -> str:
        before = context.get()
        context.set(str(run.id))
        return before

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"succeeded"}

    assert {column_of(db, run_id, "result") for run_id in runs} == {"nothing"}


def test_a_handler_that_cancels_its_own_task_disturbs_no_other(db, database_url):
    worker = Worker(concurrency=1, poll_seconds=0.2, database_url=database_url)
    runs = [submit(db, "own.task.v1", {"n": n}) for n in range(10)]

    @worker.handler("own.task.v1")
    async def handle(run: AsyncWorkflowRun) -> int:
        if run.payload["n"] % 2 == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # and is gone before the cancellation comes
        else:
            await asyncio.sleep(0)
        return run.payload["n"]

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"succeeded"}

    assert [column_of(db, run_id, "attempt") for run_id in runs] == [1] * 10


def test_handlers_that_wait_execute_beside_each_other_up_to_the_concurrency(db, database_url):
    worker = Worker(concurrency=20, poll_seconds=0.2, database_url=database_url)
    runs = [submit(db, "beside.v1") for _ in range(40)]
    executing, most = 0, 0

    @worker.handler("beside.v1")
    async def handle(run: AsyncWorkflowRun) -> None:
        nonlocal executing, most
        executing += 1
        most = max(most, executing)
        await asyncio.sleep(0.2)
        executing -= 1

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"succeeded"}

    assert most == 20


def test_handlers_that_never_wait_let_the_loop_do_other_things(db, database_url):
    worker = Worker(concurrency=100, poll_seconds=0.2, database_url=database_url)
    runs = [submit(db, "busy.v1") for _ in range(100)]
    turns: list[int] = []

    @worker.on_startup
    async def begin() -> None:
        asyncio.get_running_loop().call_soon(turn)

    def turn() -> None:
        turns.append(1)
        asyncio.get_running_loop().call_later(0.001, turn)

    counts: list[int] = []

    @worker.handler("busy.v1")
    async def handle(run: AsyncWorkflowRun) -> None:
        until = asyncio.get_running_loop().time() + 0.002
        while asyncio.get_running_loop().time() < until:
            pass
        counts.append(len(turns))

    with WorkerThread(worker):
        assert {ended(db, run_id) for run_id in runs} == {"succeeded"}

    assert counts[-1] - counts[0] >= 10
