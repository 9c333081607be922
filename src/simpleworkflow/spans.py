"""The span that a program is in, as far as it uses OpenTelemetry at all; nothing here imports it."""

from __future__ import annotations

import sys

__all__ = ["current_traceparent"]


def current_traceparent() -> str | None:
    """Return the active span as W3C Trace Context writes it; None where there is none.

    A program in which nobody has imported OpenTelemetry has none, and pays one look into a dict.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not hasattr(trace, "get_current_span"):  # or it is being imported at this moment
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags) & 255:02x}"
