"""The routes of who watches over runs: stats, types, pauses, schedules, workers, why, health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct
from starlette.responses import Response

from simpleworkflow.client import overseeing
from simpleworkflow.health import Finding
from simpleworkflow.model import Pause, Stats, TypeSummary
from simpleworkflow.statements.serving import Schedule, list_schedules
from simpleworkflow.summaries import Why, WorkerSummary
from simpleworkflow.web.bodies import In, NoBody, Reason
from simpleworkflow.web.routes import Call, Route, answer

__all__ = ["ROUTES"]


class WindowQuery(In):
    """Over how many of the last seconds."""

    window_seconds: Annotated[int, Meta(ge=10, le=30 * 24 * 3600)] = 300


class PauseBody(In):
    """Why a pattern is paused."""

    reason: Reason | None = None


class TypesAnswer(Struct, frozen=True):
    """The types, sorted by name, and the patterns that are paused."""

    types: Sequence[TypeSummary]
    pauses: Sequence[Pause]


class PatternAnswer(Struct, frozen=True):
    """Whether this request changed anything."""

    changed: bool


class WorkersAnswer(Struct, frozen=True):
    """The workers, those that run first, each with a few of the runs that it holds."""

    workers: Sequence[WorkerSummary]


class FindingBody(Struct, frozen=True):
    """What an examination found: how bad it is, the fact, why it matters, and the remedy."""

    check: str
    severity: str
    found: str
    why: str | None
    remedy: str | None


class HealthAnswer(Struct, frozen=True):
    """What ``wf doctor`` finds."""

    findings: Sequence[FindingBody]


class SchedulesAnswer(Struct, frozen=True):
    """The schedules, by type."""

    schedules: Sequence[Schedule]


async def show_stats(call: Call) -> Response:
    """Answer counts, rates and what is due."""
    return answer(await call.store.stats(call.query.window_seconds))


async def list_types(call: Call) -> Response:
    """Answer each type with its counts, rates and times."""
    types = await call.store.types(call.query.window_seconds)
    pauses: list[Pause] = await call.read(overseeing.pauses())
    return answer(TypesAnswer(types, pauses))


async def pause_pattern(call: Call) -> Response:
    """Let nothing that a pattern covers be claimed."""
    plan = overseeing.pause(call.request.path_params["pattern"], call.body.reason)
    return answer(PatternAnswer(await call.change(plan)))


async def resume_pattern(call: Call) -> Response:
    """Let what a paused pattern covers be claimed again."""
    return answer(PatternAnswer(await call.change(overseeing.resume(call.request.path_params["pattern"]))))


async def show_schedules(call: Call) -> Response:
    """Answer the schedules."""
    return answer(SchedulesAnswer(await call.store.ask(list_schedules())))


async def list_workers(call: Call) -> Response:
    """Answer who the workers are, and what they hold."""
    return answer(WorkersAnswer(await call.store.workers()))


async def show_why(call: Call) -> Response:
    """Answer the one reason that a run is not running now."""
    run_id = call.request.path_params["id"]
    return answer(await call.read(overseeing.why(run_id, shows_contents=call.shows_contents)))


async def show_health(call: Call) -> Response:
    """Answer what an examination of the database finds now."""
    findings: list[Finding] = await call.store.examine()
    return answer(HealthAnswer([FindingBody(*one) for one in findings]))


ROUTES = [
    Route(
        path="/stats",
        handle=show_stats,
        summary="Count runs by status; tell rates, and what is due",
        query=WindowQuery,
        answers={200: Stats},
    ),
    Route(
        path="/types",
        handle=list_types,
        summary="List types with their counts, rates, percentiles and who handles them",
        query=WindowQuery,
        answers={200: TypesAnswer},
    ),
    Route(
        path="/types/{pattern}/pause",
        handle=pause_pattern,
        summary="Let nothing that a type or a prefix covers be claimed",
        method="POST",
        role="operator",
        body=PauseBody,
        answers={200: PatternAnswer},
        conflicts=True,
    ),
    Route(
        path="/types/{pattern}/resume",
        handle=resume_pattern,
        summary="Let a paused type or prefix be claimed again",
        method="POST",
        role="operator",
        body=NoBody,
        answers={200: PatternAnswer},
        conflicts=True,
    ),
    Route(
        path="/schedules",
        handle=show_schedules,
        summary="List schedules, by type",
        answers={200: SchedulesAnswer},
    ),
    Route(
        path="/workers",
        handle=list_workers,
        summary="List the workers, and what they hold",
        answers={200: WorkersAnswer},
    ),
    Route(
        path="/runs/{id}/why",
        handle=show_why,
        summary="Say why a run is not running, and what to do about it",
        answers={200: Why},
        finds="run",
    ),
    Route(
        path="/health",
        handle=show_health,
        summary="Examine the database, the schema and its runs, as `wf doctor` does",
        role="operator",
        answers={200: HealthAnswer},
    ),
]
