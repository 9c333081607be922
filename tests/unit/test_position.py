"""A position in the stream of events: whatever is committed when, each event is passed once."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("starlette", reason="needs the extra [server]")
from simpleworkflow.web.position import GAPS_MAX, Position


@pytest.mark.parametrize("seed", range(300))
def test_in_whatever_order_transactions_commit_each_event_is_passed_once(seed: int) -> None:
    chance = random.Random(seed)
    open_, committed, last_id, passed = [], set(), 0, []
    rolled_back: set[int] = set()
    position, marks, settled, tick = Position(), [], 0, 0
    began: dict[int, int] = {}
    for step in range(400):
        # Writers: transactions begin, take ids, commit or are rolled back.
        if chance.random() < 0.6:
            open_.append([])
            began[id(open_[-1])] = step
        for writer in open_:
            if chance.random() < 0.5:
                last_id += 1
                writer.append(last_id)
        for writer in [one for one in open_ if chance.random() < chance.choice((0.05, 0.5))]:
            open_.remove(writer)
            (committed if chance.random() < 0.8 else rolled_back).update(writer)
        # The tail: what was given out at the last look is covered by the transactions that are open at this one.
        if chance.random() < 0.5:
            marks.append((tick, {id(one) for one in open_}))
            tick = last_id
        while marks and not marks[0][1] & {id(one) for one in open_}:
            settled = max(settled, marks.pop(0)[0])
        # A reader, that comes back with what it was told last.
        limit = chance.choice((1, 3, 1000))
        known = settled
        seen = sorted(
            one
            for one in committed
            if one > position.after or any(low <= one <= high for low, high in position.gaps)
        )[:limit]
        for one in seen:
            if not position.take(one, known):
                break
            passed.append(one)
            if chance.random() < 0.1:
                break
        else:
            if len(seen) < limit:
                position.end(known)
        if chance.random() < 0.3:
            position = Position.parse(str(position))
    for writer in open_:
        committed.update(writer)
    while seen := sorted(
        one
        for one in committed
        if one > position.after or any(low <= one <= high for low, high in position.gaps)
    ):
        for one in seen:
            assert position.take(one, last_id)
            passed.append(one)
        position.end(last_id)
    position.end(last_id)

    assert len(passed) == len(set(passed))
    assert set(passed) == committed
    assert position.gaps == []


def test_no_more_gaps_are_held_open_than_fit_into_a_header() -> None:
    position = Position()
    for event_id in range(2, 4 * GAPS_MAX, 2):
        if not position.take(event_id, settled=0):
            break

    assert len(position.gaps) == GAPS_MAX
    assert len(str(position)) < 7000
    assert str(Position.parse(str(position))) == str(position)
    # When something is settled, it goes on with the same event.
    assert position.take(event_id, settled=event_id)
    assert position.gaps == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-1",
        "1~",
        "1~2",
        "5~1-3",
        "5~1,2",
        "5~3-1,2",
        "9" * 20,
        "01",
        "1 ",
        "5~1;2",
        "٣",
        "5~" + "1," * 5000 + "1",
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected the id of an event"):
        Position.parse(text)
