"""A server that stops, crashes, or ends its sessions under load."""

from __future__ import annotations

import random
from time import monotonic

import pytest

from builders import Database, connect, submit
from faults.load import TYPE, Producers, agree, drained, outages, working
from faults.servers import OwnServer
from worker.stage import ended, eventually

RECOVERY_SECONDS = 2.0  # the promise, after the server is back


@pytest.fixture
def server(own_server: OwnServer) -> OwnServer:
    return own_server


def sessions(db: Database) -> list[int]:
    """Return the sessions of the application, of all kinds."""
    rows = db.execute(
        "select pid from pg_stat_activity where application_name = 'simpleworkflow' and usename = 'workflow'"
    )
    return [row[0] for row in rows]


@pytest.mark.fault("Database and network", "sessions terminated at random under load", "P1, P2")
def test_sessions_of_every_kind_may_end_at_any_time(
    database_url: str, superuser: Database, record_property: pytest.RecordProperty
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    print(f"seed {seed}")
    dice = random.Random(seed)

    with working(database_url) as executions, Producers(database_url) as producers:
        producers.progress()
        for _ in range(40):
            everybody = sessions(superuser)
            for pid in dice.sample(everybody, min(len(everybody), dice.randint(1, 4))):
                superuser.execute("select pg_terminate_backend(%s)", [pid])
            producers.progress(dice.randint(0, 5))
        producers.progress()
        producers.stop()
        drained(superuser)

    agree(superuser, producers, executions)


@pytest.mark.fault("Database and network", "all sessions terminated at once, ten times", "P1, P2")
def test_all_sessions_ended_at_once_are_opened_again(database_url: str, superuser: Database) -> None:
    with working(database_url) as executions, Producers(database_url) as producers:
        for _ in range(10):
            producers.progress(5)
            for pid in sessions(superuser):
                superuser.execute("select pg_terminate_backend(%s)", [pid])
        producers.progress()
        producers.stop()
        drained(superuser)

    agree(superuser, producers, executions)


@pytest.mark.parametrize("seconds", [0, 6])
@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
@pytest.mark.fault("Database and network", "the server stops and comes back after so many seconds", "P1, P2")
def test_a_restart_loses_nothing_acknowledged_and_work_goes_on_within_two_seconds(
    how: str, seconds: int, own_server: OwnServer, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with working(database_url) as executions, Producers(database_url) as producers:
        producers.progress(50)

        own_server.kill() if how == "kill" else own_server.stop(how)
        back_at = monotonic() + seconds
        eventually(lambda: monotonic() > back_at, seconds=seconds + 1)
        own_server.start()
        back_at = monotonic()
        with connect(database_url) as db:
            run_id = submit(db, TYPE)
            ended(db, run_id, seconds=RECOVERY_SECONDS)
        took = monotonic() - back_at
        producers.progress()
        producers.stop()
        with connect(database_url) as db:
            drained(db)
            producers.recorded.append(run_id)
            agree(db, producers, executions)

    assert took <= RECOVERY_SECONDS
    # A session that is had again at once is no outage.
    assert outages(caplog) in ([(1, 1)] if seconds else [(0, 0), (1, 1)])
