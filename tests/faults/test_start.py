"""A worker whose start meets a fault: it tries again, it does not end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builders import Database, a_type, submit
from faults.proxy import Proxy
from simpleworkflow import Worker
from worker.stage import WorkerThread, ended, eventually

CHECK = "workflow_migration"


@pytest.mark.fault("Database and network", "the connection is cut amid a worker's check of the schema", "P1")
def test_a_worker_whose_check_of_the_schema_is_cut_off_checks_again(database_url: str, db: Database) -> None:
    with Proxy(database_url) as proxy:
        lost = proxy.swallow(CHECK)

        with WorkerThread(a_worker(proxy.url, type_ := a_type())):
            assert lost.wait()
            assert ended(db, submit(db, type_)) == "succeeded"


@pytest.mark.fault("Database and network", "a worker's check of the schema is cancelled by an operator", "P1")
def test_a_worker_whose_check_of_the_schema_is_cancelled_checks_again(
    database_url: str, db: Database, connection: Callable[..., Database]
) -> None:
    locking = connection()
    locking.execute("begin")
    locking.execute(f"lock table {CHECK} in access exclusive mode".encode())

    with WorkerThread(a_worker(database_url, type_ := a_type())):
        eventually(lambda: cancel_what_waits_for(db, locking.info.backend_pid), what="a check that waits")
        locking.execute("rollback")
        assert ended(db, submit(db, type_)) == "succeeded"


def a_worker(url: str, type_: str) -> Worker:
    worker = Worker(lease_seconds=2, poll_seconds=0.1, database_url=url)
    worker.register(type_, succeed)
    return worker


async def succeed(run: object) -> None:
    pass


def cancel_what_waits_for(db: Database, pid: int) -> int:
    return db.execute(
        "select pg_cancel_backend(pid) from pg_stat_activity where %s = any (pg_blocking_pids(pid))", [pid]
    ).rowcount
