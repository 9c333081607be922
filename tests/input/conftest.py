"""The ways in: plain SQL, both clients, the command; borrowed from the tests of each."""

from __future__ import annotations

from cli.conftest import environment, program, wf  # noqa: F401 - fixtures
from client.conftest import client, open_client  # noqa: F401 - fixtures
from worker.conftest import run_worker  # noqa: F401 - a fixture
