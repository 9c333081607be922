"""What a handler returns or raises fails its own run at most, and every page can show it."""

from __future__ import annotations

import pytest

from builders import column_of, events_of, last_event, submit
from input.apps import PROGRESS, RAISED, STORABLE, UNSTORABLE, a_worker
from simpleworkflow.cli import main
from worker.stage import ended, error_of

SECTION = "Bad input"


@pytest.fixture(scope="module", autouse=True)
def working(module_url, run_worker):
    """One worker for all of them: it has to live through each."""
    return run_worker(a_worker(lease_seconds=3, poll_seconds=0.2, database_url=module_url))


@pytest.fixture
def shown(module_url, capsys):
    """Show a run by every command; fail if one cannot, or lets through what a terminal obeys."""

    def show(run_id):
        said = []
        for command in (
            ["run", "show", run_id],
            ["run", "show", run_id, "--json"],
            ["run", "watch", run_id],
            ["run", "list"],
        ):
            assert main([*command, "--database-url", module_url]) == 0, capsys.readouterr().err
            out = capsys.readouterr().out
            assert all(character == "\n" or character.isprintable() for character in out), command
            said.append(out)
        return said

    return show


@pytest.mark.fault(SECTION, "a handler returns what cannot be stored", "P2, P11")
@pytest.mark.parametrize("colour", ["async", "thread"])
@pytest.mark.parametrize("name", UNSTORABLE)
def test_a_result_that_cannot_be_stored_fails_its_run_without_retry(module_db, working, shown, name, colour):
    run_id, after = submit(module_db, f"return.{colour}.v1", name), submit(module_db, "echo.v1", name)

    assert ended(module_db, run_id, seconds=60) == "failed"
    assert ended(module_db, after, seconds=60) == "succeeded"

    assert error_of(module_db, run_id).startswith("the result cannot be stored: ")
    assert UNSTORABLE[name][1] in error_of(module_db, run_id)
    assert len(error_of(module_db, run_id)) < 400
    assert events_of(module_db, run_id) == ["created", "leased", "failed"]
    assert working.thread.is_alive()
    if colour == "async":
        shown(run_id)


@pytest.mark.fault(SECTION, "a handler returns what is no JSON by itself", "P2, P11")
@pytest.mark.parametrize("name", STORABLE)
def test_a_result_that_has_a_json_form_is_stored_in_it(module_db, shown, name):
    run_id = submit(module_db, "return.async.v1", name)

    assert ended(module_db, run_id, seconds=60) == "succeeded", error_of(module_db, run_id)

    if STORABLE[name][1] is not None:
        assert column_of(module_db, run_id, "result") == STORABLE[name][1]
    shown(run_id)


@pytest.mark.fault(SECTION, "a handler raises what cannot be told", "P4, P11")
@pytest.mark.parametrize("colour", ["async", "thread"])
@pytest.mark.parametrize("name", RAISED)
def test_whatever_is_raised_fails_its_run_and_can_be_read(module_db, working, shown, name, colour):
    run_id, after = submit(module_db, f"raise.{colour}.v1", name), submit(module_db, "echo.v1", name)

    assert ended(module_db, run_id, seconds=60) == "failed"
    assert ended(module_db, after, seconds=60) == "succeeded"

    assert error_of(module_db, run_id).startswith(RAISED[name][1])
    assert len(error_of(module_db, run_id).encode()) <= 65_536
    assert events_of(module_db, run_id) == ["created", "leased", "failed"]
    assert working.thread.is_alive()
    if colour == "async":
        shown(run_id)


@pytest.mark.fault(SECTION, "a handler notes a progress that cannot be told", "P6, P11")
@pytest.mark.parametrize("name", PROGRESS)
def test_a_note_of_a_handler_is_stored_and_can_be_read(module_db, shown, name):
    run_id = submit(module_db, "progress.v1", name)

    assert ended(module_db, run_id, seconds=60) == "succeeded", error_of(module_db, run_id)

    assert events_of(module_db, run_id) == ["created", "leased", "progress", "succeeded"]
    assert last_event(module_db, run_id)[0] == "succeeded"
    shown(run_id)
