"""Whatever is asked that ``/openapi.json`` allows or forbids, the answer is one that it describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from builders import a_run, connect
from simpleworkflow.web import create_app

EXAMPLES = 25
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(module_url: str) -> Iterator[schemathesis.schemas.BaseSchema]:
    """The description of an application that has a run of each status."""
    with connect(module_url) as conn:
        for status in ("pending", "leased", "succeeded", "failed", "cancelled"):
            a_run(conn, status=status)
    app = create_app(module_url, is_open=True, hosts=("testserver", "127.0.0.1"))
    yield schemathesis.openapi.from_asgi("/openapi.json", app).exclude(path_regex="v1/events$|/stream$")
    app.state.store.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"]
)
def test_every_answer_is_one_that_is_described(
    described: schemathesis.schemas.BaseSchema, mode: GenerationMode
) -> None:
    asked = []
    for found in described.get_all_operations():
        operation = found.ok()
        asked.append(operation.label)

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
        )
        def answers(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        with suppress(Unsatisfiable):  # of what takes nothing, nothing is forbidden
            answers()

    assert "POST /api/v1/runs" in asked
    assert len(asked) >= 17
