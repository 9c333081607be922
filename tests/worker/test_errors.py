"""What a handler raises, and how it is stopped: retries, time-outs, cancellations."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from builders import Database, age, column_of, count, events_of, status_of, submit
from simpleworkflow import Client, LeaseLost, RetryAfter, Worker
from worker.stage import WorkerThread, ended, error_of, eventually

RAISED = {
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "cancelled": asyncio.CancelledError,
    "generator": GeneratorExit,
    "stop": StopIteration,
    "stop-async": StopAsyncIteration,
}
started: dict[str, threading.Event] = {}
seen: dict[str, Any] = {}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class TooFar(Exception):
    pass


def begun(run: Any) -> None:
    started.setdefault(str(run.id), threading.Event()).set()


def wait_for_start(run_id: str) -> None:
    assert started.setdefault(run_id, threading.Event()).wait(5)


def sync_raise(run: Any) -> None:
    raise RAISED[run.payload]("out")


async def async_raise(run: Any) -> None:
    raise RAISED[run.payload]("out")


def cpu_work(run: Any) -> Any:
    match run.payload["do"]:
        case "hang":
            time.sleep(60)
        case "exit":
            os._exit(7)
        case "fork":
            if os.fork():
                os._exit(7)
            time.sleep(15)
        case "fork and hang":
            os.fork()
            time.sleep(15)
        case "unpicklable":
            return threading.Lock()
        case "raise":
            raise SystemExit("from a process")
        case "heartbeat":
            run.progress(10)
            return [run.heartbeat(30), run.is_cancelled(), os.getpid()]
        case "large":
            return len(run.payload["text"])
        case "until cancelled":
            while not run.is_cancelled():
                time.sleep(0.01)
            time.sleep(60)
    return None


def a_worker(url: str) -> Worker:
    worker = Worker(
        lease_seconds=2, poll_seconds=0.2, database_url=url, concurrency=20, threads=8, cpu_processes=2
    )
    worker.register("raise.sync.v1", sync_raise, backoff=0.0)
    worker.register("raise.async.v1", async_raise, backoff=0.0)
    for name, backoff in {
        "default": None,
        "float": 100.0,
        "list": [50.0, 200.0],
        "call": lambda n: n * 300.0,
    }.items():
        worker.register(f"backoff.{name}.v1", _no_luck, backoff=backoff)
    worker.register("never.v1", _too_far, never=(TooFar,))
    worker.register("max.v1", _no_luck, max_attempts=2, backoff=0.0)

    @worker.handler("after.v1")
    def after(run: Any) -> None:
        raise RetryAfter(1234)

    @worker.handler("unspeakable.v1")
    async def unspeakable(run: Any) -> None:
        raise Unspeakable

    @worker.handler("slow.async.v1", timeout_seconds=0.1, max_attempts=1)
    async def slow(run: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen[str(run.id)] = "cancelled"
            raise

    @worker.handler("slow.thread.v1", timeout_seconds=0.1, max_attempts=1)
    def slow_thread(run: Any) -> None:
        begun(run)
        eventually(run.is_cancelled)
        try:
            run.heartbeat(30)
        except LeaseLost as error:
            seen[str(run.id)] = error

    worker.register("cpu.v1", cpu_work, cpu=True, timeout_seconds=0.3, max_attempts=1)
    worker.register("cpu.long.v1", cpu_work, cpu=True, max_attempts=1)
    worker.handler("cpu.local.v1", cpu=True, max_attempts=1)(lambda _: None)

    @worker.handler("wait.async.v1")
    async def wait(run: Any) -> str:
        begun(run)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen[str(run.id)] = time.monotonic()
            match run.payload:
                case "raise":
                    raise ValueError("on the way out") from None
                case "return":
                    return "all the same"
            raise
        return "never"

    @worker.handler("wait.thread.v1")
    def wait_in_a_thread(run: Any) -> str:
        begun(run)
        eventually(run.is_cancelled, every=0.002)
        seen[str(run.id)] = time.monotonic()
        if run.payload == "raise":
            raise ValueError("on the way out")
        return "all the same"

    return worker


def _no_luck(run: Any) -> None:
    raise ValueError("no luck")


async def _too_far(run: Any) -> None:
    raise TooFar("over the edge")


@pytest.fixture(scope="module", autouse=True)
def working(module_url: str, run_worker: Callable[[Worker], WorkerThread]) -> WorkerThread:
    return run_worker(a_worker(module_url))


def retried(db: Database, run_id: str) -> float:
    """Wait for a retry; return the seconds until it is due."""
    eventually(lambda: events_of(db, run_id)[-1] == "retried")
    row = db.execute(
        "select extract(epoch from run_at - updated_at)::float from workflow_run where id = %s", [run_id]
    ).fetchone()
    assert row is not None
    return float(row[0])


# ── retries ────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_word_a_retry_waits_attempt_squared_minutes(module_db: Database) -> None:
    run_id = submit(module_db, "backoff.default.v1", max_attempts=3)

    first = retried(module_db, run_id)
    age(module_db, run_id, 120)
    eventually(lambda: column_of(module_db, run_id, "attempt") == 2)
    second = retried(module_db, run_id)

    assert 54 <= first <= 66
    assert 216 <= second <= 264
    assert error_of(module_db, run_id) == "ValueError: no luck"


@pytest.mark.parametrize(("name", "seconds"), [("float", 100), ("list", 50), ("call", 300)])
def test_a_backoff_may_be_seconds_a_list_or_a_function(module_db: Database, name: str, seconds: int) -> None:
    run_id = submit(module_db, f"backoff.{name}.v1")

    assert retried(module_db, run_id) == pytest.approx(seconds, abs=1)


def test_a_handler_may_say_when_to_try_again(module_db: Database) -> None:
    run_id = submit(module_db, "after.v1")

    assert retried(module_db, run_id) == pytest.approx(1234, abs=1)


def test_an_error_that_is_never_worth_a_retry_fails_at_once(module_db: Database) -> None:
    run_id = submit(module_db, "never.v1", max_attempts=5)

    assert ended(module_db, run_id) == "failed"
    assert column_of(module_db, run_id, "attempt") == 1


@pytest.mark.parametrize(("max_attempts", "attempts"), [(5, 2), (1, 1)])
def test_attempts_end_with_the_handlers_budget_or_the_runs(
    module_db: Database, max_attempts: int, attempts: int
) -> None:
    run_id = submit(module_db, "max.v1", max_attempts=max_attempts)

    assert ended(module_db, run_id) == "failed"
    assert column_of(module_db, run_id, "attempt") == attempts


@pytest.mark.fault("Death, pause, leases", "a handler raises what ends programs", "P4, P11")
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("name", RAISED)
def test_whatever_a_handler_raises_is_a_failed_attempt_and_the_worker_lives(
    module_db: Database, working: WorkerThread, colour: str, name: str
) -> None:
    run_id = submit(module_db, f"raise.{colour}.v1", name, max_attempts=2)

    assert ended(module_db, run_id) == "failed"

    assert events_of(module_db, run_id) == ["created", "leased", "retried", "leased", "failed"]
    assert RAISED[name].__name__ in error_of(module_db, run_id)
    assert working.thread.is_alive()


@pytest.mark.fault("Death, pause, leases", "a handler raises an error whose message raises", "P11")
def test_an_error_that_cannot_say_itself_is_a_failed_attempt(module_db: Database) -> None:
    run_id = submit(module_db, "unspeakable.v1")

    retried(module_db, run_id)

    assert error_of(module_db, run_id).startswith("Unspeakable (its message cannot be read")


# ── time-outs ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Death, pause, leases", "an async handler past its time-out", "P4")
def test_an_async_handler_past_its_time_out_is_cancelled(module_db: Database) -> None:
    run_id = submit(module_db, "slow.async.v1")

    assert ended(module_db, run_id) == "failed"
    assert error_of(module_db, run_id) == "TimeoutError: the handler ran longer than its time-out of 0.1 s"
    assert seen[run_id] == "cancelled"


@pytest.mark.fault("Death, pause, leases", "a sync handler in a thread past its time-out", "P3, P4")
def test_a_thread_past_its_time_out_is_fenced(module_db: Database) -> None:
    run_id = submit(module_db, "slow.thread.v1")

    assert ended(module_db, run_id) == "failed"

    assert "time-out of 0.1 s" in error_of(module_db, run_id)
    assert isinstance(eventually(lambda: seen.get(run_id)), LeaseLost)


@pytest.mark.fault(
    "Death, pause, leases", "three times as many sync handlers as threads hang past their time-outs", "P1"
)
def test_threads_that_hang_past_their_time_out_do_not_stop_the_others(module_db: Database) -> None:
    type_ = "slow.thread.v1"
    before = count(module_db, "workflow_run", "type = %s and status = 'failed'", type_)
    for _ in range(24):  # three times the number of threads
        submit(module_db, type_)

    eventually(
        lambda: count(module_db, "workflow_run", "type = %s and status = 'failed'", type_) == before + 24
    )


# ── processes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault("Death, pause, leases", "in a handler's own process", "P4, P11")
@pytest.mark.parametrize(
    ("do", "error"),
    [
        ("hang", "time-out of 0.3 s"),
        ("exit", "the handler's process died: exit code 7"),
        ("unpicklable", "cannot pickle"),
        ("raise", "SystemExit: from a process"),
    ],
)
def test_what_goes_wrong_in_a_process_fails_that_attempt_alone(
    module_db: Database, do: str, error: str
) -> None:
    run_id, after = submit(module_db, "cpu.v1", {"do": do}), submit(module_db, "cpu.v1", {"do": "heartbeat"})

    assert ended(module_db, run_id) == "failed"
    assert ended(module_db, after) == "succeeded", error_of(module_db, after)

    assert error in error_of(module_db, run_id)
    assert column_of(module_db, after, "result")[:2] == [True, False]
    assert column_of(module_db, after, "result")[2] != os.getpid()


@pytest.mark.fault("Death, pause, leases", "a handler's own process dies, a fork of it holds its pipe", "P1")
def test_a_process_that_died_is_noticed_though_its_fork_lives_on(module_db: Database) -> None:
    run_id = submit(module_db, "cpu.long.v1", {"do": "fork"})

    assert ended(module_db, run_id) == "failed"
    assert "the handler's process died: exit code 7" in error_of(module_db, run_id)


@pytest.mark.fault(
    "Death, pause, leases", "a handler's own process overruns, a fork of it holds its pipes", "P1"
)
def test_killing_a_process_whose_fork_lives_on_blocks_nobody(module_db: Database) -> None:
    ready = submit(module_db, "cpu.v1", {"do": "heartbeat"})  # a process has started
    assert ended(module_db, ready) == "succeeded"

    run_id = submit(module_db, "cpu.v1", {"do": "fork and hang"})

    assert ended(module_db, run_id, seconds=4) == "failed"  # a kill that waits for the fork waits for 5
    assert "time-out of 0.3 s" in error_of(module_db, run_id)


def test_a_handler_that_cannot_be_sent_to_a_process_fails_its_attempt(module_db: Database) -> None:
    run_id = submit(module_db, "cpu.local.v1")

    assert ended(module_db, run_id) == "failed"
    assert "pickle" in error_of(module_db, run_id)


def test_a_large_payload_reaches_a_process(module_db: Database) -> None:
    run_id = submit(module_db, "cpu.long.v1", {"do": "large", "text": "x" * 900_000})

    assert ended(module_db, run_id) == "succeeded", error_of(module_db, run_id)
    assert column_of(module_db, run_id, "result") == 900_000


@pytest.mark.fault("Death, pause, leases", "a run is cancelled whose handler's own process hangs", "P8")
def test_a_process_whose_run_is_cancelled_is_killed(module_db: Database) -> None:
    run_id = submit(module_db, "cpu.long.v1", {"do": "hang"})
    eventually(lambda: status_of(module_db, run_id) == "leased")

    module_db.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])

    after = [submit(module_db, "cpu.long.v1", {"do": "heartbeat"}) for _ in range(4)]
    assert {ended(module_db, one) for one in after} == {"succeeded"}
    assert events_of(module_db, run_id)[-1] == "cancelled"


# ── cancelling ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["sql", "client"])
@pytest.mark.parametrize("colour", ["async", "thread"])
@pytest.mark.parametrize("answer", ["stop", "raise", "return"])
def test_a_cancelled_run_is_told_to_its_handler_whose_answer_then_counts_for_nothing(
    module_db: Database, module_url: str, how: str, colour: str, answer: str
) -> None:
    run_id = submit(module_db, f"wait.{colour}.v1", answer)
    wait_for_start(run_id)

    cancelled_at = time.monotonic()
    if how == "sql":
        module_db.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])
    else:
        with Client(module_url) as client:
            cancelled_at = time.monotonic()
            client.cancel(run_id)
    told_at = eventually(lambda: seen.get(run_id))

    assert told_at - cancelled_at < 0.25
    after = submit(module_db, "wait.async.v1", "sentinel")
    wait_for_start(after)
    module_db.execute("update workflow_run set status = 'cancelled' where id = %s", [after])
    assert events_of(module_db, run_id) == ["created", "leased", "cancelled"]
    assert (column_of(module_db, run_id, "result"), column_of(module_db, run_id, "last_error")) == (
        None,
        None,
    )


def test_a_cancellation_whose_notification_is_lost_is_learned_at_the_next_heartbeat(
    module_db: Database,
) -> None:
    run_id = submit(module_db, "wait.async.v1", "stop")
    wait_for_start(run_id)

    with module_db.transaction():
        # Nobody is told: the listening sessions end in the instant of the cancellation.
        module_db.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])
        module_db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen %%' and query like %s",
            [f"%{module_db.schema}%"],
        )

    eventually(lambda: seen.get(run_id), seconds=3)
    assert events_of(module_db, run_id) == ["created", "leased", "cancelled"]
