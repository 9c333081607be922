"""A folder for a real server, programs that use it, and proof that no process stays behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedded.processes import Program, kill_all, programs_of
from simpleworkflow.embedded import start


@contextmanager
def a_project() -> Iterator[Path]:
    """Yield a server's folder in a project that other accounts can enter; afterwards nothing of it runs."""
    # Not tmp_path: that lies in a folder of mode 0700, which as root is a case of its own.
    project = Path(tempfile.mkdtemp(prefix="wf-test-"))
    project.chmod(0o755)
    folder = project / ".simpleworkflow" / "postgres"
    try:
        yield folder
    finally:
        assert kill_all(folder)
        shutil.rmtree(project)


@pytest.fixture
def new_folder() -> Iterator[Path]:
    """A folder without anything in it."""
    with a_project() as folder:
        yield folder


@pytest.fixture(scope="session")
def known_folder() -> Iterator[Path]:
    """A folder whose server has run before; making or copying a cluster costs a second, this nothing."""
    with a_project() as folder:
        start(folder).close()
        yield folder


@pytest.fixture
def folder(known_folder: Path) -> Iterator[Path]:
    """The folder of a server that does not run now; a test that changes its files puts them back."""
    assert kill_all(known_folder)
    yield known_folder
    assert kill_all(known_folder)


@pytest.fixture
def run_program(folder: Path) -> Iterator[object]:
    """Start programs that use the server of the folder; they are ended with the test."""
    programs: list[Program] = []

    def run(**options: object) -> Program:
        programs.append(Program(folder, **options))
        return programs[-1]

    yield run
    for program in programs:
        program.end()


@pytest.fixture
def processes(folder: Path) -> object:
    """Return the processes that belong to the folder's server now."""
    return lambda kind: programs_of(folder, kind)
