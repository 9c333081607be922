"""PostgreSQL URLs: one reading for the forms people use, and the two forms that tools take.

Nothing here connects.  No message ever repeats what may be a password: of a URL that cannot be read,
only the scheme is shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from simpleworkflow.errors import InvalidDatabaseUrl

__all__ = ["DEFAULT_SCHEMA", "SECRETS", "DatabaseUrl", "check_schema_name", "from_pg_environment", "parse"]

DEFAULT_SCHEMA = "workflow"

_EXPECTED = "expected a database URL such as postgresql://user:password@host:5432/name"
_SCHEME = re.compile(r"(?:postgres|postgresql)(?:\+[a-z0-9_]+)?://")
_OTHER_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30}://)", re.IGNORECASE)
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")

# What libpq knows is asked of libpq, so that its newer parameters are accepted too.
_OPTIONS = psycopg.pq.Conninfo.parse(b"")
_KEYWORDS = frozenset(option.keyword.decode() for option in _OPTIONS)
_VARIABLES = {option.envvar.decode(): option.keyword.decode() for option in _OPTIONS if option.envvar}
SECRETS = frozenset(option.keyword.decode() for option in _OPTIONS if option.dispchar == b"*") | {
    "password",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
}


@dataclass(frozen=True)
class DatabaseUrl:
    """Where the database is, and in which schema the tables live.

    ``conninfo`` is a URL that libpq and psycopg take; it never sets the search path, which transaction
    poolers refuse.  ``shown`` is the same with ``***`` for each secret, for messages and logs.
    ``portable`` is the form that psql, psycopg, asyncpg, pgx, lib/pq and SQLAlchemy all take; it does
    set the search path.  Neither ``str()`` nor ``repr()`` holds a secret.
    """

    conninfo: str = field(repr=False)
    schema: str
    shown: str
    portable: str = field(repr=False)

    def __str__(self) -> str:
        return self.shown

    def with_schema(self, schema: str) -> DatabaseUrl:
        """Return the same database with another schema.

        Raises:
            InvalidDatabaseUrl: ``schema`` is no plain identifier.
        """
        return _build(conninfo_to_dict(self.conninfo), check_schema_name(schema))


def check_schema_name(name: str) -> str:
    """Return ``name`` if it is a plain identifier: a-z, 0-9 and _, at most 63 characters.

    Raises:
        InvalidDatabaseUrl: it is not, or PostgreSQL reserves it (``pg_``).
    """
    if _SCHEMA_NAME.fullmatch(name) is None or name.startswith("pg_"):
        raise InvalidDatabaseUrl(
            f"expected a schema name of a-z, 0-9 and _ (at most 63), not pg_…, got {name[:70]!a}"
        )
    return name


def parse(url: str) -> DatabaseUrl:
    """Read a PostgreSQL URL, or a libpq string such as ``host=db dbname=app``.

    Takes ``postgres://`` and ``postgresql://``, also with a driver (``+asyncpg``); the schema from
    ``?search_path=``, ``?schema=`` or ``options=-csearch_path=…``, of several the first; several hosts;
    socket folders; IPv6.  Parts that are missing are libpq's to fill in.

    Raises:
        InvalidDatabaseUrl: it cannot be read; the message holds no part of it that may be a password.
    """
    url = url.strip()
    scheme = _SCHEME.match(url)
    if _UNUSABLE.search(url):
        raise InvalidDatabaseUrl(f"{_EXPECTED}, got one with control characters or broken Unicode")
    if scheme is not None:
        params = _url_params(url[scheme.end() :], scheme.group())
    elif "://" not in url and "=" in url:
        params = _string_params(url)
    else:
        other = _OTHER_SCHEME.match(url)
        got = f"{other.group(1)}…" if other else ("nothing" if not url else "no postgresql:// URL")
        raise InvalidDatabaseUrl(f"{_EXPECTED}, got {got}")
    schema = params.pop("search_path", None) or params.pop("schema", None)
    params.pop("schema", None)
    options, schema_in_options = _split_options(params.get("options", ""))
    if params.pop("options", None) and options:
        params["options"] = options
    return _build(params, check_schema_name(_first(schema or schema_in_options or DEFAULT_SCHEMA)))


def from_pg_environment(env: Mapping[str, str]) -> DatabaseUrl | None:
    """Return the database that libpq's ``PG*`` variables name, or None if they name none.

    They name one if ``PGHOST``, ``PGHOSTADDR``, ``PGSERVICE`` or ``PGDATABASE`` is set.  With ``PGSERVICE``
    the rest is left for libpq to read from the service file and the environment.

    Raises:
        InvalidDatabaseUrl: a variable cannot be used.
    """
    if not any(env.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")):
        return None
    options, schema = _split_options(env.get("PGOPTIONS", ""))
    if env.get("PGSERVICE"):
        params = {"service": env["PGSERVICE"]}
    else:
        params = {keyword: env[name] for name, keyword in _VARIABLES.items() if env.get(name)}
    if schema:
        params["options"] = options  # also when empty: it keeps libpq from reading PGOPTIONS itself
    for name, value in params.items():
        if _UNUSABLE.search(value):
            raise InvalidDatabaseUrl(f"expected PG* variables without control characters, got some in {name}")
    return _build(params, check_schema_name(_first(schema or DEFAULT_SCHEMA)))


# ── reading ────────────────────────────────────────────────────────────────────────────────────────


def _url_params(rest: str, scheme: str) -> dict[str, str]:
    """Return libpq's parameters from what follows ``scheme``, which alone may be shown in messages."""
    rest, _, query = rest.partition("?")
    authority, _, dbname = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    if "@" in login or "@" in dbname or (not at and _holds_a_host(query)):
        raise InvalidDatabaseUrl(
            f"{_EXPECTED}, got {scheme}… with an @, / or ? inside the user or password; "
            "write %40 for @, %2F for / and %3F for ?"
        )
    user, _, password = login.partition(":")
    params = _host_params(hosts, scheme) | {"user": user, "password": password, "dbname": dbname}
    # An unencoded ? in a password puts the rest of it into the query: if it may, name nothing from there.
    params |= _query_params(query, scheme, may_be_named=bool(at) or "@" not in query)
    if any(_BAD_PERCENT.search(value) for value in params.values()):
        raise InvalidDatabaseUrl(
            f"{_EXPECTED}, got {scheme}… with a % that begins no character; write %25 for %"
        )
    decoded = {keyword: _decoded(value, scheme) for keyword, value in params.items() if value}
    return _with_sslmode(decoded)


