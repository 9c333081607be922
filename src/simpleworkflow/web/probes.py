"""What machines ask: whether the server lives, whether it can serve, what it offers, its metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from simpleworkflow.client import verbs
from simpleworkflow.errors import WorkflowError
from simpleworkflow.metrics.server import CONTENT_TYPE, server_metrics
from simpleworkflow.web.identity import Identity
from simpleworkflow.web.store import Store

__all__ = ["PREFIX", "probes"]

PREFIX = "/api/v1"
READY_SECONDS_MAX = 2.0
METRICS_WINDOW_SECONDS = 300
Endpoint = Callable[[Request], Awaitable[Response]]


def probes(
    store: Store, document: bytes, identify: Callable[[Request], Awaitable[Identity]]
) -> list[tuple[str, Endpoint]]:
    """Return the paths and what answers them; ``document`` is the description of the API.

    Types and what they do are for who has a key: ``identify`` refuses others the metrics.
    """

    async def is_ready(_: Request) -> Response:
        await store.follow(verbs.check_schema(store.schema), seconds=READY_SECONDS_MAX)
        return PlainTextResponse("ready\n")

    async def describe_api(_: Request) -> Response:
        return Response(document, media_type="application/json")

    async def show_metrics(request: Request) -> Response:
        try:
            await identify(request)  # which asks the database too
            stats = await store.stats(METRICS_WINDOW_SECONDS, seconds=READY_SECONDS_MAX)
            types = await store.types(METRICS_WINDOW_SECONDS, seconds=READY_SECONDS_MAX)
        except (WorkflowError, TimeoutError):
            stats, types = None, []  # also that the database is away is a metric
        return Response(server_metrics(stats, types), headers={"Content-Type": CONTENT_TYPE})

    asked = [("/healthz", _is_alive), ("/readyz", is_ready), ("/openapi.json", describe_api)]
    return [
        *((prefix + path, endpoint) for prefix in ("", PREFIX) for path, endpoint in asked),
        ("/metrics", show_metrics),
    ]


async def _is_alive(_: Request) -> Response:
    """Answer that this process answers, whatever the database does."""
    return PlainTextResponse("alive\n")
