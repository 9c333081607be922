"""Write ``src/simpleworkflow/sql/schema.sql``: what pg_dump says of a schema that was migrated, to read and compare."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from simpleworkflow import embedded, sql
from simpleworkflow.dburl import parse
from simpleworkflow.migrate import migrate

FILE = Path(sql.__file__).parent / "schema.sql"
HEAD = "-- What the migrations, which are the truth, make: a dump by PostgreSQL 18, written by `make schema`.\n\n"


def dump(url: str, schema: str) -> str:
    """Return the dump of ``schema``, named ``workflow`` in it, without what differs from one dump to the next."""
    program = shutil.which("pg_dump", path=str(embedded.find_binaries()))
    assert program is not None, "pg_dump is missing beside the server's programs"
    said = subprocess.run(
        [
            program,
            "--schema-only",
            "--no-owner",
            f"--schema={schema}",
            parse(url).conninfo,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return HEAD + normalised(said.stdout, schema)


def normalised(text: str, schema: str) -> str:
    """Return a dump without comments, settings and tokens, in one spacing, for the schema ``workflow``."""
    text = re.sub(
        r"^(--.*|SET .*;|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)$", "", text, flags=re.MULTILINE
    )
    text = re.sub(r"CURRENT_USER <> '[^']+'::name", "CURRENT_USER <> 'owner'::name", text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return re.sub(rf"\b{schema}\b", "workflow", text)


def main() -> None:
    """Migrate a schema in a server made for it, and dump that."""
    folder = Path(tempfile.mkdtemp(prefix="wf-dump-"))
    folder.chmod(0o755)
    with embedded.start(folder / "postgres") as postgres:
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            migrate(conn, "dumped_workflow")
        FILE.write_text(dump(postgres.url, "dumped_workflow"), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
