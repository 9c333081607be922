"""What the tests of the network share: a proxy before the schema of the test, clients of both colours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.programs import environment, program  # noqa: F401 - fixtures
from client.both import open_client  # noqa: F401 - a fixture
from faults.proxy import Proxy


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    """A network that can be broken, in front of the schema of the test."""
    with Proxy(database_url) as proxy:
        yield proxy
