"""What the tests of faults share: a network and a server that can be broken, clients of both colours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.programs import environment, program  # noqa: F401 - fixtures
from client.both import open_client  # noqa: F401 - a fixture
from faults import servers
from faults.proxy import Proxy


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    """A network that can be broken, in front of the schema of the test."""
    with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture(scope="session", autouse=True)
def _template() -> Iterator[None]:
    yield
    servers.remove_template()


@pytest.fixture
def own_server() -> Iterator[servers.OwnServer]:
    """A PostgreSQL that the test may stop, kill and fill."""
    with servers.own_server() as server:
        yield server
