"""``wf server``: the REST API and the dashboard."""

from __future__ import annotations

import asyncio
import ipaddress
import logging

import click

from simpleworkflow.cli.key import read_keys
from simpleworkflow.cli.program import Lazy, LazyGroup
from simpleworkflow.cli.session import (
    database_option,
    log_format_option,
    read_settings,
    state,
)
from simpleworkflow.errors import InvalidInput
from simpleworkflow.logs import LogFormat, configure_logging

EPILOG = """\b
Examples:
  wf server
  wf server --port 9000
  wf server key add ci --role operator
  wf server --host 0.0.0.0
"""


@click.group(
    cls=LazyGroup,
    lazy={"key": Lazy("key", "key", "Make, list and revoke API keys.")},
    invoke_without_command=True,
    epilog=EPILOG,
)
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
@click.pass_context
def server(context: click.Context, *, host: str, port: int, pool_size: int, log_format: LogFormat) -> None:
    """Serve the REST API and the dashboard until SIGTERM or Ctrl-C.

    Without API keys only to this machine, and there to everybody.
    """
    if context.invoked_subcommand is None:
        _serve(host, port, pool_size, log_format)


def _serve(host: str, port: int, pool_size: int, log_format: LogFormat) -> None:
    from simpleworkflow.web import create_app
    from simpleworkflow.web.serving import listen, serve

    settings = read_settings()
    configure_logging(settings.log_level, log_format)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # we say ourselves where we serve
    # Also says which database it is, and what is wrong with it, before anybody asks.
    has_keys = any(key.revoked_at is None for key in read_keys())
    if not has_keys and not _is_loopback(host):
        raise InvalidInput(
            f"--host: beyond this machine the server needs API keys, got {host[:100]!a} and there is none; "
            "make one with `wf server key add NAME --role operator`"
        )
    app = create_app(state().database_url, pool_size=pool_size, is_open=not has_keys, hosts={host})
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
