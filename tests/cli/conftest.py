"""``wf`` in this process for what it prints, and as a real program for what only a process can show."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest

from cli.programs import Answer, environment, program  # noqa: F401 - fixtures
from simpleworkflow.cli import main


@pytest.fixture
def empty_url(server) -> Iterator[str]:
    """The URL of a schema that does not exist yet; it is gone after the test."""
    schema = f"cli_{uuid.uuid4().hex[:12]}"
    yield server.url_of(schema)
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"drop schema if exists {schema} cascade".encode())


@pytest.fixture
def wf(
    environment: dict[str, str],  # noqa: F811
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
