"""A server of these tests' own, whose settings they may spoil, and on it a patient for each test."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from builders import Database, connect
from simpleworkflow import embedded
from simpleworkflow.cli import main
from simpleworkflow.dburl import parse
from simpleworkflow.grants import grant_application
from simpleworkflow.migrate import migrate


@dataclass(frozen=True)
class Patient:
    """An installation: a schema, its owner, and the application's role, which owns nothing of it."""

    url: str = field(repr=False)
    owner_url: str = field(repr=False)
    superuser_url: str = field(repr=False)
    role: str
    schema: str


@dataclass(frozen=True)
class Examination:
    """What ``wf doctor`` said."""

    code: int
    findings: list[dict[str, Any]]

    @property
    def bad(self) -> list[dict[str, Any]]:
        """What is not well."""
        return [one for one in self.findings if one["severity"] != "ok"]

    def one(self, check: str) -> dict[str, Any]:
        """Return the only finding of a check."""
        (found,) = [one for one in self.findings if one["check"] == check]
        return found


@pytest.fixture(scope="session")
def hospital() -> Iterator[embedded.EmbeddedPostgres]:
    """A server with full durability and room for prepared transactions."""
    folder = Path(tempfile.mkdtemp(prefix="wf-doctor-"))
    folder.chmod(0o755)
    with (
        embedded.start(folder / "postgres") as first,
        psycopg.connect(first.superuser_url, autocommit=True) as conn,
    ):
        conn.execute("alter system set max_prepared_transactions = 4")
    # Its keeper stops it; the setting holds from the next start.
    _wait_for_stop(first.port)
    with embedded.start(folder / "postgres") as second:
        yield second
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for_stop(port: int) -> None:
    import socket
    import time

    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server has not stopped")


@pytest.fixture
def patient(hospital: embedded.EmbeddedPostgres) -> Iterator[Patient]:
    """A healthy installation, run as a role that owns nothing; gone after the test."""
    name = f"doctor_{uuid.uuid4().hex[:12]}"
    password = secrets.token_hex(8)
    dbname = str(conninfo_to_dict(hospital.url)["dbname"])
    superuser_url = parse(make_conninfo(hospital.superuser_url, dbname=dbname)).conninfo
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute(f"create role {name} login password '{password}' in role pg_read_all_stats".encode())
    with psycopg.connect(hospital.url, autocommit=True) as conn:
        migrate(conn, name)
        grant_application(conn, name, name)
    url = parse(make_conninfo(hospital.url, user=name, password=password)).with_schema(name)
    owner = parse(hospital.url).with_schema(name)
    yield Patient(url.portable, owner.portable, superuser_url, name, name)
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        conn.execute("set client_min_messages = warning")
        conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
        conn.execute(f"drop schema if exists {name} cascade".encode())
        conn.execute(f"drop owned by {name}".encode())
        conn.execute(f"drop role {name}".encode())


@pytest.fixture
def owner(patient: Patient) -> Iterator[Database]:
    """A connection as the role that owns the tables."""
    with connect(patient.owner_url) as conn:
        yield conn


@pytest.fixture
def superuser(patient: Patient) -> Iterator[Database]:
    """A connection as a superuser, with the schema in its search_path."""
    with connect(parse(patient.superuser_url).with_schema(patient.schema).portable) as conn:
        yield conn


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No database and no settings but those of the test."""
    for name in list(os.environ):
        if name.startswith(("PG", "SIMPLEWORKFLOW_", "WF_")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)


@pytest.fixture
def examine(
    environment: None, patient: Patient, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Examination]:
    """Run ``wf doctor --json`` on the patient, or on another URL."""

    def run(*arguments: str, url: str | None = None) -> Examination:
        code = main(["doctor", "--json", "--database-url", url or patient.url, *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        return Examination(code, json.loads(out)["findings"])

    return run
