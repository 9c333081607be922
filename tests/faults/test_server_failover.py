"""A standby becomes the primary, and the old one is dead, silent, or read-only."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import psycopg
import pytest

from builders import Database, connect, count
from faults.load import TYPE, Executions, Producers, agree, drained, working
from faults.servers import OwnServer
from simpleworkflow import Client
from simpleworkflow.migrate import migrate
from worker.stage import eventually

FAILOVER_SECONDS = 10.0  # the promise: writes on the new primary


@pytest.fixture
def standby(own_server: OwnServer) -> Iterator[OwnServer]:
    """A standby without which the primary commits nothing: what is acknowledged is on both."""
    with own_server.standby() as standby:
        own_server.execute("alter system set synchronous_standby_names = '*'")
        own_server.execute("select pg_reload_conf()")
        yield standby


@pytest.fixture
def database_url(own_server: OwnServer, standby: OwnServer) -> str:
    """Both hosts; the one that takes writes is used."""
    with psycopg.connect(own_server.url, autocommit=True) as conn:
        migrate(conn, "workflow")
    hosts = f"127.0.0.1:{own_server.port},127.0.0.1:{standby.port}"
    return f"postgresql://workflow@{hosts}/workflow?sslmode=disable&target_session_attrs=read-write"


def goes_on(standby: OwnServer, url: str, since: float) -> None:
    """The new primary records and executes within the promise."""
    with Client(url) as client:
        run = client.submit(TYPE)
        recorded_after = monotonic() - since
        assert run.wait(timeout=FAILOVER_SECONDS).status == "succeeded"
        executed_after = monotonic() - since
    assert recorded_after <= FAILOVER_SECONDS
    assert executed_after <= FAILOVER_SECONDS
    with connect(standby.url_of("workflow")) as db:
        assert count(db, "workflow_run", "id = %s and status = 'succeeded'", run.id) == 1


@pytest.mark.parametrize("old", ["dead", "back-read-only"])
@pytest.mark.fault(
    "Database and network", "standby promoted after the primary was killed, under load", "P1, P2"
)
def test_nothing_acknowledged_is_lost_in_a_failover(
    old: str, own_server: OwnServer, standby: OwnServer, database_url: str
) -> None:
    with working(database_url) as executions, Producers(database_url) as producers:
        producers.progress(50)
        own_server.kill()
        if old == "back-read-only":
            own_server.settings["default_transaction_read_only"] = "on"
            own_server.start()
        standby.execute("alter system set synchronous_standby_names = ''")
        standby.promote()
        promoted_at = monotonic()
        producers.progress(20, seconds=FAILOVER_SECONDS)
        producers.stop()
        with connect(database_url) as db:
            drained(db)
            agree(db, producers, executions)
        goes_on(standby, database_url, promoted_at)


@pytest.mark.fault(
    "Database and network", "switch-over: the primary read-only with sessions open", "P1, P2, P3"
)
def test_open_sessions_leave_a_primary_that_is_read_only(
    own_server: OwnServer, standby: OwnServer, database_url: str
) -> None:
    with working(database_url) as executions, Producers(database_url) as producers:
        producers.progress(50)
        own_server.execute("alter system set default_transaction_read_only = on")
        own_server.execute("select pg_reload_conf()")
        with connect(own_server.url_of("workflow")) as old:
            # A commit that still waits for its synchronous standby would wait for ever.
            writing = "select count(*) from pg_stat_activity where backend_xid is not null"
            eventually(lambda: old.execute(writing.encode()).fetchone() == (0,))
        standby.promote()
        promoted_at = monotonic()
        producers.progress(20, seconds=FAILOVER_SECONDS)
        producers.stop()
        with connect(database_url) as db:
            drained(db)
            agree(db, producers, executions)
        goes_on(standby, database_url, promoted_at)


@pytest.mark.fault(
    "Database and network", "standby promoted while the old primary accepts and never answers", "P1, P3"
)
def test_a_silent_old_primary_is_passed_over(
    own_server: OwnServer, standby: OwnServer, database_url: str
) -> None:
    executions = Executions()
    with working(database_url, executions=executions):
        with Client(database_url) as client:
            assert client.submit(TYPE).wait(timeout=10).status == "succeeded"
        own_server.stall()
        try:
            standby.promote()
            goes_on(standby, database_url, monotonic())
        finally:
            own_server.kill()

    with connect(standby.url_of("workflow")) as db:
        assert count(db, "workflow_run", "status = 'succeeded'") == 2
    assert set(executions.counted.values()) == {1}


@pytest.mark.fault("Database and network", "no primary for a while: all hosts are standbys", "P1")
def test_a_worker_waits_for_a_primary(own_server: OwnServer, standby: OwnServer, database_url: str) -> None:
    with working(database_url) as executions:
        own_server.kill()
        with connect(standby.url_of("workflow")) as db:
            assert db.execute("show transaction_read_only").fetchone() == ("on",)
        standby.promote()
        standby.execute("insert into workflow.workflow_run (type) values ('" + TYPE + "')")

        with connect(standby.url_of("workflow")) as new:
            drained_on(new)
    assert sum(executions.counted.values()) == 1


def drained_on(db: Database) -> None:
    eventually(lambda: count(db, "workflow_run", "status = 'succeeded'") == 1, seconds=FAILOVER_SECONDS)
