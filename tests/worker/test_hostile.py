"""Handlers that are hostile to their process: the attempt is lost, never the service, never another run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from builders import Database, column_of, events_of, submit
from worker.stage import Notes, Program, ended, error_of, eventually

SECTION = "Death, pause, leases"
CRASHED = ["created", "leased", "expired", "leased", "succeeded"]
RAISED = ["created", "leased", "retried", "leased", "succeeded"]
FINE = ["created", "leased", "succeeded"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def service(module_url: str, folder: Path) -> Iterator[Program]:
    """A service that all these handlers are let loose on, one after the other."""
    with Program(
        module_url, folder, target="hostile:worker", options=["--processes", "2", "--concurrency", "4"]
    ) as program:
        yield program.started(2)


@pytest.mark.fault(SECTION, "a handler", "P2, P4, P11")
@pytest.mark.parametrize(
    ("deed", "kind", "events"),
    [
        ("fork_and_return", "async", FINE),
        ("fork_and_return", "thread", FINE),
        ("fork_and_return", "cpu", FINE),
        ("fork_and_stay", "async", FINE),
        ("fork_and_speak", "thread", FINE),
        ("fork_and_speak", "cpu", FINE),
        ("close_descriptors", "async", CRASHED),
        ("close_descriptors", "thread", CRASHED),
        ("close_descriptors", "cpu", RAISED),
        ("close_output", "thread", FINE),
        ("change_place", "async", FINE),
        ("ignore_signals", "async", FINE),
        ("exhaust_memory", "thread", RAISED),
        ("exhaust_descriptors", "cpu", RAISED),
        ("recur", "async", RAISED),
        ("recur", "thread", RAISED),
        ("overflow_the_stack", "thread", CRASHED),
        ("overflow_the_stack", "cpu", RAISED),
        ("abort", "async", CRASHED),
        ("abort", "cpu", RAISED),
        ("die_amid_a_message", "cpu", RAISED),
        ("stop_the_loop", "async", CRASHED),
        ("cancel_everybody", "async", CRASHED),
        ("start_threads", "thread", RAISED),
    ],
)
def test_what_a_handler_does_to_its_process_costs_at_most_its_attempt(
    service: Program, module_db: Database, folder: Path, deed: str, kind: str, events: list[str]
) -> None:
    run_id = submit(module_db, f"hostile.{kind}.v1", deed)

    assert ended(module_db, run_id) == "succeeded", error_of(module_db, run_id)

    after = [submit(module_db, "app.quick.v1") for _ in range(4)]
    assert {ended(module_db, one) for one in after} == {"succeeded"}
    assert events_of(module_db, run_id) == events
    assert column_of(module_db, run_id, "result") == events.count("leased")
    executions = Notes(folder).all("hostile", run_id)
    assert len(executions) == events.count("leased"), "a fork has executed it again"
    if deed == "fork_and_speak":
        assert Notes(folder).all(
            "fork-refused:expected_the_process_that_the_handler_was_called_in,_got_a_fork_of_it", run_id
        )
    assert service.process.poll() is None


@pytest.mark.fault(
    SECTION, "a handler's own process dies, its worker has lost its output and ignores SIGCHLD", "P1, P11"
)
def test_a_process_that_died_is_noticed_whatever_others_did_to_the_worker(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker") as program:
        program.started()
        for kind, deed in (("thread", "close_output"), ("async", "ignore_signals")):
            assert ended(db, submit(db, f"hostile.{kind}.v1", deed)) == "succeeded"

        run_id = submit(db, "hostile.cpu.v1", "abort")

        assert ended(db, run_id) == "succeeded"
        assert events_of(db, run_id) == RAISED
        assert error_of(db, run_id) == "RuntimeError: the handler's process died: exit code unknown"


@pytest.mark.fault(
    SECTION, "a handler's own process dies, where the system tells of ends and where it does not", "P1, P11"
)
@pytest.mark.parametrize("surround", [{}, {"WITHOUT_PIDFD": "1"}], ids=["told", "untold"])
def test_it_is_said_what_a_process_died_of(
    db: Database, database_url: str, tmp_path: Path, surround: dict[str, str]
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker", **surround):
        assert ended(db, submit(db, "hostile.cpu.v1", "change_place")) == "succeeded"
        for deed in ("abort", "die_amid_a_message"):
            run_id = submit(db, "hostile.cpu.v1", deed)

            assert ended(db, run_id) == "succeeded"
            assert events_of(db, run_id) == RAISED
            assert error_of(db, run_id) == "RuntimeError: the handler's process died: killed by SIGABRT"


@pytest.mark.fault(SECTION, "a handler's own process is stopped amid its answer", "P8, P11")
def test_a_process_that_stops_amid_a_message_holds_up_nobody(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker") as program:
        run_id = submit(db, "hostile.cpu.v1", "stop_amid_a_message")
        Notes(tmp_path).wait("hostile", run_id)

        for _ in range(3):
            assert ended(db, submit(db, "app.quick.v1")) == "succeeded"

        db.execute("update workflow_run set status = 'cancelled' where id = %s", [run_id])
        pid = int(Notes(tmp_path).all("hostile", run_id)[0][3])
        eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the process is killed")
        assert ended(db, submit(db, "hostile.cpu.v1", "abort")) == "succeeded", program.log


@pytest.mark.fault(
    SECTION, "a handler's own process is stopped before a large payload is sent to it", "P1, P11"
)
def test_a_process_that_takes_no_payload_holds_up_nobody(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker"):
        first = submit(db, "hostile.cpu.v1", "talk")
        assert ended(db, first) == "succeeded"
        pid = int(Notes(tmp_path).all("hostile", first)[-1][3])
        os.kill(pid, signal.SIGSTOP)
        try:
            run_id = submit(db, "hostile.cpu.v1", "x" * 1_000_000)
            eventually(lambda: column_of(db, run_id, "status") == "leased")

            for _ in range(3):
                assert ended(db, submit(db, "app.quick.v1")) == "succeeded"
        finally:
            os.kill(pid, signal.SIGCONT)

        assert ended(db, run_id) == "succeeded"
        assert int(Notes(tmp_path).all("hostile", run_id)[0][3]) == pid


@pytest.mark.fault(
    "Shutdown, deploys, migrations", "SIGTERM after a handler has taken all signals for itself", "P1"
)
def test_a_worker_whose_handler_took_the_signals_stops_all_the_same(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker") as program:
        program.started()
        assert ended(db, submit(db, "hostile.async.v1", "ignore_signals")) == "succeeded"
        held = submit(db, "app.sleep.v1", {"seconds": 0.5})
        Notes(tmp_path).wait("sleep", held)

        sent_at = program.signal(signal.SIGTERM)

        assert program.exit_code() == 0
        assert monotonic() - sent_at < 2
    assert events_of(db, held) == FINE


@pytest.mark.fault(
    SECTION, "a handler asks for a long lease, then the database is away for three plain ones", "P3"
)
def test_a_lease_that_a_handler_made_long_is_not_given_up_early(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(database_url, tmp_path, target="hostile:worker", LEASE="1") as program:
        run_id = submit(db, "hostile.wait.v1", 20)
        Notes(tmp_path).wait("lengthened", run_id)
        pid = int(Notes(tmp_path).all("lengthened", run_id)[0][3])

        os.kill(program.pid, signal.SIGSTOP)  # nobody beats
        stopped_at = monotonic()
        eventually(lambda: monotonic() - stopped_at > 3)
        os.kill(program.pid, signal.SIGCONT)

        assert column_of(db, run_id, "leased_by").split(":")[-2] == str(pid)
        assert "leases that could not be extended" not in program.log
        assert events_of(db, run_id) == ["created", "leased", "heartbeat"]


@pytest.mark.fault(
    SECTION, "sync handlers hang past their time-outs, more than threads may be left", "P1, P11"
)
def test_threads_that_are_left_behind_are_bounded_and_named(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    with Program(
        database_url, tmp_path, target="hostile:worker", CONCURRENCY="100", LEFT_PER_PLACE="2"
    ) as program:
        program.started()
        for _ in range(20):  # 4 threads: 8 may be left, then 4 keep their places
            submit(db, "hostile.hang.v1")

        eventually(lambda: len(Notes(tmp_path).all("hang")) == 12, what="12 hang")
        eventually(lambda: "no more places are freed until they end" in program.log)
        quick = submit(db, "app.quick.v1")  # async: another place

        assert ended(db, quick) == "succeeded"
        assert len(Notes(tmp_path).all("hang")) == 12
        assert "hostile.hang.v1" in program.log
