"""A span for each run, linked to the producer's; with OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from builders import Database, column_of, submit, submit_many
from simpleworkflow import AsyncClient, Client, NewRun, Worker, telemetry
from worker.stage import WorkerThread, ended, eventually

Start = Callable[[Worker], WorkerThread]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
def worker(database_url: str, provider: TracerProvider) -> Worker:
    worker = Worker(database_url=database_url, poll_seconds=0.3)
    telemetry.trace_runs(worker, tracer_provider=provider)
    return worker


@pytest.fixture
def start(database_url: str) -> Any:
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda worker: stack.enter_context(WorkerThread(worker))


def spans(exporter: InMemorySpanExporter, count: int = 1) -> list[ReadableSpan]:
    """Wait until so many of a worker have ended."""

    def found() -> list[ReadableSpan]:
        return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.CONSUMER]

    eventually(lambda: len(found()) >= count, what=f"{count} spans")
    return found()


def test_a_runs_span_is_linked_to_the_one_that_it_was_submitted_in(
    worker: Worker, start: Start, provider: TracerProvider, exporter: InMemorySpanExporter, database_url: str
) -> None:
    worker.register("shop.a.v1", _succeed)
    start(worker)

    with (
        provider.get_tracer("producer").start_as_current_span("checkout") as producer,
        Client(database_url) as client,
    ):
        run = client.submit("shop.a.v1", {"card": "secret-payload"})

    (span,) = spans(exporter)
    assert [link.context.span_id for link in span.links] == [producer.get_span_context().span_id]
    assert [link.context.trace_id for link in span.links] == [producer.get_span_context().trace_id]
    assert span.parent is None
    assert span.name == "process shop.a.v1"
    assert dict(span.attributes or {}) == {
        "messaging.system": "simpleworkflow",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "shop.a.v1",
        "messaging.message.id": str(run.id),
        "simpleworkflow.attempt": 1,
        "simpleworkflow.max_attempts": 3,
        "simpleworkflow.outcome": "succeeded",
    }
    assert span.status.status_code is StatusCode.UNSET


async def _succeed(run: Any) -> None:
    pass


def test_the_span_is_the_current_one_in_the_handler_on_the_loop_and_in_a_thread(
    worker: Worker, start: Start, exporter: InMemorySpanExporter, db: Database
) -> None:
    seen: list[int] = []

    async def on_the_loop(run: Any) -> None:
        await asyncio.sleep(0)
        seen.append(trace.get_current_span().get_span_context().span_id)

    def in_a_thread(run: Any) -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)

    worker.register("shop.loop.v1", on_the_loop)
    worker.register("shop.thread.v1", in_a_thread)
    start(worker)
    for type_ in ("shop.loop.v1", "shop.thread.v1"):
        submit(db, type_)

    assert {span.context.span_id for span in spans(exporter, 2)} == set(seen)


def test_a_failed_attempt_tells_its_class_and_not_its_message(
    worker: Worker, start: Start, exporter: InMemorySpanExporter, db: Database
) -> None:
    async def fail(run: Any) -> None:
        raise ValueError("secret-message")

    worker.register("shop.fails.v1", fail)
    start(worker)
    submit(db, "shop.fails.v1")

    (span,) = spans(exporter)
    assert span.attributes is not None
    assert span.attributes["simpleworkflow.outcome"] == "retried"
    assert span.attributes["error.type"] == "ValueError"
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


def test_a_batch_has_one_span_with_a_link_to_each_producer(
    worker: Worker, start: Start, provider: TracerProvider, exporter: InMemorySpanExporter, database_url: str
) -> None:
    async def handle(runs: list[Any]) -> None:
        pass

    worker.register("shop.batch.v1", handle, batch_max=10)
    with provider.get_tracer("producer").start_as_current_span("import"), Client(database_url) as client:
        client.submit_many([("shop.batch.v1", {}) for _ in range(3)])
    start(worker)

    (span,) = spans(exporter)
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 3
    assert len(span.links) == 3


def test_nothing_of_a_span_reaches_the_next_run(
    worker: Worker, start: Start, exporter: InMemorySpanExporter, db: Database
) -> None:
    worker.register("shop.a.v1", _succeed)
    start(worker)
    submit_many(db, [NewRun(type="shop.a.v1") for _ in range(20)])

    found = spans(exporter, 20)
    assert {span.parent for span in found} == {None}
    assert len({span.context.trace_id for span in found}) == 20


# ── producers ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_submitted_outside_of_any_span_has_none(db: Database, database_url: str) -> None:
    with Client(database_url) as client:
        run = client.submit("shop.a.v1")

    assert column_of(db, str(run.id), "traceparent") is None


def test_an_async_client_leaves_its_span_too(
    db: Database, database_url: str, provider: TracerProvider
) -> None:
    async def produce() -> str:
        async with AsyncClient(database_url) as client:
            with provider.get_tracer("producer").start_as_current_span("checkout"):
                return str((await client.submit("shop.a.v1", idempotency_key="one")).id)

    run_id = asyncio.run(produce())

    version, trace_id, span_id, flags = str(column_of(db, run_id, "traceparent")).split("-")
    assert (version, len(trace_id), len(span_id), int(flags, 16) & 1) == ("00", 32, 16, 1)


def test_a_producer_in_sql_may_write_it_and_only_in_the_form_of_trace_context(db: Database) -> None:
    insert = "insert into workflow_run (type, traceparent) values ('shop.a.v1', %s)"
    db.execute(insert, [f"00-{'a' * 32}-{'b' * 16}-01"])

    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(insert, ["made up"])
    with pytest.raises(psycopg.Error):
        db.execute("update workflow_run set traceparent = null")


def test_a_program_without_opentelemetry_does_not_import_it(database_url: str) -> None:
    program = (
        "import sys; from simpleworkflow import Client\n"
        f"with Client({database_url!r}) as client: client.submit('shop.a.v1')\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )

    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_a_handler_ends_though_the_spans_cannot_be_read(
    worker: Worker, start: Start, db: Database, exporter: InMemorySpanExporter
) -> None:
    worker.register("shop.a.v1", _succeed)
    db.execute("alter function traceparents rename to gone")
    start(worker)

    assert ended(db, submit(db, "shop.a.v1")) == "succeeded"
    assert len(spans(exporter)) == 1
