"""The routes of operations: one change of all the runs that a filter matches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from starlette.responses import Response

from simpleworkflow.client import operating
from simpleworkflow.model import Status
from simpleworkflow.operation import MatchedCount, Operation
from simpleworkflow.web.bodies import In, NoBody, Pattern, Reason
from simpleworkflow.web.routes import Call, Route, answer

__all__ = ["ROUTES"]


class OperationsQuery(In):
    """How many operations to list."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class FilterBody(In):
    """Which runs: of any of the types and statuses, recorded between the times."""

    pattern: Annotated[tuple[Pattern, ...], Meta(min_length=1, max_length=100)]
    status: tuple[Status, ...] | None = None
    created_from: Annotated[datetime, Meta(tz=True)] | None = None
    created_before: Annotated[datetime, Meta(tz=True)] | None = None


class OperationRequest(In):
    """What to change, of which runs, and why; ``dry_run``: count them only."""

    kind: Literal["cancel", "reopen"]
    filter: FilterBody
    reason: Reason | None = None
    attempts: Annotated[int, Meta(ge=1, le=1000)] = 3
    dry_run: bool = False


class OperationsAnswer(Struct, frozen=True):
    """Operations, the last asked for first."""

    operations: Sequence[Operation]


async def start_operation(call: Call) -> Response:
    """Change all the runs that a filter matches, or count them."""
    body: OperationRequest = call.body
    wanted: dict[str, Any] = {
        "patterns": body.filter.pattern,
        "statuses": body.filter.status,
        "created_from": body.filter.created_from,
        "created_before": body.filter.created_before,
    }
    if body.dry_run:
        counted = await call.read(operating.count_operable(body.kind, **wanted, look_at_all=False))
        return answer(counted)
    plan = operating.operate(body.kind, **wanted, reason=body.reason or "", attempts=body.attempts)
    return answer(await call.change(plan), 202)


async def list_operations(call: Call) -> Response:
    """Answer the operations."""
    return answer(OperationsAnswer(await call.read(operating.operations(call.query.limit))))


async def show_operation(call: Call) -> Response:
    """Answer how an operation stands."""
    return answer(await call.read(operating.operation(call.request.path_params["id"])))


async def stop_operation(call: Call) -> Response:
    """Stop an operation; what it has changed stays as it is."""
    operation_id = call.request.path_params["id"]
    await call.change(operating.stop_operation(operation_id))
    return answer(await call.read(operating.operation(operation_id)))


ROUTES = [
    Route(
        path="/operations",
        handle=list_operations,
        summary="List operations, the last asked for first",
        query=OperationsQuery,
        answers={200: OperationsAnswer},
    ),
    Route(
        path="/operations",
        handle=start_operation,
        summary="Change all the runs that a filter matches; with dry_run, count them",
        method="POST",
        role="operator",
        body=OperationRequest,
        answers={200: MatchedCount, 202: Operation},
        conflicts=True,
    ),
    Route(
        path="/operations/{id}",
        handle=show_operation,
        summary="Show how an operation stands",
        answers={200: Operation},
        finds="operation",
    ),
    Route(
        path="/operations/{id}/stop",
        handle=stop_operation,
        summary="Stop an operation",
        method="POST",
        role="operator",
        body=NoBody,
        answers={200: Operation},
        finds="operation",
    ),
]
