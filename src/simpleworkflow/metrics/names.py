"""The metrics: their names, what they mean, and who exports them.  ``docs/operating/metrics.md`` has this table."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal, NamedTuple

__all__ = ["NAMES", "MetricName", "build_family", "family"]


class MetricName(NamedTuple):
    """One metric.  ``where``: ``worker``, ``server`` or both; no label is ever a worker, a run or a key."""

    kind: Literal["counter", "gauge", "histogram"]
    where: frozenset[str]
    labels: tuple[str, ...]
    meaning: str


_WORKER, _SERVER, _BOTH = frozenset({"worker"}), frozenset({"server"}), frozenset({"worker", "server"})
_TYPE = ("type",)

NAMES: dict[str, MetricName] = {
    "simpleworkflow_build_info": MetricName("gauge", _BOTH, ("version",), "1, of this version"),
    "simpleworkflow_claimed_total": MetricName("counter", _WORKER, _TYPE, "runs claimed"),
    "simpleworkflow_finished_total": MetricName(
        "counter",
        _WORKER,
        ("type", "status"),
        "runs that ended here: succeeded, failed, or cancelled meanwhile",
    ),
    "simpleworkflow_retried_total": MetricName(
        "counter", _WORKER, _TYPE, "attempts that failed and are tried again"
    ),
    "simpleworkflow_released_total": MetricName(
        "counter", _WORKER, _TYPE, "runs given back untried, or at the stop"
    ),
    "simpleworkflow_leases_lost_total": MetricName(
        "counter", _WORKER, _TYPE, "attempts that ended because their lease was lost"
    ),
    "simpleworkflow_results_refused_total": MetricName(
        "counter", _WORKER, _TYPE, "results that the database refused, of runs cancelled or lost meanwhile"
    ),
    "simpleworkflow_expired_total": MetricName(
        "counter", _WORKER, (), "runs taken from workers that died or stopped extending their leases"
    ),
    "simpleworkflow_wait_seconds": MetricName(
        "histogram",
        _WORKER,
        _TYPE,
        "how long a run had been due when it was claimed, by the database's clock",
    ),
    "simpleworkflow_run_seconds": MetricName("histogram", _WORKER, _TYPE, "how long an attempt took"),
    "simpleworkflow_slots_held": MetricName(
        "gauge", _WORKER, (), "runs held now, those claimed ahead included"
    ),
    "simpleworkflow_slots_capacity": MetricName("gauge", _WORKER, (), "how many runs can execute at once"),
    "simpleworkflow_processes": MetricName("gauge", _WORKER, (), "worker processes that live"),
    "simpleworkflow_processes_ended_total": MetricName(
        "counter", _WORKER, (), "worker processes that died or stopped"
    ),
    "simpleworkflow_heartbeat_age_seconds": MetricName(
        "gauge",
        _WORKER,
        (),
        "since the database last answered a heartbeat; normally up to a third of a lease",
    ),
    "simpleworkflow_database_up": MetricName("gauge", _BOTH, (), "1; 0 while the database is away"),
    "simpleworkflow_database_outages_total": MetricName(
        "counter", _WORKER, (), "how often a process found the database away; each process counts"
    ),
    "simpleworkflow_database_errors_total": MetricName(
        "counter", _WORKER, (), "statements that failed although the database was there"
    ),
    "simpleworkflow_runs": MetricName(
        "gauge",
        _SERVER,
        ("type", "status"),
        "runs in the table, hidden ones not counted; `pending` are those that wait",
    ),
    "simpleworkflow_oldest_due_seconds": MetricName(
        "gauge", _SERVER, _TYPE, "how long the oldest run that is due and waits has been due; 0: none"
    ),
    "simpleworkflow_events_per_second": MetricName(
        "gauge",
        _SERVER,
        ("event",),
        "runs submitted, claimed, succeeded, failed, retried, cancelled, expired, by anybody, over five minutes",
    ),
    "simpleworkflow_type_enabled": MetricName("gauge", _SERVER, _TYPE, "0 while the type is paused"),
}


def family(name: str) -> Any:
    """Return the metric ``name`` without values, for a collector to fill."""
    from prometheus_client import metrics_core

    metric = NAMES[name]
    kinds = {
        "counter": metrics_core.CounterMetricFamily,
        "gauge": metrics_core.GaugeMetricFamily,
        "histogram": metrics_core.HistogramMetricFamily,
    }
    return kinds[metric.kind](name, metric.meaning, labels=metric.labels)


def build_family() -> Any:
    """Return ``simpleworkflow_build_info``."""
    metric = family("simpleworkflow_build_info")
    metric.add_metric([version("simpleworkflow")], 1)
    return metric
