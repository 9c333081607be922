"""What people and programs see of their runs through ``wf``."""

from __future__ import annotations

import json
import uuid

import pytest

from builders import a_run, claim, finish
from simpleworkflow.cli.text import one_line, safe
from simpleworkflow.client import verbs


def test_a_run_is_submitted_listed_and_shown(wf):
    run_id = wf("submit", "billing.invoice.v1", '{"amount": 150.00}', "--key", "inv:1").out.strip()

    listed = wf("run", "list", "--type", "billing.%", "--status", "pending")
    shown = wf("run", "show", run_id)

    assert run_id in listed.out
    assert "billing.invoice.v1" in listed.out
    assert '{"amount": 150.0}' in shown.out
    assert "created" in shown.out


def test_a_key_that_exists_gives_its_run_and_says_so(wf):
    first = wf("submit", "a.b.v1", "--key", "k", "--json").document
    second = wf("submit", "a.b.v1", "--key", "k", "--json")

    assert first["created"]
    assert second.document == {"id": first["id"], "created": False}
    assert "has this run already" in second.err


def test_json_is_one_document_with_the_names_of_the_table(wf):
    run_id = wf("submit", "a.b.v1", "{}").out.strip()

    listed, shown = wf("run", "list", "--json").document, wf("run", "show", run_id, "--json").document

    assert listed["next_page"] is None
    assert listed["runs"] == [shown["run"]]
    assert {"id", "type", "payload", "status", "attempt", "fencing_token", "created_at"} <= shown[
        "run"
    ].keys()
    assert [event["event_type"] for event in shown["events"]] == ["created"]
    assert shown["events"][0]["workflow_id"] == run_id


def test_runs_are_found_by_what_their_payload_contains(wf):
    run_id = wf("submit", "a.b.v1", '{"customer": {"id": 42}, "n": 1}').out.strip()
    wf("submit", "a.b.v1", '{"customer": {"id": 43}}')

    found = wf("run", "list", "--payload", '{"customer": {"id": 42}}', "--json").document
    refused = wf("run", "list", "--payload", "customer")

    assert [one["id"] for one in found["runs"]] == [run_id]
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "is not JSON" in refused.err


def test_pages_continue_where_the_page_before_ended(wf):
    ids = [wf("submit", "a.b.v1").out.strip() for _ in range(3)]

    first = wf("run", "list", "--limit", 2, "--json").document
    second = wf("run", "list", "--limit", 2, "--page", first["next_page"], "--json").document

    assert [run["id"] for run in first["runs"] + second["runs"]] == ids[::-1]
    assert second["next_page"] is None


def test_a_list_that_has_not_looked_at_all_runs_says_how_to_look_on(wf, monkeypatch):
    monkeypatch.setattr(verbs, "LISTED_AT_ONCE", 2)
    rare = wf("submit", "rare.v1").out.strip()
    for _ in range(3):
        wf("submit", "a.b.v1")

    listed = wf("run", "list", "--type", "rare.%", "--json").document
    first = wf("run", "list", "--type", "rare.%")
    second = wf("run", "list", "--type", "rare.%", "--page", listed["next_page"])
    whole = wf("run", "list", "--type", "rare.%", "--all")
    none = wf("run", "list", "--type", "absent", "--all")

    assert (listed["runs"], listed["looked_at"]) == ([], 2)
    assert (first.code, first.out) == (0, "")
    assert first.err.startswith("no such runs among the 2 looked at, back to ")
    assert first.err.endswith(f"; to look on, add --page {listed['next_page']}, or --all\n")
    assert rare in second.out
    assert rare in whole.out
    assert whole.err == ""
    assert none.err == "no such runs\n"


def test_times_narrow_the_list_also_as_ages(wf):
    wf("submit", "a.b.v1")

    assert len(wf("run", "list", "--since", "1h", "--json").document["runs"]) == 1
    assert wf("run", "list", "--before", "1h", "--json").document["runs"] == []
    assert wf("run", "list", "--since", "2999-01-01T00:00:00Z", "--json").document["runs"] == []


