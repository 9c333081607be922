"""``wf server``: the REST API and the dashboard."""

from __future__ import annotations

import asyncio
import ipaddress
import logging

import click

from simpleworkflow.cli.session import (
    database_option,
    log_format_option,
    open_database,
    read_settings,
    state,
)
from simpleworkflow.errors import InvalidInput
from simpleworkflow.logs import LogFormat, configure_logging

EPILOG = """\b
Examples:
  wf server
  wf server --port 9000
"""


@click.command(epilog=EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="The port; 0 for one that is free.",
)
@click.option(
    "--pool-size",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Connections to the database at most.",
)
@log_format_option
@database_option
def server(*, host: str, port: int, pool_size: int, log_format: LogFormat) -> None:
    """Serve the REST API and the dashboard until SIGTERM or Ctrl-C."""
    from simpleworkflow.web import create_app
    from simpleworkflow.web.serving import listen, serve

    settings = read_settings()
    configure_logging(settings.log_level, log_format)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # we say ourselves where we serve
    if not _is_loopback(host):
        raise InvalidInput(f"--host: expected a loopback address, got {host[:100]!a}")
    open_database()  # says which one it is, and what is wrong with it, before anybody asks
    app = create_app(state().database_url, pool_size=pool_size, is_open=True)
    with listen(host, port) as listening:
        name, number = listening.getsockname()[:2]
        where = f"[{name}]" if ":" in name else name
        asyncio.run(
            serve(
                app,
                listening,
                on_started=lambda: click.echo(f"wf: serving http://{where}:{number}/", err=True),
            )
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