def _holds_a_host(query: str) -> bool:
    """Return whether an @ in the query may end a password with a ? in it, rather than be part of a name."""
    return any("@" in item and not item.startswith(("user=", "password=")) for item in query.split("&"))


def _decoded(value: str, scheme: str) -> str:
    try:
        text = unquote(value, errors="strict")
    except UnicodeDecodeError:
        text = "\x00"
    if _UNUSABLE.search(text):
        raise InvalidDatabaseUrl(f"{_EXPECTED}, got {scheme}… with percent signs that spell no text")
    return text


def _host_params(hosts: str, scheme: str) -> dict[str, str]:
    pairs = [_host_and_port(host, scheme) for host in hosts.split(",")]
    ports = ",".join(port for _, port in pairs)
    return {"host": ",".join(host for host, _ in pairs), "port": ports if ports.strip(",") else ""}


def _host_and_port(text: str, scheme: str) -> tuple[str, str]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^:\[\]]*))(?::([0-9]*))?", text)
    if found is None or int(found[3] or 5432) not in range(1, 65536):
        # What follows the colon may be the beginning of a password with a / in it: never show it.
        raise InvalidDatabaseUrl(
            f"{_EXPECTED}, got {scheme}… with a host or port that cannot be read; "
            "ports are 1 to 65535, IPv6 addresses stand in [ ], / in a password is %2F"
        )
    return (found[1] or found[2] or "", found[3] or "")


