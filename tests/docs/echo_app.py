"""A worker for everything, so that what a page submits is also executed: it returns the payload."""

from __future__ import annotations

from typing import Any

from simpleworkflow import AsyncWorkflowRun, Worker

worker = Worker()


@worker.handler("%")
async def echo(run: AsyncWorkflowRun, payload: Any) -> Any:
    return payload
