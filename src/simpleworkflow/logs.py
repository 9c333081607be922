"""How ``wf worker`` and ``wf server`` log: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

__all__ = ["FORMATS", "JsonFormatter", "LogFormat", "attempting", "configure_logging", "run_fields"]

LogFormat = Literal["text", "json"]
FORMATS: tuple[LogFormat, ...] = ("text", "json")
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s"
_RUN_FIELDS = ("run_id", "type", "attempt", "runs")

_attempt: ContextVar[dict[str, Any] | None] = ContextVar("simpleworkflow_attempt", default=None)


class Attempted(Protocol):
    """What a line says of a run."""

    @property
    def id(self) -> str:
        """The run's id."""

    @property
    def type(self) -> str:
        """The run's type."""

    @property
    def attempt(self) -> int:
        """Which attempt."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, process, message; the run where it is known.

    Of what else a record carries nothing is written: it may hold payloads.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        line |= _attempt.get() or {}
        line |= {name: getattr(record, name) for name in _RUN_FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # ASCII, so that no character ends the line and no encoding of the stream refuses it.
        return json.dumps(line, default=str)


def configure_logging(level: str, log_format: LogFormat = "text") -> None:
    """Log to the standard error stream, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
        logging.captureWarnings(True)
    else:
        handler.setFormatter(logging.Formatter(TEXT_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])


def run_fields(run: Attempted) -> dict[str, Any]:
    """Return what a line says of a run, as the ``extra`` of a call of a logger."""
    return {"run_id": run.id, "type": run.type, "attempt": run.attempt}


@contextmanager
def attempting(runs: Sequence[Attempted]) -> Iterator[None]:
    """Let the lines that are logged meanwhile, by handlers too, tell which run; of a batch its type and size."""
    fields = run_fields(runs[0]) if len(runs) == 1 else {"type": runs[0].type, "runs": len(runs)}
    token = _attempt.set(fields)
    try:
        yield
    finally:
        _attempt.reset(token)
