"""Run the tests on a database that is not like most: behind a pooler, or stricter by default.

    python tests/variants.py pooled|serializable [pytest arguments]

The server is one of its own, and is gone at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from faults.pooler import pgbouncer  # noqa: E402
from faults.servers import OwnServer, own_server, remove_template  # noqa: E402
from simpleworkflow.dburl import parse  # noqa: E402

# What can be only where a client has a session: wake-ups, and the word of a cancel before the next heartbeat.
BY_SESSION = (
    "test_a_run_that_is_cancelled_while_it_waits_for_a_thread_is_not_executed",
    "test_a_cancelled_run_is_told_to_its_handler_whose_answer_then_counts_for_nothing",
    "test_an_async_handler_that_asked_first_is_cancelled_all_the_same",
    "test_a_handler_longer_than_the_grace_is_given_back_and_starts_elsewhere",
    "test_a_client_that_nobody_closed_leaves_neither_warning_nor_session",
    "test_a_resume_wakes_idle_workers",
    # The pooler logs in by itself: it takes any password, and a role that may not log in loses no session.
    "test_a_wrong_password_is_refused_without_being_said",
    "test_a_worker_logs_neither_its_password_nor_what_its_runs_are_about",
)
TESTS = {
    "pooled": [
        "tests/client",
        "tests/worker",
        "--ignore=tests/worker/test_wakeups.py",
        "--ignore=tests/worker/test_forged_words.py",
        f"-k=not {' and not '.join(BY_SESSION)}",
    ],
    # Not tests/sql: sessions of others get the serialization failures that they asked for.
    "serializable": ["tests/client", "tests/worker", "tests/cli"],
}


@contextmanager
def pooled(server: OwnServer) -> Iterator[dict[str, str]]:
    """Put PgBouncer in front, in transaction mode."""
    with pgbouncer(server.url) as bouncer:
        yield {
            "DATABASE_URL": parse(bouncer.url).conninfo,
            "DATABASE_DIRECT_URL": parse(server.url).conninfo,
            "DATABASE_SUPERUSER_URL": server.superuser_url,
            "SIMPLEWORKFLOW_POOLER": "transaction",
        }


@contextmanager
def serializable(server: OwnServer) -> Iterator[dict[str, str]]:
    """Let every transaction be serializable unless it says otherwise."""
    server.execute("alter database workflow set default_transaction_isolation = 'serializable'")
    yield {"DATABASE_URL": server.url, "DATABASE_SUPERUSER_URL": server.superuser_url}


def main(variant: str, *options: str) -> int:
    """Return pytest's exit code."""
    prepare = {"pooled": pooled, "serializable": serializable}[variant]
    try:
        with own_server(settings={"max_connections": "300"}) as server, prepare(server) as environment:
            command = [sys.executable, "-m", "pytest", *(options or TESTS[variant])]
            return subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=False).returncode
    except pytest.skip.Exception as reason:
        print(f"skipped: {reason}")
        return 0
    finally:
        remove_template()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # however it is told to stop, it stops its server
    sys.exit(main(*sys.argv[1:]))
