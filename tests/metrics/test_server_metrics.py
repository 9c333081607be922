"""What the server tells Prometheus of the tables."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from builders import Database, submit
from simpleworkflow import Client
from simpleworkflow.metrics.names import NAMES
from simpleworkflow.metrics.server import server_metrics
from simpleworkflow.metrics.tally import OTHER, TYPES_MAX


def samples_of(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }


def test_what_waits_is_told_by_type_and_status(db: Database, database_url: str) -> None:
    for type_ in ("shop.a.v1", "shop.a.v1", "shop.b.v1"):
        submit(db, type_)

    with Client(database_url) as client:
        client.pause("shop.b.v1", reason="closed")
        samples = samples_of(server_metrics(client.stats(), client.types()))

    def value(name: str, **labels: str) -> float:
        return samples[f"simpleworkflow_{name}", frozenset(labels.items())]

    assert value("runs", type="shop.a.v1", status="pending") == 2
    assert value("runs", type="shop.b.v1", status="pending") == 1
    assert value("oldest_due_seconds", type="shop.a.v1") > 0
    assert value("type_enabled", type="shop.a.v1") == 1
    assert value("type_enabled", type="shop.b.v1") == 0
    assert value("events_per_second", event="submitted") > 0
    assert value("database_up") == 1


def test_every_metric_of_the_server_is_there_with_its_labels(db: Database, database_url: str) -> None:
    submit(db, "shop.a.v1")

    with Client(database_url) as client:
        samples = samples_of(server_metrics(client.stats(), client.types()))

    labels = {name: {label for label, _ in pairs} for name, pairs in samples}
    assert labels == {name: set(one.labels) for name, one in NAMES.items() if "server" in one.where}


def test_types_beyond_the_bound_are_told_together(db: Database, database_url: str) -> None:
    submit(db, "shop.a.v1")
    with Client(database_url) as client:
        stats, one = client.stats(), client.types()[0]

    samples = samples_of(server_metrics(stats, [replace(one, type=f"t{n:04}") for n in range(TYPES_MAX + 5)]))

    assert samples["simpleworkflow_runs", frozenset({("type", OTHER), ("status", "pending")})] == 5
    assert len({labels for name, labels in samples if name == "simpleworkflow_type_enabled"}) == TYPES_MAX


def test_a_database_that_is_away_is_told_and_nothing_else() -> None:
    names = {name: value for (name, _), value in samples_of(server_metrics(None, [])).items()}

    assert names == {"simpleworkflow_build_info": 1, "simpleworkflow_database_up": 0}
