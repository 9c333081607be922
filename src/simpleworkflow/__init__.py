"""Durable workflows on PostgreSQL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simpleworkflow.client import AsyncClient, AsyncRunHandle, Client, RunHandle
    from simpleworkflow.errors import (
        DatabaseUnavailable,
        InvalidInput,
        LeaseLost,
        OperationNotFound,
        RetryAfter,
        RunCancelled,
        RunNotFound,
        RunNotSucceeded,
        SchemaMismatch,
        WaitTimeout,
        WorkflowError,
    )
    from simpleworkflow.model import (
        NewRun,
        Policy,
        PrunableCount,
        Run,
        RunEvent,
        RunPage,
        Stats,
        TypeSummary,
    )
    from simpleworkflow.operation import Operation
    from simpleworkflow.retry import RetryPolicy, exponential
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
    "Operation",
    "OperationNotFound",
    "Policy",
    "PrunableCount",
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
    "Stats",
    "TypeSummary",
    "WaitTimeout",
    "Worker",
    "WorkflowError",
    "WorkflowExecutor",
    "WorkflowRun",
    "exponential",
]

__version__: str

# Where the names above are, what costs least first.  Imported when one is asked for (PEP 562): a producer does
# not pay for what workers need, nor `wf --help` for the driver.
_MODULES = ("errors", "model", "operation", "retry", "client", "worker")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("simpleworkflow")
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f"{__name__}.{module}"), name, None)
            if found is not None:
                globals()[name] = found  # asked once
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
