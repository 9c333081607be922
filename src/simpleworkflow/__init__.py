"""Durable workflows on PostgreSQL."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from simpleworkflow.client import AsyncClient, AsyncRunHandle, Client, RunHandle
from simpleworkflow.errors import (
    DatabaseUnavailable,
    InvalidInput,
    LeaseLost,
    RetryAfter,
    RunCancelled,
    RunNotFound,
    RunNotSucceeded,
    SchemaMismatch,
    WaitTimeout,
    WorkflowError,
)
from simpleworkflow.model import NewRun, Run, RunEvent, RunPage
from simpleworkflow.retry import RetryPolicy, exponential

if TYPE_CHECKING:
    from simpleworkflow.worker import AsyncWorkflowRun, Worker, WorkflowExecutor, WorkflowRun

__all__ = [
    "AsyncClient",
    "AsyncRunHandle",
    "AsyncWorkflowRun",
    "Client",
    "DatabaseUnavailable",
    "InvalidInput",
    "LeaseLost",
    "NewRun",
    "RetryAfter",
    "RetryPolicy",
    "Run",
    "RunCancelled",
    "RunEvent",
    "RunHandle",
    "RunNotFound",
    "RunNotSucceeded",
    "RunPage",
    "SchemaMismatch",
    "WaitTimeout",
    "Worker",
    "WorkflowError",
    "WorkflowExecutor",
    "WorkflowRun",
    "exponential",
]

__version__ = metadata.version("simpleworkflow")

# Imported when asked for: a producer does not pay for what only workers need.
_OF_WORKER = frozenset({"AsyncWorkflowRun", "Worker", "WorkflowExecutor", "WorkflowRun"})


def __getattr__(name: str) -> Any:
    if name not in _OF_WORKER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from simpleworkflow import worker

    return getattr(worker, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OF_WORKER])
