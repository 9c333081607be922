"""The metrics of a worker, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from simpleworkflow.metrics.names import NAMES, build_family, family
from simpleworkflow.metrics.tallies import Tallies
from simpleworkflow.metrics.tally import BOUNDS_SECONDS, Figures, Spread, TypeFigures

if TYPE_CHECKING:
    from prometheus_client.metrics_core import HistogramMetricFamily, Metric

__all__ = ["WorkerCollector"]

_BY_TYPE = {
    "simpleworkflow_claimed_total": "claimed",
    "simpleworkflow_retried_total": "retried",
    "simpleworkflow_released_total": "released",
    "simpleworkflow_leases_lost_total": "lost",
    "simpleworkflow_results_refused_total": "refused",
}
_ENDS = ("succeeded", "failed", "cancelled")


class WorkerCollector:
    """Collects what the processes of a worker have counted.  It asks no database."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without values."""
        for name, metric in NAMES.items():
            if "worker" in metric.where:
                yield family(name)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        figures = self._tallies.figures()
        yield build_family()
        yield from self._of_processes(figures)
        yield from _counts_by_type(figures.types)
        for name, part in (("simpleworkflow_wait_seconds", "wait"), ("simpleworkflow_run_seconds", "run")):
            histogram: HistogramMetricFamily = family(name)
            for type_, one in sorted(figures.types.items()):
                _add_histogram(histogram, type_, getattr(one, part))
            yield histogram

    def _of_processes(self, figures: Figures) -> Iterator[Metric]:
        values = {
            "simpleworkflow_processes": self._tallies.process_count(),
            "simpleworkflow_processes_ended_total": self._tallies.ended_count(),
            "simpleworkflow_slots_held": self._tallies.held_count(),
            "simpleworkflow_slots_capacity": figures.capacity,
            "simpleworkflow_heartbeat_age_seconds": self._tallies.heartbeat_age_seconds(),
            "simpleworkflow_expired_total": figures.expired,
            "simpleworkflow_database_errors_total": figures.errors,
            "simpleworkflow_database_outages_total": figures.outages,
            "simpleworkflow_database_up": int(not figures.away),
        }
        for name, value in values.items():
            metric = family(name)
            metric.add_metric([], value)
            yield metric


def _counts_by_type(types: dict[str, TypeFigures]) -> Iterator[Metric]:
    for name, count in _BY_TYPE.items():
        metric = family(name)
        for type_, one in sorted(types.items()):
            metric.add_metric([type_], one.counts[count])
        yield metric
    finished = family("simpleworkflow_finished_total")
    for type_, one in sorted(types.items()):
        for end in _ENDS:
            finished.add_metric([type_, end], one.counts[end])
    yield finished


def _add_histogram(histogram: HistogramMetricFamily, type_: str, spread: Spread) -> None:
    bounds = [*map(str, BOUNDS_SECONDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(spread.buckets), strict=True))
    histogram.add_metric([type_], buckets, spread.sum_seconds)