def _query_params(query: str, scheme: str, *, may_be_named: bool) -> dict[str, str]:
    params: dict[str, str] = {}
    for item in query.split("&") if query else []:
        keyword, equals, value = item.partition("=")
        if not equals or keyword not in _KEYWORDS | {"search_path", "schema", "ssl"}:
            named = f" {keyword[:40]!a}" if may_be_named and equals else ""
            raise InvalidDatabaseUrl(
                f"{_EXPECTED}, got {scheme}… with the unknown parameter{named} after the ?; remove it"
            )
        params[keyword] = value
    return params


def _with_sslmode(params: dict[str, str]) -> dict[str, str]:
    ssl = params.pop("ssl", None)  # asyncpg's and Java's word; true means what sslmode=require means
    if ssl is None or "sslmode" in params:
        return params
    return params | {"sslmode": {"true": "require", "false": "disable"}.get(ssl, ssl)}


def _string_params(text: str) -> dict[str, str]:
    try:
        return {keyword: str(value) for keyword, value in conninfo_to_dict(text).items()}
    except psycopg.Error:
        # libpq's own message repeats the word it stumbled over, which may be a password.
        raise InvalidDatabaseUrl(
            f"{_EXPECTED}, or words such as host=db dbname=app, got words that libpq cannot read"
        ) from None


def _split_options(options: str) -> tuple[str, str | None]:
    """Return command-line ``options`` without the search path, and the search path."""
    kept: list[str] = []
    schema = None
    words = re.findall(r"(?:\\.|[^\s\\])+", options)
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word += words.pop(0)
        found = re.fullmatch(r"(?:-c|--)search[_-]path=(.*)", word)
        if found:
            schema = found[1].replace("\\", "")
        else:
            kept.append(word)
    return " ".join(kept), schema


def _first(search_path: str) -> str:
    first = search_path.split(",", maxsplit=1)[0].strip()
    return first[1:-1] if len(first) > 2 and first[0] == first[-1] == '"' else first


# ── writing ────────────────────────────────────────────────────────────────────────────────────────


def _build(params: Mapping[str, object], schema: str) -> DatabaseUrl:
    texts = {keyword: str(value) for keyword, value in params.items()}
    shown = {keyword: "***" if keyword in SECRETS else value for keyword, value in texts.items() if value}
    options = f"-csearch_path={schema} {texts.get('options', '')}".rstrip()
    return DatabaseUrl(
        conninfo=_render(texts),
        schema=schema,
        shown=_render(shown),
        portable=_render(texts | {"options": options}),
    )


def _render(params: Mapping[str, str]) -> str:
    """Return the parameters as a URL; several hosts and socket folders in the query, which all tools read."""
    left = dict(params)
    login = hosts = ""
    if left.get("user"):
        login = _quoted(left.pop("user"))
        login += f":{_quoted(left.pop('password'))}" if left.get("password") else ""
        login += "@"
    if left.get("host") and not re.search("[/,@%]", left["host"]) and left.get("port", "0").isdecimal():
        host = left.pop("host")
        hosts = f"[{host}]" if ":" in host else _quoted(host)
        hosts += f":{left.pop('port')}" if "port" in left else ""
    dbname = _quoted(left.pop("dbname", ""))
    query = "&".join(f"{keyword}={_quoted(value, safe=',')}" for keyword, value in left.items())
    return f"postgresql://{login}{hosts}/{dbname}" + (f"?{query}" if query else "")


def _quoted(value: str, *, safe: str = "") -> str:
    # The asterisks of a hidden password stay readable; they are as safe in a URL as letters.
    return quote(value, safe=safe + "*")
