"""One worker for all tests of a module, and a schema for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from simpleworkflow import Worker
from worker.stage import WorkerThread


@pytest.fixture(scope="module")
def run_worker(module_url: str) -> Iterator[Callable[..., WorkerThread]]:
    """Start workers in the schema of the module; they stop after its tests."""
    with ExitStack() as stack:
        yield lambda worker: stack.enter_context(WorkerThread(worker))


@pytest.fixture
def start(database_url: str) -> Iterator[Callable[[Worker], WorkerThread]]:
    """Start workers in the schema of the test; they stop after it."""
    with ExitStack() as stack:
        yield lambda worker: stack.enter_context(WorkerThread(worker))
