"""What the server tells Prometheus: what there is in the tables, which no single worker knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from simpleworkflow.metrics.names import build_family, family
from simpleworkflow.metrics.tally import OTHER, TYPES_MAX
from simpleworkflow.model import Stats, TypeSummary

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["CONTENT_TYPE", "server_metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def server_metrics(stats: Stats | None, types: Sequence[TypeSummary]) -> bytes:
    """Return the body of ``/metrics``; ``stats`` is None while the database is away.

    Raises:
        InvalidInput: the extra ``metrics`` is not installed.
    """
    from simpleworkflow.metrics.serving import check_extra

    check_extra()
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(stats, types))
    return generate_latest(registry)


class _Collector:
    def __init__(self, stats: Stats | None, types: Sequence[TypeSummary]) -> None:
        self._stats = stats
        # The first by name: which types stand alone shall not change with what they do.
        self._types = sorted(types, key=lambda one: one.type)

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield build_family()
        up = family("simpleworkflow_database_up")
        up.add_metric([], int(self._stats is not None))
        yield up
        if self._stats is not None:
            rates = family("simpleworkflow_events_per_second")
            for event, per_second in self._stats.rates.items():
                rates.add_metric([event], per_second)
            yield rates
            yield self._runs()
            yield self._oldest()
            yield self._enabled()

    def _runs(self) -> Metric:
        runs: dict[tuple[str, str], int] = {}
        for number, one in enumerate(self._types):
            for status, count in one.runs.items():
                key = (one.type if number < TYPES_MAX else OTHER, status)
                runs[key] = runs.get(key, 0) + count
        metric = family("simpleworkflow_runs")
        for labels, count in runs.items():
            metric.add_metric(labels, count)
        return metric  # type: ignore[no-any-return]

    def _oldest(self) -> Metric:
        oldest: dict[str, float] = {}
        for number, one in enumerate(self._types):
            type_ = one.type if number < TYPES_MAX else OTHER
            oldest[type_] = max(oldest.get(type_, 0.0), one.oldest_due_seconds or 0.0)
        metric = family("simpleworkflow_oldest_due_seconds")
        for type_, seconds in oldest.items():
            metric.add_metric([type_], seconds)
        return metric  # type: ignore[no-any-return]

    def _enabled(self) -> Metric:
        metric = family("simpleworkflow_type_enabled")
        for one in self._types[:TYPES_MAX]:
            metric.add_metric([one.type], int(one.is_enabled))
        return metric  # type: ignore[no-any-return]
