"""A route of the API: what it is called, what it takes, answers and needs; and the call of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from simpleworkflow.client import verbs
from simpleworkflow.web.asking import read_body, read_query
from simpleworkflow.web.bodies import ErrorAnswer, ErrorBody, NoQuery
from simpleworkflow.web.errors import ApiError
from simpleworkflow.web.identity import Identity, Role
from simpleworkflow.web.store import Store

__all__ = ["Call", "Route", "answer", "error_answer"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a route: who asks, what was said in its path, its parameters and its body."""

    request: Request
    store: Store
    app: Any  # what the streams of one application share
    who: Identity
    query: Any
    body: Any

    @property
    def shows_contents(self) -> bool:
        """Whether this one may read what runs are about."""
        return self.who.has("operator")

    async def read(self, plan: verbs.Plan[Any]) -> Any:
        """Return the answer of a plan that reads."""
        return await self.store.follow(plan)

    async def change(self, plan: verbs.Plan[Any]) -> Any:
        """Return the answer of a plan that changes something, in the name of who asks."""
        return await self.store.follow(plan, on_behalf_of=self.who.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path.  ``answers``: what each status answers; errors have their own shape."""

    path: str
    handle: Callable[[Call], Awaitable[Response]]
    summary: str
    method: Literal["GET", "POST"] = "GET"
    role: Role = "reader"
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    answers: Mapping[int, type[Any] | None] = field(default_factory=dict)
    media: str = "application/json"
    finds: str | None = None  # what is not found where there is none
    conflicts: bool = False

    async def call(self, request: Request, store: Store, who: Identity, app: Any) -> Response:
        """Read the request, and handle it.

        Raises:
            ApiError: it cannot be read, or is not for this one's role.
        """
        if not who.has(self.role):
            raise ApiError(
                "not_permitted", f"this needs the role {self.role}, and {who.name or 'you'} has {who.role}"
            )
        query = read_query(request, self.query)
        body = None if self.body is None else await read_body(request, self.body)
        return await self.handle(Call(request, store, app, who, query, body))


def answer(said: object, status: int = 200) -> Response:
    """Return ``said`` as JSON."""
    return Response(msgspec.json.encode(said), status, media_type="application/json")


def error_answer(error: ApiError) -> Response:
    """Return an error as JSON."""
    return answer(ErrorAnswer(ErrorBody(error.code, error.message, error.hint)), error.status)
