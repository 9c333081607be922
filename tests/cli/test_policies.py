"""``wf type policy`` and ``wf type policies``: what a type keeps is set, listed and dropped in plain words."""

from __future__ import annotations

from uuid import UUID

import pytest

from builders import a_held_run, a_run, a_type, count, events_of, finish
from cli.programs import Answer
from simpleworkflow.cli import watch
from simpleworkflow.errors import RunNotFound


def test_a_policy_is_set_and_said_and_once_more_changes_nothing(wf, db):
    first = wf("type", "policy", "notify.%", "--no-events", "--delete-succeeded")
    again = wf("type", "policy", "notify.%", "--no-events", "--delete-succeeded")
    events = wf("type", "policy", "notify.%", "--no-events", "--json")

    assert first == Answer(0, "notify.% keeps no events of new runs and deletes runs that succeed\n", "")
    assert again.out == first.out.rstrip() + "; nothing changed\n"
    assert events.document == {"pattern": "notify.%", "changed": True}
    held = a_held_run(db, type="notify.a")
    finish(db, held)
    assert (events_of(db, held), count(db, "workflow_run")) == ([], 1)


def test_a_policy_without_options_keeps_everything_and_the_default_is_no_policy(wf):
    wf("type", "policy", "%", "--no-events")

    kept = wf("type", "policy", "a.b")
    dropped = wf("type", "policy", "a.b", "--default")
    again = wf("type", "policy", "a.b", "--default", "--json")

    assert kept.out == "a.b keeps events and keeps succeeded runs\n"
    assert dropped.out == "a.b has no policy of its own\n"
    assert again.document == {"pattern": "a.b", "changed": False}


def test_the_policies_are_listed_for_people_and_for_programs(wf, db):
    none = wf("type", "policies")
    wf("type", "policy", "a.b", "--delete-succeeded")
    wf("type", "policy", "a.%", "--no-events")

    table, document = wf("type", "policies"), wf("type", "policies", "--json").document

    assert none == Answer(0, "", "no policies: every type keeps its events and its runs\n")
    rows = [line.split()[:3] for line in table.out.splitlines()[1:]]
    assert rows == [["a.%", "none", "kept"], ["a.b", "kept", "deleted"]]
    first = document["policies"][0]
    assert {name: first[name] for name in ("pattern", "keeps_events", "keeps_succeeded", "set_by")} == {
        "pattern": "a.%",
        "keeps_events": False,
        "keeps_succeeded": True,
        "set_by": db.info.user,
    }


@pytest.mark.parametrize(
    "arguments",
    [["a b"], ["a%b"], ["%%"], [""], ["a.b", "--default", "--no-events"], [], ["a.b", "c.d"], ["x" * 201]],
)
def test_a_policy_that_cannot_be_set_is_one_line_and_exit_code_2(wf, db, arguments):
    answer = wf("type", "policy", *arguments)

    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("wf: error: ")
    assert count(db, "workflow_policy") == 0


def test_a_change_that_somebody_s_open_transaction_forbids_is_one_line_and_exit_code_1(wf, connection):
    producer = connection()
    producer.execute("begin; insert into workflow_run (type) values ('a.b')")

    answer = wf("type", "policy", "a.b", "--no-events")

    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "is still open; try again when it has ended" in answer.err


def test_a_run_without_events_is_shown_and_that_it_keeps_none_is_said(wf, db):
    wf("type", "policy", "quiet.%", "--no-events")
    run_id = a_run(db, type=a_type("quiet"))

    shown = wf("run", "show", run_id)

    assert (shown.code, run_id in shown.out) == (0, True)
    assert shown.err == "no events: its type kept none when it was recorded; see `wf type policies`\n"
    assert wf("run", "show", run_id, "--json").document["events"] == []


def test_watching_a_run_that_is_deleted_when_it_succeeds_ends_with_the_likely_reason(db):
    db.execute("select set_policy('a.%', true, false)")
    held = a_held_run(db, type="a.b")
    watcher = watch.Watcher(db, db.schema, [UUID(held.id)], as_json=False)

    assert watcher.look() is True
    finish(db, held)

    with pytest.raises(RunNotFound, match="if it did, it succeeded and its policy keeps no such runs"):
        watcher.look()
