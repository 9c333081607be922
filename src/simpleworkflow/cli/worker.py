"""``wf worker``: run a worker in several processes."""

from __future__ import annotations

import asyncio
import re

import click

from simpleworkflow.cli.session import database_option, log_format_option, open_database, read_settings
from simpleworkflow.logs import LogFormat, configure_logging

EPILOG = """\b
Example, with `worker = Worker()` in app/workers.py:
  wf worker app.workers:worker --processes 4 --concurrency 100
"""
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@click.command(epilog=EPILOG)
@click.argument("target", metavar="MODULE:WORKER")
@click.option(
    "--processes", type=click.IntRange(1, 1000), default=1, show_default=True, help="Worker processes."
)
@click.option("--concurrency", type=click.IntRange(1, 100_000), help="Runs at a time in each process.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve /metrics for Prometheus there (extra metrics).",
)
@log_format_option
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="The address to serve it on.")
@database_option
def worker(
    *,
    target: str,
    processes: int,
    concurrency: int | None,
    metrics_port: int | None,
    metrics_host: str,
    log_format: LogFormat,
) -> None:
    """Run the Worker named WORKER in MODULE until SIGTERM or Ctrl-C; a process that dies is replaced.

    MODULE is looked for in the current folder first.
    """
    if _TARGET.fullmatch(target) is None:
        raise click.UsageError(
            f"expected MODULE:WORKER such as app.workers:worker, got {target[:80]!a}",
            click.get_current_context(),
        )
    from simpleworkflow.metrics.serving import listen
    from simpleworkflow.worker.supervisor import supervise

    settings = read_settings()
    configure_logging(settings.log_level, log_format)
    listening = None if metrics_port is None else listen(metrics_host, metrics_port)
    work = supervise(
        target,
        open_database(),
        processes=processes,
        concurrency=concurrency,
        log_level=settings.log_level,
        log_format=log_format,
        metrics=listening,
    )
    raise click.exceptions.Exit(asyncio.run(work))
