"""Where a client's database is, found when it is first needed."""

from __future__ import annotations

from dataclasses import replace

from simpleworkflow import dburl
from simpleworkflow.resolve import Database, resolve_database
from simpleworkflow.settings import Settings

__all__ = ["Place"]


class Place:
    """A database that was named, or that the environment names; ``schema`` is known before it is reached.

    Raises:
        InvalidDatabaseUrl: the URL, the schema or a variable of the environment cannot be used.
    """

    def __init__(self, database_url: str | None, schema: str | None) -> None:
        self._url = database_url
        settings = Settings.from_environment()
        self._settings = settings if schema is None else replace(settings, schema=schema)
        named = dburl.parse(database_url).schema if database_url else self._settings.schema
        self.schema = dburl.check_schema_name(schema or named)

    def find(self) -> Database:
        """Return the database, starting the embedded server if it is that one."""
        return replace(resolve_database(self._url, settings=self._settings), schema=self.schema)
