"""The application: routes, pages and probes, put together."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Path

import simpleworkflow
from simpleworkflow.web import listening, operations, overview, runs
from simpleworkflow.web.bodies import MeAnswer
from simpleworkflow.web.errors import ApiError, explain
from simpleworkflow.web.guard import LOCAL_HOSTS, Guard, check_origin
from simpleworkflow.web.identity import Identity
from simpleworkflow.web.keys import Keys
from simpleworkflow.web.listening import Live
from simpleworkflow.web.openapi import describe
from simpleworkflow.web.pages import PAGES, file, page
from simpleworkflow.web.probes import PREFIX, probes
from simpleworkflow.web.routes import Call, Route, answer, error_answer
from simpleworkflow.web.store import REQUEST_SECONDS_MAX, Store

__all__ = ["create_app"]

Endpoint = Callable[[Request], Awaitable[Response]]
Identifies = Callable[[Request], Awaitable[Identity]]


async def show_me(call: Call) -> Response:
    """Answer who asks."""
    return answer(MeAnswer(call.who.name, call.who.role, simpleworkflow.__version__))


ROUTES = [
    *runs.ROUTES,
    *overview.ROUTES,
    *operations.ROUTES,
    *listening.ROUTES,
    Route(path="/me", handle=show_me, summary="Who asks", answers={200: MeAnswer}),
]


def create_app(
    database_url: str | None = None,
    *,
    schema: str | None = None,
    pool_size: int = 10,
    is_open: bool = False,
    hosts: Collection[str] = (),
    identify: Identifies | None = None,
) -> Starlette:
    """Return the REST API and the dashboard as an ASGI application; mount it where you like.

    The database is found as by ``Client``, when the first request needs it.  ``pool_size``: connections at most.
    ``is_open``: without API keys whoever reaches it may do all, under the names ``localhost``, ``127.0.0.1``,
    ``[::1]`` and ``hosts``; only for a server that listens on loopback.  ``identify`` tells who asks where that is not
    for API keys to tell: the user of your own session, say.

    Raises:
        InvalidDatabaseUrl: the URL, the schema or a variable of the environment cannot be used.
    """
    store = Store(database_url, schema, pool_size)
    live, keys = Live(store), Keys(store, is_open=is_open)
    known = identify or keys.identify
    document = msgspec.json.encode(describe(ROUTES, prefix=PREFIX, version=simpleworkflow.__version__))

    async def show_page(request: Request) -> Response:
        return page(request)

    async def show_file(request: Request) -> Response:
        return file(request)

    app = Starlette(
        routes=[
            *(Path(path, _guarded(ask), methods=["GET"]) for path, ask in probes(store, document, known)),
            *_paths(ROUTES, store, known, live),
            Path(f"{PREFIX}/login", _guarded(_of_this_site(keys.log_in)), methods=["POST"]),
            Path(f"{PREFIX}/logout", _guarded(_of_this_site(keys.log_out)), methods=["POST"]),
            *(Path(path, _guarded(show_page), methods=["GET"]) for path in PAGES),
            Path("/{name}", _guarded(show_file), methods=["GET"]),
        ],
        middleware=[Middleware(Guard, hosts=LOCAL_HOSTS | set(hosts) if is_open else None)],
        exception_handlers={HTTPException: _explain_http},
    )
    app.state.store, app.state.streams = store, live.streams
    return app


def _paths(routes: Iterable[Route], store: Store, identify: Identifies, live: Live) -> list[BaseRoute]:
    """Return one path for all its methods, so that one that is not among them is told which are."""
    paths: dict[str, dict[str, Route]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = route
    return [
        Path(PREFIX + path, _endpoint(by_method, store, identify, live), methods=list(by_method))
        for path, by_method in paths.items()
    ]


def _endpoint(by_method: Mapping[str, Route], store: Store, identify: Identifies, live: Live) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        who = await identify(request)
        # A browser sends no key of itself in a header, but the name and password of HTTP Basic.
        is_programs = request.headers.get("authorization", "").lower().startswith("bearer ")
        if request.method == "POST" and not (who.name and is_programs):
            check_origin(request)
        method = "GET" if request.method == "HEAD" else request.method
        return await by_method[method].call(request, store, who, live)

    return _guarded(endpoint)


def _of_this_site(endpoint: Endpoint) -> Endpoint:
    async def checking(request: Request) -> Response:
        check_origin(request)
        return await endpoint(request)

    return checking


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Return ``endpoint`` so that every error is an answer of the one shape."""

    async def answering(request: Request) -> Response:
        try:
            async with asyncio.timeout(REQUEST_SECONDS_MAX):  # a body may be long in coming, too
                return await endpoint(request)
        except Exception as error:  # noqa: BLE001 - the edge; what nobody foresaw is logged there
            return error_answer(explain(error))

    return answering


async def _explain_http(request: Request, error: Exception) -> Response:
    """Answer what the router refuses."""
    assert isinstance(error, HTTPException)
    shown = re.sub(r"[^ -~]", "?", request.url.path)[:200]
    if error.status_code == 404:
        return error_answer(ApiError("not_found", f"there is no page {shown}", "see /openapi.json"))
    allowed = (error.headers or {}).get("Allow", "")
    refusal = ApiError(
        "invalid_input",
        f"method: {shown} takes {allowed or 'another'}, got {request.method[:20]}",
        status=error.status_code,
    )
    response = error_answer(refusal)
    if allowed:
        response.headers["Allow"] = allowed
    return response
