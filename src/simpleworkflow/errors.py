"""Every error this package raises on purpose, in one place.

A message reads *noun, identity, fact*, then the one remedy.  Values are attributes as well, so that a
program need not read the sentence.  Programmer mistakes are ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DatabaseUnavailable",
    "EmbeddedPostgresError",
    "InvalidDatabaseUrl",
    "InvalidInput",
    "LeaseLost",
    "MissingExtra",
    "NotPermitted",
    "OperationNotFound",
    "PayloadMismatch",
    "RetryAfter",
    "RunCancelled",
    "RunNotFound",
    "RunNotSucceeded",
    "SchemaMismatch",
    "TransitionRefused",
    "WaitTimeout",
    "WorkerNotFound",
    "WorkflowError",
]


class WorkflowError(Exception):
    """The base of every error that simpleworkflow raises on purpose.

    ``exit_code`` is what a program that ends with it tells the shell; ``wf --help`` lists them.
    """

    exit_code: ClassVar[int] = 1


# ── the world: database, schema, settings ──────────────────────────────────────────────────────────


class InvalidDatabaseUrl(WorkflowError):
    """A database URL cannot be used as it is written."""

    exit_code = 2


class DatabaseUnavailable(WorkflowError):
    """The database cannot be reached, refused the connection, or was lost before it answered.

    ``is_unknown``: the change that was asked for may have happened, only the answer was lost.  Where it is
    False, the change has certainly not happened.
    """

    exit_code = 3

    def __init__(self, message: str = "", *, is_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_unknown = is_unknown


class SchemaMismatch(WorkflowError):
    """The database's schema is missing, or older or newer than this version of the package."""

    exit_code = 4


class NotPermitted(WorkflowError):
    """The role of this connection may not do that; the message says which one may (SQLSTATE 42501)."""


class EmbeddedPostgresError(WorkflowError):
    """The embedded PostgreSQL cannot be found or started."""

    exit_code = 3


class WorkerNotFound(WorkflowError):
    """``module:worker`` names nothing that can be imported and run."""

    exit_code = 2


class MissingExtra(WorkflowError):
    """A part of the package is asked for whose own dependencies are not installed."""

    exit_code = 2

    def __init__(self, extra: str, module: str | None) -> None:
        super().__init__(
            f"the {extra} needs {module}, which is not installed; run `pip install 'simpleworkflow[{extra}]'`"
        )
        self.extra = extra


# ── runs ───────────────────────────────────────────────────────────────────────────────────────────


class InvalidInput(WorkflowError, ValueError):
    """A value that the table contract refuses (SQLSTATE WF002)."""

    exit_code = 2


class TransitionRefused(WorkflowError):
    """A change that the table of transitions does not allow (SQLSTATE WF001)."""


class RunNotFound(WorkflowError):
    """There is no run with this id, or no longer: it was pruned, or succeeded and its policy keeps no such runs."""

    exit_code = 5

    def __init__(self, run_id: object, *, was_awaited: bool = False) -> None:
        # Who waits most likely knows that it was there.
        why = (
            "; if it did, it succeeded and its policy keeps no such runs, or it was pruned"
            if was_awaited
            else ""
        )
        super().__init__(f"run {run_id} does not exist{why}")
        self.run_id = run_id


class OperationNotFound(WorkflowError):
    """There is no operation with this id."""

    exit_code = 5

    def __init__(self, operation_id: object) -> None:
        super().__init__(f"operation {operation_id} does not exist; `wf operation list` shows those that do")
        self.operation_id = operation_id


class WaitTimeout(WorkflowError, TimeoutError):
    """A run did not end within the time that the caller was willing to wait."""

    def __init__(self, run_id: object, seconds: float) -> None:
        super().__init__(f"run {run_id} did not end within {seconds:g} s; it goes on by itself")
        self.run_id = run_id
        self.seconds = seconds


class RunNotSucceeded(WorkflowError):
    """The result was asked of a run that ended ``failed`` or ``cancelled``."""

    def __init__(self, run_id: object, status: str, last_error: str | None) -> None:
        super().__init__(f"run {run_id} ended {status}" + (f": {last_error}" if last_error else ""))
        self.run_id = run_id
        self.status = status
        self.last_error = last_error


# ── inside a handler ───────────────────────────────────────────────────────────────────────────────


class LeaseLost(WorkflowError):
    """Another worker holds the run now; whatever this attempt still does is refused."""

    def __init__(self, run_id: object) -> None:
        super().__init__(f"run {run_id} is no longer held by this worker; stop working on it")
        self.run_id = run_id


class RunCancelled(WorkflowError):
    """A handler raises it to stop because its run was cancelled; it is no failure."""


class PayloadMismatch(WorkflowError, ValueError):
    """A payload does not fit the handler's annotation; the run fails without retry."""

    exit_code = 2


class RetryAfter(WorkflowError):
    """A handler raises it to be tried again after ``seconds``, if attempts are left.

    Raises:
        ValueError: ``seconds`` is negative or not finite.
    """

    def __init__(self, seconds: float, reason: str | None = None) -> None:
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"expected seconds >= 0, got {seconds!r}")
        super().__init__(reason or f"try again after {seconds:g} s")
        self.seconds = seconds
