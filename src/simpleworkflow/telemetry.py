"""Traces: a span for each run, linked to the span that it was submitted in (extra ``otel``).

    from simpleworkflow import telemetry

    telemetry.trace_runs(worker)

Producers need nothing: who submits inside of an active span leaves it in the run's ``traceparent``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from simpleworkflow.outcome import Cancelled, Failed, Lost, Outcome, Released, Retried, Succeeded, Suspended
from simpleworkflow.statements import Claimed
from simpleworkflow.worker import Worker

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer, TracerProvider

__all__ = ["trace_runs"]

_OUTCOMES: dict[type[Outcome], str] = {
    Succeeded: "succeeded",
    Failed: "failed",
    Retried: "retried",
    Released: "released",
    Suspended: "suspended",
    Cancelled: "cancelled",
    Lost: "lost",
}


def trace_runs(worker: Worker, *, tracer_provider: TracerProvider | None = None) -> None:
    """Let each attempt of the worker have a span; that of a batch stands for all its runs.

    The spans go where the program's OpenTelemetry sends them, or to ``tracer_provider``.  They hold types, ids and
    numbers: of an error its class, no message, no payload and no result.

    Raises:
        ImportError: the extra ``otel`` is not installed.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        raise ImportError("traces need opentelemetry-api; pip install 'simpleworkflow[otel]'") from None
    tracer = trace.get_tracer("simpleworkflow", tracer_provider=tracer_provider)
    worker.surround(lambda claimed: _span(tracer, claimed), wants_traceparents=True)


@contextmanager
def _span(tracer: Tracer, claimed: Sequence[Claimed]) -> Iterator[Callable[[Sequence[Outcome]], None]]:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode

    # A trace of its own, linked to the producer's: a run may come hours later, or again and again.
    with tracer.start_as_current_span(
        f"process {claimed[0].type}",
        context=Context(),
        kind=SpanKind.CONSUMER,
        links=[link for one in claimed if (link := _link(one.traceparent)) is not None],
        attributes=_attributes(claimed),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:

        def tell(outcomes: Sequence[Outcome]) -> None:
            span.set_attribute("simpleworkflow.outcome", _common({_OUTCOMES[type(one)] for one in outcomes}))
            errors = [one.error for one in outcomes if isinstance(one, Failed | Retried)]
            if errors:
                span.set_attribute("error.type", _common({_class_of(error) for error in errors}))
                span.set_status(Status(StatusCode.ERROR))

        yield tell


def _attributes(claimed: Sequence[Claimed]) -> dict[str, Any]:
    """Return what the semantic conventions for messaging call these."""
    attributes: dict[str, Any] = {
        "messaging.system": "simpleworkflow",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": claimed[0].type,
    }
    if len(claimed) > 1:
        return attributes | {"messaging.batch.message_count": len(claimed)}
    return attributes | {
        "messaging.message.id": claimed[0].id,
        "simpleworkflow.attempt": claimed[0].attempt,
        "simpleworkflow.max_attempts": claimed[0].max_attempts,
    }


def _link(traceparent: str | None) -> Link | None:
    from opentelemetry.trace import Link, SpanContext, TraceFlags

    if traceparent is None:
        return None
    _, trace_id, span_id, flags = traceparent.split("-")  # the table holds no other form
    context = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return Link(context) if context.is_valid else None


def _common(values: set[str]) -> str:
    return values.pop() if len(values) == 1 else "mixed"


def _class_of(error: str) -> str:
    # An error's description begins with its class; its message may be anything.
    name = error.partition(":")[0].strip()
    return name if name.replace(".", "").isidentifier() else "_OTHER"
