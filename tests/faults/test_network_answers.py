"""Answers that are lost: the server has done it (or never heard of it), and nobody was told."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from builders import Database, a_run, a_type, column_of, count, events_of, lapse, status_of, submit
from faults.proxy import Proxy
from simpleworkflow import AsyncClient, Client, DatabaseUnavailable, NewRun, RetryAfter, Worker
from worker.stage import Notes, Program, WorkerThread, ended, eventually

NETWORK = "Database and network"
LOST = ["answer", "query"]


@pytest.fixture
def start(proxy: Proxy) -> Iterator[Callable[..., tuple[Worker, list[int]]]]:
    """Start a worker of one type through the proxy; return it and the attempts it has begun."""
    with ExitStack() as stack:

        def start_one(type_: str, handle: Callable[..., Any] | None = None, **options: Any) -> list[int]:
            worker = Worker(**{"lease_seconds": 1, "poll_seconds": 0.1, "database_url": proxy.url} | options)
            begun: list[int] = []

            @worker.handler(type_, backoff=0)
            async def execute(run: Any) -> Any:
                begun.append(run.attempt)
                return run.attempt if handle is None else await handle(run)

            stack.enter_context(WorkerThread(worker))
            proxy.wait_for(r"\.exchange\(")
            return begun

        yield start_one


# ── producers ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(NETWORK, "the COMMIT of many runs, or its answer, is lost", "P1")
@pytest.mark.parametrize("what", LOST)
def test_many_runs_whose_commit_is_lost_are_unknown_and_not_sent_again(
    open_client: Any, proxy: Proxy, db: Database, what: Any
) -> None:
    client = open_client(proxy.url)
    client.list()
    lost = proxy.swallow("^commit", what=what)

    with pytest.raises(DatabaseUnavailable, match="unknown") as caught:
        client.submit_many([NewRun(type="a.run.v1")] * 5001)

    assert lost.wait()
    assert caught.value.is_unknown
    assert count(db, "workflow_run") == (5001 if what == "answer" else 0)
    assert proxy.count(r"\.submit_many\(") == 2


@pytest.mark.fault(NETWORK, "the answer to a keyed submission is lost, then the database stays away", "P9")
def test_an_answer_that_was_lost_before_an_outage_stays_unknown(
    open_client: Any, proxy: Proxy, db: Database
) -> None:
    client = open_client(proxy.url)
    client.list()
    proxy.swallow(r"\.submit\(")
    proxy.refuse()

    with pytest.raises(DatabaseUnavailable, match="unknown") as caught:
        client.submit("a.run.v1", idempotency_key="k")
    proxy.heal()
    again = client.submit("a.run.v1", idempotency_key="k")

    assert caught.value.is_unknown
    assert not again.created
    assert count(db, "workflow_run") == count(db, "workflow_event") == 1


@pytest.mark.fault(NETWORK, "a submission never reaches the database, which then stays away", "P1")
def test_a_submission_that_found_no_connection_is_known_not_to_have_happened(
    open_client: Any, proxy: Proxy, db: Database
) -> None:
    client = open_client(proxy.url)
    client.list()
    proxy.refuse()
    proxy.reset()

    with pytest.raises(DatabaseUnavailable) as caught:
        client.submit("a.run.v1")

    assert not caught.value.is_unknown
    assert count(db, "workflow_run") == 0


@pytest.mark.fault(NETWORK, "the answer to a question is lost, then the database stays away", "P1")
def test_a_question_whose_answer_was_lost_is_not_called_unknown(open_client: Any, proxy: Proxy) -> None:
    client = open_client(proxy.url)
    client.list()
    proxy.swallow("list_page|list_runs|workflow_run")
    proxy.refuse()

    with pytest.raises(DatabaseUnavailable) as caught:
        client.list()

    assert not caught.value.is_unknown


@pytest.mark.fault(NETWORK, "the answer to a reopen is lost", "P6")
def test_a_reopen_whose_answer_was_lost_is_unknown_and_done_once(
    open_client: Any, proxy: Proxy, db: Database
) -> None:
    run_id = a_run(db, status="cancelled")
    client = open_client(proxy.url)
    client.list()
    proxy.swallow(r"\.reopen\(")

    with pytest.raises(DatabaseUnavailable) as caught:
        client.reopen(run_id)

    assert caught.value.is_unknown
    assert events_of(db, run_id) == ["created", "cancelled", "reopened"]


@pytest.mark.fault(NETWORK, "the answer to the COMMIT of a caller's own transaction is lost", "P9")
def test_a_submission_in_a_transaction_whose_commit_was_lost_is_found_again_by_its_key(
    proxy: Proxy, db: Database, database_url: str
) -> None:
    proxy.swallow("^commit")
    with Client(database_url) as client:
        with psycopg.connect(proxy.url.partition("&schema")[0]) as conn:
            client.submit("a.run.v1", idempotency_key="k", conn=conn)
            with pytest.raises(psycopg.OperationalError):
                conn.commit()

        assert not client.submit("a.run.v1", idempotency_key="k").created
    assert count(db, "workflow_run") == count(db, "workflow_event") == 1


@pytest.mark.fault(NETWORK, "the answer to a submission on a caller's autocommit connection is lost", "P1")
def test_a_submission_on_an_autocommit_connection_may_have_happened(
    proxy: Proxy, db: Database, database_url: str
) -> None:
    proxy.swallow(r"insert into \S+\.workflow_run")
    with (
        Client(database_url) as client,
        psycopg.connect(proxy.url.partition("&schema")[0], autocommit=True) as conn,
        pytest.raises(DatabaseUnavailable) as caught,
    ):
        client.submit("a.run.v1", conn=conn)

    assert caught.value.is_unknown
    assert count(db, "workflow_run") == 1


@pytest.mark.fault(
    NETWORK, "an async submission gets no answer, nothing is closed: the caller's time-out", "P1"
)
@pytest.mark.parametrize("pattern", [r"\.submit", r"\.submit_many\(", "^commit"])
def test_an_async_producer_s_own_time_out_ends_the_call_at_once(
    proxy: Proxy, db: Database, pattern: str
) -> None:
    async def story() -> float:
        async with AsyncClient(proxy.url) as client:
            await client.list()
            proxy.swallow(pattern, then="silence")
            began = monotonic()
            asked = client.submit_many([NewRun(type="a.run.v1")] * (1 if pattern == r"\.submit" else 5001))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asked, 0.3)
            seconds = monotonic() - began
            await client.submit("after.v1")
            return seconds

    assert asyncio.run(story()) < 1.5
    assert count(db, "workflow_run", "type = 'after.v1'") == 1


@pytest.mark.fault(NETWORK, "wf submit: the answer to the insert is lost", "P9")
@pytest.mark.parametrize("key", [None, "k"])
def test_wf_submit_tells_by_its_exit_code_that_nobody_knows(
    program: Any, proxy: Proxy, db: Database, key: str | None
) -> None:
    proxy.swallow(r"\.submit\(" if key else r"insert into \S+\.workflow_run")

    answer = program("submit", "a.run.v1", *(["--key", key] if key else []), DATABASE_URL=proxy.url)

    assert answer.code == (0 if key else 6)
    assert answer.err.count("\n") == 1, answer.err
    assert count(db, "workflow_run") == count(db, "workflow_event") == 1


# ── workers ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(NETWORK, "the answer to a claim is lost", "P1, P2")
@pytest.mark.parametrize("then", ["cut", "silence"])
def test_a_claim_whose_answer_was_lost_comes_back_by_expiry(
    proxy: Proxy, db: Database, start: Callable[..., list[int]], then: Any
) -> None:
    type_ = a_type()
    begun = start(type_)
    lost = proxy.swallow(r"\.exchange\(", saying=type_, then=then)
    # A claim that was sent before is not the one, and shall not find the run.
    proxy.wait_for(r"\.exchange\(", count=proxy.count(r"\.exchange\(") + 3)

    run_id = submit(db, type_)

    assert lost.wait()
    assert ended(db, run_id) == "succeeded"
    assert begun == [2]
    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]


@pytest.mark.fault(NETWORK, "a finish, or the answer to it, is lost", "P2")
@pytest.mark.parametrize("then", ["cut", "silence"])
@pytest.mark.parametrize("what", LOST)
def test_a_finish_whose_answer_was_lost_has_one_outcome_and_one_event(
    proxy: Proxy, db: Database, start: Callable[..., list[int]], what: Any, then: Any
) -> None:
    type_ = a_type()
    begun = start(type_, lease_seconds=4)
    run_id = submit(db, type_, delay=0.3)
    lost = proxy.swallow(rf"\.(exchange|finish)\(.*{run_id}", what=what, then=then)

    assert lost.wait()
    assert ended(db, run_id) == "succeeded"
    proxy.wait_for(rf"\.(exchange|finish)\(.*{run_id}", count=2)
    assert begun == [1]
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]
    assert column_of(db, run_id, "result") == 1


@pytest.mark.fault(NETWORK, "the answer to a retry is lost", "P2, P4")
def test_a_retry_whose_answer_was_lost_is_one_retry(
    proxy: Proxy, db: Database, start: Callable[..., list[int]]
) -> None:
    async def fail_once(run: Any) -> int:
        if run.attempt == 1:
            raise RetryAfter(0.2)  # else the same exchange could claim it again, and lose that claim too
        return int(run.attempt)

    type_ = a_type()
    begun = start(type_, fail_once)
    run_id = submit(db, type_, delay=0.3)
    lost = proxy.swallow(rf"\.(exchange|finish)\(.*{run_id}")

    assert lost.wait()
    assert ended(db, run_id) == "succeeded"
    assert begun == [1, 2]
    assert events_of(db, run_id) == ["created", "leased", "retried", "leased", "succeeded"]


@pytest.mark.fault(NETWORK, "a heartbeat, or the answer to it, is lost", "P3")
@pytest.mark.parametrize("then", ["cut", "silence"])
@pytest.mark.parametrize("what", LOST)
def test_a_heartbeat_whose_answer_was_lost_costs_no_lease(
    proxy: Proxy, db: Database, start: Callable[..., list[int]], what: Any, then: Any
) -> None:
    lease_seconds = 4 if then == "silence" else 2

    async def last(run: Any) -> int:
        await asyncio.sleep(lease_seconds + 0.7)
        return int(run.attempt)

    type_ = a_type()
    begun = start(type_, last, lease_seconds=lease_seconds)
    proxy.wait_for(r"\.heartbeat\(")  # its heart, a process, takes longer to start
    run_id = submit(db, type_, delay=0.3)
    lost = proxy.swallow(rf"\.heartbeat\(.*{run_id}", what=what, then=then)

    assert lost.wait()
    assert ended(db, run_id) == "succeeded"
    assert begun == [1]
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]


@pytest.mark.fault(NETWORK, "the answer to a handler's own heartbeat or progress is lost", "P3, P6")
@pytest.mark.parametrize("verb", ["heartbeat", "progress"])
def test_a_handler_s_word_whose_answer_was_lost_is_said_again(
    proxy: Proxy, db: Database, start: Callable[..., list[int]], verb: str
) -> None:
    async def say(run: Any) -> None:
        await (run.heartbeat(5) if verb == "heartbeat" else run.progress(50))

    type_ = a_type()
    begun = start(type_, say, lease_seconds=4)
    lost = proxy.swallow(rf"\.{verb}\(")
    run_id = submit(db, type_)

    assert lost.wait()
    assert ended(db, run_id) == "succeeded"
    assert begun == [1]
    assert events_of(db, run_id) in (
        ["created", "leased", verb, "succeeded"],
        ["created", "leased", verb, verb, "succeeded"],
    )


@pytest.mark.fault(NETWORK, "the answer to an expiry is lost", "P6")
def test_an_expiry_whose_answer_was_lost_happened_once(
    proxy: Proxy, db: Database, start: Callable[..., list[int]]
) -> None:
    type_ = a_type()
    run_id = a_run(db, status="leased", type=type_)
    db.execute("update workflow_registry set is_enabled = false")
    lost = proxy.swallow(r"\.expire\(", saying=run_id)
    begun = start(type_)

    lapse(db, run_id)

    assert lost.wait()
    assert ended(db, run_id) == "succeeded"
    assert begun == [2]
    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]


@pytest.mark.fault(NETWORK, "the answer to a stopping worker's release is lost", "P3, P4")
@pytest.mark.parametrize("what", LOST)
def test_a_release_whose_answer_was_lost_gives_the_attempt_back_once(
    proxy: Proxy, db: Database, tmp_path: Path, what: Any
) -> None:
    lost = proxy.swallow(r"\.release\(", what=what)
    with Program(proxy.url, tmp_path, GRACE="0") as program:
        program.started()
        run_id = submit(db, "app.sleep.v1", {"seconds": 60})
        Notes(tmp_path).wait("sleep", run_id)

        program.signal(signal.SIGTERM)

        assert program.exit_code() == 0
    assert lost.wait()
    assert (status_of(db, run_id), column_of(db, run_id, "attempt")) == ("pending", 0)
    assert events_of(db, run_id) == ["created", "leased", "released"]


@pytest.mark.fault(NETWORK, "the answer to a starting worker's registration is lost", "P1")
def test_a_worker_whose_registration_was_lost_starts_all_the_same(
    proxy: Proxy, db: Database, start: Callable[..., list[int]]
) -> None:
    type_ = a_type()
    lost = proxy.swallow(r"\.register_types\(")

    begun = start(type_)

    assert lost.wait()
    assert ended(db, submit(db, type_)) == "succeeded"
    assert begun == [1]
    assert count(db, "workflow_registry", "workflow_name = %s", type_) == 1


@pytest.mark.fault(NETWORK, "the answer to the end of a cancelled handler's run is lost", "P8")
def test_a_cancel_that_meets_a_lost_finish_is_final(
    proxy: Proxy, db: Database, start: Callable[..., list[int]]
) -> None:
    gate = threading.Event()

    async def hold(run: Any) -> int:
        await asyncio.to_thread(gate.wait, 10)
        return 1

    type_ = a_type()
    start(type_, hold, lease_seconds=4)
    run_id = submit(db, type_)
    eventually(lambda: status_of(db, run_id) == "leased")
    proxy.black_hole("to_client", of="^listen")  # the wake-up does not come
    lost = proxy.swallow(rf"\.(exchange|finish)\(.*{run_id}", what="query", then="silence")
    gate.set()
    assert lost.wait()

    db.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])

    proxy.wait_for(rf"\.(exchange|finish)\(.*{run_id}", count=2)
    eventually(lambda: not proxy.sessions(of=run_id) or proxy.count(r"\.exchange\(") > 3)
    assert events_of(db, run_id) == ["created", "leased", "cancelled"]
    assert column_of(db, run_id, "result") is None
