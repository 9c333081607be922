"""``wf type list``, ``pause`` and ``resume``: what there is of each type, and what is paused, in plain words."""

from __future__ import annotations

from builders import a_held_run, claim, finish, submit
from cli.programs import Answer


def test_types_are_listed_for_people_and_for_programs(wf, db):
    none = wf("type", "list")
    db.execute("select register_types('{a.%}')")
    finish(db, a_held_run(db, type="a.v1"), status="failed")
    submit(db, "b.v1")
    wf("type", "pause", "b.%", "--reason", "the bank\nis down")

    table, document = wf("type", "list"), wf("type", "list", "--json", "--window", "60").document

    assert none == Answer(0, "", "no types: nothing was submitted yet, and no worker has registered\n")
    lines = table.out.splitlines()
    assert lines[1].split()[:5] == ["a.v1", "0", "0", "1", "0"]
    assert "a.%" in lines[1]
    assert lines[2].split()[:5] == ["b.v1", "1", "0", "0", "0"]
    assert lines[2].rstrip().endswith("paused by b.%")
    assert lines[3].startswith("b.% paused since ")
    assert lines[3].endswith(f"by {db.info.user}: the bank is down")
    assert [one["type"] for one in document["types"]] == ["a.v1", "b.v1"]
    assert document["types"][0]["runs"]["failed"] == 1
    assert document["pauses"][0]["reason"] == "the bank\nis down"


def test_what_is_paused_is_not_claimed_until_it_is_resumed(wf, db):
    submit(db, "a.b.v1")

    first, again = wf("type", "pause", "a.%"), wf("type", "pause", "a.%", "--json")
    assert claim(db) is None
    resumed, twice = wf("type", "resume", "a.%"), wf("type", "resume", "a.%")

    assert (first.out, again.document) == ("a.% is paused\n", {"pattern": "a.%", "changed": False})
    assert resumed == Answer(0, "a.% is resumed\n", "")
    assert twice.out == "a.% was not paused; nothing changed\n"
    assert claim(db) is not None


def test_who_resumes_a_part_is_told_what_is_paused_besides(wf):
    wf("type", "pause", "a.%")
    wf("type", "pause", "a.b.%")

    resumed = wf("type", "resume", "a.b.%")

    assert resumed.out == "a.b.% is resumed\n"
    assert resumed.err.startswith("but a.% paused since ")


def test_a_pattern_that_covers_no_type_is_refused_in_one_line(wf):
    answer = wf("type", "pause", "a b")

    assert answer.code != 0
    assert answer.err.count("\n") == 1
    assert "pattern: expected" in answer.err
