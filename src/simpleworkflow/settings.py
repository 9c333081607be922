"""The settings: the only place that reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from simpleworkflow.dburl import DEFAULT_SCHEMA, DatabaseUrl, check_schema_name, from_pg_environment, parse
from simpleworkflow.errors import InvalidDatabaseUrl, InvalidInput

__all__ = ["Setting", "Settings", "failpoints_text"]

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_POOLERS = {"transaction": True, "session": False, "none": False}


class Setting(NamedTuple):
    """One line of ``wf config``: a setting, its value without secrets, and where it came from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the environment says, checked once.

    ``database_url`` is None for the embedded server.  ``schema`` is the tables' schema; left empty it is
    the one of the URL, and the URL always names the same one.  ``home`` is the embedded server's folder,
    None for its default.  ``pooler`` says that a transaction pooler is in between: no prepared
    statements, no LISTEN.

    Raises:
        InvalidInput: a value cannot be used.
        InvalidDatabaseUrl: the schema cannot be used.
    """

    database_url: DatabaseUrl | None = None
    schema: str = ""
    home: Path | None = None
    pooler: bool = False
    log_level: str = "INFO"
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        in_url = self.database_url.schema if self.database_url else DEFAULT_SCHEMA
        schema = check_schema_name(self.schema or in_url)
        object.__setattr__(self, "schema", schema)
        if self.database_url and schema != in_url:
            object.__setattr__(self, "database_url", self.database_url.with_schema(schema))
        if self.log_level not in _LOG_LEVELS:
            raise InvalidInput(
                f"expected a log level of {', '.join(_LOG_LEVELS)}, got {self.log_level[:40]!a}"
            )

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings that ``env`` holds; an empty variable counts as none.

        Reads ``DATABASE_URL``, else libpq's ``PG*``; ``SIMPLEWORKFLOW_SCHEMA``, ``SIMPLEWORKFLOW_HOME``,
        ``SIMPLEWORKFLOW_POOLER`` (transaction, session or none) and ``SIMPLEWORKFLOW_LOG_LEVEL``.

        Raises:
            InvalidInput: a variable cannot be used; the message names it.
            InvalidDatabaseUrl: the URL or the schema cannot be used; the message names the variable.
        """
        url, url_source = _database_url(env)
        schema, schema_source = _schema(env, url, url_source)
        home = env.get("SIMPLEWORKFLOW_HOME", "")
        return cls(
            database_url=url,
            schema=schema,
            home=Path(home).expanduser() if home else None,
            pooler=_pooler(env.get("SIMPLEWORKFLOW_POOLER", "")),
            log_level=_log_level(env.get("SIMPLEWORKFLOW_LOG_LEVEL", "")),
            sources={
                "database_url": url_source,
                "schema": schema_source,
                "home": _source(env, "SIMPLEWORKFLOW_HOME"),
                "pooler": _source(env, "SIMPLEWORKFLOW_POOLER"),
                "log_level": _source(env, "SIMPLEWORKFLOW_LOG_LEVEL"),
            },
        )

    def rows(self) -> list[Setting]:
        """Return the settings for people, without secrets, each with where its value came from."""
        values = {
            "database_url": str(self.database_url) if self.database_url else "embedded PostgreSQL",
            "schema": self.schema,
            "home": str(self.home) if self.home else "chosen by the embedded server",
            "pooler": "transaction" if self.pooler else "none",
            "log_level": self.log_level,
        }
        return [Setting(name, value, self.sources.get(name, "program")) for name, value in values.items()]


def failpoints_text(env: Mapping[str, str] = os.environ) -> str:
    """Return what ``SIMPLEWORKFLOW_FAILPOINTS`` says: for the tests of the worker alone, and no setting."""
    return env.get("SIMPLEWORKFLOW_FAILPOINTS", "")


def _source(env: Mapping[str, str], name: str) -> str:
    return name if env.get(name) else "default"


def _database_url(env: Mapping[str, str]) -> tuple[DatabaseUrl | None, str]:
    written = env.get("DATABASE_URL", "").strip()
    if written:
        try:
            return parse(written), "DATABASE_URL"
        except InvalidDatabaseUrl as error:
            raise InvalidDatabaseUrl(f"DATABASE_URL: {error}") from None
    url = from_pg_environment(env)
    return (url, "PG* variables") if url else (None, "default")


def _schema(env: Mapping[str, str], url: DatabaseUrl | None, url_source: str) -> tuple[str, str]:
    written = env.get("SIMPLEWORKFLOW_SCHEMA", "").strip()
    if not written:
        in_url = url is not None and url.schema != DEFAULT_SCHEMA
        return "", url_source if in_url else "default"
    try:
        return check_schema_name(written), "SIMPLEWORKFLOW_SCHEMA"
    except InvalidDatabaseUrl as error:
        raise InvalidDatabaseUrl(f"SIMPLEWORKFLOW_SCHEMA: {error}") from None


def _pooler(written: str) -> bool:
    word = written.strip().lower() or "none"
    if word not in _POOLERS:
        raise InvalidInput(
            f"SIMPLEWORKFLOW_POOLER: expected transaction, session or none, got {written[:40]!a}"
        )
    return _POOLERS[word]


def _log_level(written: str) -> str:
    level = written.strip().upper() or "INFO"
    if level not in _LOG_LEVELS:
        raise InvalidInput(
            f"SIMPLEWORKFLOW_LOG_LEVEL: expected one of {', '.join(_LOG_LEVELS)}, got {written[:40]!a}"
        )
    return level
