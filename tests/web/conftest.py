"""The application on a fresh schema, asked in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from simpleworkflow.web import create_app


@pytest.fixture
def api(database_url: str) -> Iterator[TestClient]:
    """Ask the application as a browser on this machine does that has been given no key."""
    app = create_app(database_url, is_open=True)
    with TestClient(app, base_url="http://localhost:8080") as client:
        yield client
    app.state.store.close()
