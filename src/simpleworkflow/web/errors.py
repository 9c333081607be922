"""The one shape of all errors, and which of ours has which status."""

from __future__ import annotations

import logging

import psycopg

from simpleworkflow.database import first_line
from simpleworkflow.errors import (
    DatabaseUnavailable,
    EmbeddedPostgresError,
    InvalidInput,
    NotPermitted,
    OperationNotFound,
    RunNotFound,
    SchemaMismatch,
    TransitionRefused,
)

__all__ = ["CODES", "ApiError", "explain"]

logger = logging.getLogger("simpleworkflow.web")

CODES = {
    "invalid_input": 400,
    "unauthenticated": 401,
    "not_permitted": 403,
    "not_found": 404,
    "conflict": 409,
    "too_large": 413,
    "internal": 500,
    "unavailable": 503,
}
_LINE_CHARACTERS_MAX = 1000


class ApiError(Exception):
    """An answer that is an error: its code, one line for people, and a hint what to do."""

    def __init__(
        self, code: str, message: str, hint: str | None = None, *, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or CODES[code]
        self.message = " ".join(message.split())[:_LINE_CHARACTERS_MAX]
        self.hint = hint


def explain(error: Exception) -> ApiError:  # noqa: PLR0911 - one for each kind
    """Return what a client is told of ``error``; what nobody foresaw is logged, and told without its text."""
    match error:
        case ApiError():
            return error
        case InvalidInput():
            return ApiError("invalid_input", str(error))
        case RunNotFound() | OperationNotFound():
            return ApiError("not_found", str(error))
        case TransitionRefused():
            return ApiError("conflict", str(error))
        case NotPermitted():
            return ApiError("not_permitted", f"the database refused it to the server's role: {error}")
        case DatabaseUnavailable(is_unknown=True):
            return ApiError(
                "unavailable", str(error), "look whether the change is there before it is repeated"
            )
        case DatabaseUnavailable() | EmbeddedPostgresError():
            return ApiError("unavailable", str(error), "try again; `wf doctor` examines the database")
        case SchemaMismatch():
            return ApiError("unavailable", str(error), "bring the schema up to date with `wf migrate`")
        case TimeoutError() | psycopg.errors.QueryCanceled():
            return ApiError("unavailable", "the database gave no answer in time", "try again later")
        case psycopg.errors.LockNotAvailable() | psycopg.errors.TransactionRollback():
            return ApiError("unavailable", first_line(error), "try again")
    logger.error("a request failed unforeseen", exc_info=error)
    return ApiError("internal", f"unexpected {type(error).__name__}; the server's log tells more")