def test_cancelling_and_reopening_say_what_they_did(wf):
    run_id = wf("submit", "a.b.v1").out.strip()

    cancelled, again = wf("run", "cancel", run_id, "--reason", "ordered twice"), wf("run", "cancel", run_id)
    reopened = wf("run", "retry", run_id, "--attempts", 5, "--json")
    shown = wf("run", "show", run_id)

    assert (cancelled.code, cancelled.out) == (0, f"run {run_id} is cancelled\n")
    assert (again.code, again.out) == (0, f"run {run_id} is cancelled; nothing changed\n")
    assert reopened.document == {"runs": [{"id": run_id, "changed": True, "status": "pending"}]}
    assert "ordered twice" in shown.out
    assert "up to attempt 5" in shown.out


@pytest.mark.parametrize("verb", ["cancel", "reopen"])
def test_what_a_succeeded_run_refuses_is_exit_code_1(wf, db, verb):
    run_id = a_run(db, status="succeeded")

    answer = wf("run", verb, run_id)

    assert answer.code == 1
    assert answer.out == f"run {run_id} is succeeded; nothing changed\n"


def test_one_unknown_id_among_several_changes_none(wf):
    known, unknown = wf("submit", "a.b.v1").out.strip(), uuid.uuid4()

    answer = wf("run", "cancel", known, unknown)

    assert (answer.code, answer.err) == (5, f"wf: error: run {unknown} does not exist\n")
    assert wf("run", "show", known, "--json").document["run"]["status"] == "pending"


def test_waiting_for_a_run_that_failed_is_exit_code_1(wf, db):
    run_id = wf("submit", "a.b.v1", "--key", "k", "--max-attempts", 1).out.strip()
    finish(db, claim(db), status="failed", error="no paper")

    answer = wf("submit", "a.b.v1", "--key", "k", "--wait")

    assert answer.code == 1
    assert run_id in answer.out
    assert "no paper" in answer.out


def test_waiting_no_longer_than_asked_is_exit_code_1(wf):
    answer = wf("submit", "a.b.v1", "--wait", "--timeout", "50ms")

    assert answer.code == 1
    assert "did not end within 0.05 s; it goes on by itself" in answer.err


def test_watching_prints_each_event_once_and_ends_with_the_run(wf, db):
    run_id = wf("submit", "a.b.v1").out.strip()
    finish(db, claim(db), status="succeeded")

    lines = wf("run", "watch", run_id).out.splitlines()
    documents = wf("run", "watch", run_id, "--json").out.splitlines()

    assert [line.split()[1] for line in lines] == ["created", "leased", "succeeded"]
    assert len(documents) == 3


def test_verify_is_silent_where_all_is_well(wf):
    wf("submit", "a.b.v1")

    assert wf("verify").out == ""
    assert wf("verify", "--json").document == {"violations": []}


def test_rows_cannot_make_a_terminal_obey(wf):
    hostile = "\x1b[31m\u202ered\x07\u009b"
    run_id = wf("submit", "a.b.v1", json.dumps({"x": hostile})).out.strip()
    wf("run", "cancel", run_id, "--reason", hostile)

    for answer in (
        wf("run", "show", run_id),
        wf("run", "watch", run_id),
        wf("run", "show", run_id, "--json"),
    ):
        assert answer.code == 0
        assert not set(answer.out) & set("\x1b\u202e\x07\u009b")


def test_safe_text_keeps_letters_and_writes_out_what_terminals_obey():
    assert safe("Grüße, 世界 — ok") == "Grüße, 世界 — ok"
    assert safe("a\x1b[2Jb\n\u2028\u202e\ue000") == "a\\x1b[2Jb\\n\\u2028\\u202e\\ue000"
    assert one_line(" a\n  b\t") == "a b"


def test_verify_names_each_violation_in_a_line_and_is_exit_code_1(wf, superuser):
    run_id = wf("submit", "a.b.v1").out.strip()
    superuser.execute("set session_replication_role = replica")  # no guards, no audit
    superuser.execute("update workflow_run set status = 'succeeded', finished_at = now()")

    answer, document = wf("verify"), wf("verify", "--json").document

    assert answer.code == 1
    of_runs = [line for line in answer.out.splitlines() if not line.startswith("what is counted")]
    assert of_runs
    assert all(f"run {run_id}: " in line for line in of_runs)
    assert len(document["violations"]) == len(answer.out.splitlines()) > 0
