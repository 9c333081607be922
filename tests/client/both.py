"""Both clients behind one face, so that each law is tested once and held by both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simpleworkflow import AsyncClient, AsyncRunHandle, Client


class Blocking:
    """An async client or handle, called as if it were the sync one: each call runs on the test's loop."""

    def __init__(self, runner: asyncio.Runner, wrapped: Any) -> None:
        self._runner = runner
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        return self._call(found) if callable(found) else found

    def _call(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            async def finished() -> Any:
                answer = method(*args, **options)
                return [run async for run in answer] if hasattr(answer, "__aiter__") else await answer

            return self._wrap(self._runner.run(finished()))

        return call

    def _wrap(self, answer: Any) -> Any:
        if isinstance(answer, list):
            return [self._wrap(one) for one in answer]
        return Blocking(self._runner, answer) if isinstance(answer, AsyncRunHandle) else answer


@pytest.fixture(params=["sync", "async"])
def open_client(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Open clients of one colour; they are closed with the test."""
    opened: list[Any] = []
    with asyncio.Runner() as runner:

        def open_one(url: str, **options: Any) -> Any:
            if request.param == "sync":
                opened.append(Client(url, **options))
            else:
                opened.append(Blocking(runner, AsyncClient(url, **options)))
            return opened[-1]

        yield open_one
        for client in opened:
            client.close()


@pytest.fixture
def client(open_client: Callable[..., Any], database_url: str) -> Any:
    """A client of the test's own schema."""
    return open_client(database_url)
