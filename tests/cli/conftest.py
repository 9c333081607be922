"""``wf`` in this process for what it prints, and as a real program for what only a process can show."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from cli.programs import WF, Answer
from simpleworkflow.cli import main


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without a database, colours and a terminal; what is set in it reaches ``wf``."""
    for name in list(os.environ):
        if name.startswith(("PG", "SIMPLEWORKFLOW_", "WF_")) or name in (
            "DATABASE_URL",
            "NO_COLOR",
            "COLUMNS",
        ):
            monkeypatch.delenv(name)
    return dict(os.environ)


@pytest.fixture
def empty_url(server) -> Iterator[str]:
    """The URL of a schema that does not exist yet; it is gone after the test."""
    schema = f"cli_{uuid.uuid4().hex[:12]}"
    yield server.url_of(schema)
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"drop schema if exists {schema} cascade".encode())


@pytest.fixture
def wf(
    environment: dict[str, str],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Answer]:
    """Run ``wf`` in this process on a fresh schema."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*arguments: object) -> Answer:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def program(environment: dict[str, str]) -> Callable[..., Answer]:
    """Run the real program; its variables are the keywords in capitals."""

    def run(*arguments: str, stdin: bytes = b"", cwd: Path | None = None, **variables: str) -> Answer:
        ended = subprocess.run(
            [WF, *arguments],
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env=environment | variables,
            timeout=60,
            check=False,
        )
        return Answer(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run
