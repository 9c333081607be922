"""``wf config``: the settings, and the database they come to."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from simpleworkflow.cli.output import json_option, plain_table, print_json, print_table
from simpleworkflow.cli.session import database_option, embedded_folder, read_settings, shown_path, state
from simpleworkflow.cli.text import safe


@click.command(epilog="Example: DATABASE_URL=postgresql://db/app wf config")
@json_option
@database_option
def config(*, as_json: bool) -> None:
    """Show each setting, its value without secrets, and where it comes from; connect to nothing."""
    rows = _rows()
    if as_json:
        settings = [{"name": name, "value": value, "source": source} for name, value, source in rows]
        print_json({"settings": settings, "database": _database(), "version": version("simpleworkflow")})
        return
    table = plain_table("setting", "value", "from")
    for row in rows:
        table.add_row(*(safe(cell) for cell in row))
    print_table(table)
    click.echo()
    click.echo(f"database: {safe(_database())}")
    click.echo(f"simpleworkflow {version('simpleworkflow')}, Python {platform.python_version()}")


def _rows() -> list[tuple[str, str, str]]:
    from simpleworkflow import dburl

    rows = [(one.name, one.value, one.source) for one in read_settings().rows()]
    if state().database_url is not None:
        url = dburl.parse(state().database_url or "")
        ours = {
            "database_url": ("database_url", url.shown, "--database-url"),
            "schema": ("schema", url.schema, "--database-url"),
        }
        rows = [ours.get(row[0], row) for row in rows]
    return rows


def _database() -> str:
    from simpleworkflow import dburl

    settings = read_settings()
    url = dburl.parse(state().database_url or "") if state().database_url else settings.database_url
    if url is not None:
        return f"{url.shown}, schema {url.schema}"
    return f"the embedded PostgreSQL in {shown_path(embedded_folder(settings))}, schema {settings.schema}"
