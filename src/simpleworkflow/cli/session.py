"""Which database a command talks to, opened, and said when it is the embedded one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from simpleworkflow.errors import InvalidDatabaseUrl
from simpleworkflow.logs import FORMATS

if TYPE_CHECKING:
    import psycopg

    from simpleworkflow.client import Client
    from simpleworkflow.resolve import Database
    from simpleworkflow.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class State:
    """What the options before and after the command's name say to all of them."""

    database_url: str | None = None
    debug: bool = False
    said_embedded: bool = False


def state() -> State:
    """Return the state of this call of the program."""
    return click.get_current_context().ensure_object(State)


def database_option(command: F) -> F:
    """Let a command take ``--database-url``, as the program itself does."""
    return click.option(
        "--database-url",
        metavar="URL",
        expose_value=False,
        callback=_remember_database_url,
        help="Use this database rather than DATABASE_URL or the embedded PostgreSQL.",
    )(command)


def log_format_option(command: F) -> F:
    """Let a command that runs for long take ``--log-format``."""
    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="Lines for people, or one JSON object a line.",
    )(command)


def _remember_database_url(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        from simpleworkflow import dburl

        try:
            dburl.parse(value)
        except InvalidDatabaseUrl as error:
            raise InvalidDatabaseUrl(f"--database-url: {error}") from None
        context.ensure_object(State).database_url = value


def read_settings() -> Settings:
    """Return what the environment says."""
    from simpleworkflow.settings import Settings

    return Settings.from_environment()


def open_database() -> Database:
    """Return the database to use; start the embedded server if it is that one, and say so."""
    from simpleworkflow.resolve import resolve_database

    settings = read_settings()
    if state().database_url is None and settings.database_url is None:
        say_embedded(settings)
    return resolve_database(state().database_url, settings=settings)


@contextmanager
def open_client() -> Iterator[Client]:
    """Open a client of the database to use; close it at the end."""
    from simpleworkflow.client import Client

    if state().database_url is None and (settings := read_settings()).database_url is None:
        say_embedded(settings)
    with Client(database_url=state().database_url) as client:
        yield client


@contextmanager
def open_connection() -> Iterator[tuple[psycopg.Connection[Any], Database]]:
    """Open one connection to the database to use, in autocommit mode."""
    from simpleworkflow.database import connect

    database = open_database()
    with connect(database.conninfo) as connection:
        yield connection, database


def say_embedded(settings: Settings) -> None:
    """Tell on stderr, once, that the embedded PostgreSQL is used and where its data is."""
    if not state().said_embedded:
        state().said_embedded = True
        folder = shown_path(embedded_folder(settings))
        click.echo(f"wf: using the embedded PostgreSQL in {folder}", err=True)


def embedded_folder(settings: Settings) -> Path:
    """Return where the embedded server keeps its data."""
    from simpleworkflow.embedded import default_folder

    return settings.home or default_folder(Path.cwd())


def shown_path(path: Path) -> str:
    """Return a path as people write it: relative to here or to their home where it is below."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if path.is_relative_to(base):
            return prefix + str(path.relative_to(base))
    return str(path)
