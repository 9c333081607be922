"""The routes of runs: list, submit, show, events, cancel, reopen."""

from __future__ import annotations

from msgspec import UNSET
from starlette.responses import Response

from simpleworkflow.client import overseeing, verbs
from simpleworkflow.codec import JsonText
from simpleworkflow.errors import RunNotFound
from simpleworkflow.model import NewRun, Run, RunEvent, RunPage, Submitted, matches
from simpleworkflow.statements import list_events as list_events_after
from simpleworkflow.web.bodies import (
    CancelBody,
    ChangeAnswer,
    EventsAnswer,
    EventsQuery,
    ReopenBody,
    RunAnswer,
    RunBody,
    RunsAnswer,
    RunsQuery,
    SubmitBody,
    SubmittedAnswer,
    event_body,
    run_body,
)
from simpleworkflow.web.errors import ApiError
from simpleworkflow.web.routes import Call, Route, answer

__all__ = ["ROUTES"]


async def list_runs(call: Call) -> Response:
    """Answer a page of runs."""
    query: RunsQuery = call.query
    if query.payload is not None and not call.shows_contents:
        raise ApiError(
            "not_permitted",
            "payload: who may not read payloads may not look for one",
            "ask with a key of the role operator",
        )
    if query.worker is not None or query.key is not None:
        return _answer_page(call, RunPage(await _known_runs(call, query), None))
    page: RunPage = await call.read(
        verbs.list_page(
            pattern=query.pattern or None,
            status=query.status or None,
            created_from=query.created_from,
            created_before=query.created_before,
            payload=None if query.payload is None else JsonText(query.payload),
            page=query.page,
            limit=query.limit,
            is_brief=True,
        )
    )
    return _answer_page(call, page)


def _answer_page(call: Call, page: RunPage) -> Response:
    runs = [run_body(run, shows_contents=call.shows_contents, is_brief=True) for run in page.runs]
    return answer(RunsAnswer(runs, page.next_page, page.looked_at, page.looked_back_to))


async def _known_runs(call: Call, query: RunsQuery) -> list[Run]:
    """Return the run of a key, or those that a worker holds, where the other filters let it through."""
    if query.page is not None:
        raise ApiError("invalid_input", "page: the runs of a key or of a worker are one page; leave it out")
    if query.payload is not None:
        raise ApiError("invalid_input", "payload: the runs of a key or of a worker are few; leave it out")
    if query.key is not None:
        runs: list[Run] = await call.read(overseeing.runs_with_key(query.key))
    else:
        runs = await call.read(overseeing.runs_held_by(query.worker or "", query.limit))
    return [
        run
        for run in runs
        if (not query.pattern or any(matches(one, run.type) for one in query.pattern))
        and (not query.status or run.status in query.status)
        and (query.worker is None or run.leased_by == query.worker)
        and (query.created_from is None or run.created_at >= query.created_from)
        and (query.created_before is None or run.created_at < query.created_before)
    ]


async def submit_run(call: Call) -> Response:
    """Record a run."""
    body: SubmitBody = call.body
    payload = "null" if body.payload is UNSET else bytes(body.payload).decode()
    new = NewRun(
        type=body.type,
        payload=None if payload == "null" else JsonText(payload),
        idempotency_key=body.idempotency_key,
        priority=body.priority,
        run_at=body.run_at,
        delay=body.delay_seconds,
        max_attempts=body.max_attempts,
    )
    submitted: Submitted = await call.change(verbs.submit(new))
    run = await _run_if_kept(call, str(submitted.id))
    return answer(SubmittedAnswer(run, submitted.created), 201 if submitted.created else 200)


async def show_run(call: Call) -> Response:
    """Answer one run with all of it."""
    return answer(RunAnswer(await _run_of(call, call.request.path_params["id"])))


async def list_events(call: Call) -> Response:
    """Answer some events of a run."""
    query: EventsQuery = call.query
    found: list[RunEvent] = await call.read(
        _event_page(call.request.path_params["id"], query.after, query.limit)
    )
    events = [event_body(event, shows_contents=call.shows_contents) for event in found]
    return answer(EventsAnswer(events, found[-1].id if len(found) == query.limit else None))


def _event_page(run_id: str, after: int, limit: int) -> verbs.Plan[list[RunEvent]]:
    found: list[RunEvent] = yield list_events_after(
        verbs.as_run_id(run_id), after=after, limit=limit, as_text=True
    )
    if not found:
        yield from verbs.get(run_id, as_text=True)  # no history is possible, no run is an error
    return found


async def cancel_run(call: Call) -> Response:
    """Cancel a run."""
    run_id = call.request.path_params["id"]
    changed = await call.change(verbs.cancel(run_id, call.body.reason))
    return answer(ChangeAnswer(changed, await _run_if_kept(call, run_id)))


async def reopen_run(call: Call) -> Response:
    """Give a run more attempts."""
    run_id = call.request.path_params["id"]
    changed = await call.change(verbs.reopen(run_id, call.body.attempts, call.body.reason))
    return answer(ChangeAnswer(changed, await _run_if_kept(call, run_id)))


async def _run_of(call: Call, run_id: str) -> RunBody:
    run: Run = await call.read(verbs.get(run_id, as_text=True))
    return run_body(run, shows_contents=call.shows_contents)


async def _run_if_kept(call: Call, run_id: str) -> RunBody | None:
    try:
        return await _run_of(call, run_id)
    except RunNotFound:
        return None


ROUTES = [
    Route(
        path="/runs",
        handle=list_runs,
        summary="List runs, newest first",
        query=RunsQuery,
        answers={200: RunsAnswer},
    ),
    Route(
        path="/runs",
        handle=submit_run,
        summary="Submit a run; an idempotency key that exists answers the run that has it",
        method="POST",
        role="operator",
        body=SubmitBody,
        answers={200: SubmittedAnswer, 201: SubmittedAnswer},
        conflicts=True,
    ),
    Route(path="/runs/{id}", handle=show_run, summary="Show a run", answers={200: RunAnswer}, finds="run"),
    Route(
        path="/runs/{id}/events",
        handle=list_events,
        summary="List what happened to a run, in its order",
        query=EventsQuery,
        answers={200: EventsAnswer},
        finds="run",
    ),
    Route(
        path="/runs/{id}/cancel",
        handle=cancel_run,
        summary="Cancel a run",
        method="POST",
        role="operator",
        body=CancelBody,
        answers={200: ChangeAnswer},
        finds="run",
        conflicts=True,
    ),
    Route(
        path="/runs/{id}/reopen",
        handle=reopen_run,
        summary="Give a failed or cancelled run more attempts",
        method="POST",
        role="operator",
        body=ReopenBody,
        answers={200: ChangeAnswer},
        finds="run",
        conflicts=True,
    ),
]
