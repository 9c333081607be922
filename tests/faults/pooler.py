"""A real PgBouncer in transaction mode, configured as docs/operating/deploying.md says."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from faults.servers import free_port
from simpleworkflow.dburl import parse
from simpleworkflow.embedded.home import settle
from waits import until

# Nothing but what transaction mode needs: no ignore_startup_parameters, no server_reset_query.
CONFIGURATION = """
[databases]
{dbname} = host={host} port={port} dbname={dbname} user={user} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
unix_socket_dir =
logfile = {folder}/pgbouncer.log
server_login_retry = 1
"""


class PgBouncer:
    """A PgBouncer on 127.0.0.1 in front of the server of ``url``."""

    def __init__(self, url: str, folder: Path, *, pool_size: int = 20) -> None:
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
        self.port = free_port()
        self._place = parse(url)
        self._home = settle(folder)
        words = {"port": "5432", "user": "workflow"} | conninfo_to_dict(self._place.conninfo)
        words["password"] = f"password={words['password']}" if words.get("password") else ""
        written = CONFIGURATION.format(**words, folder=folder, listen_port=self.port, pool_size=pool_size)
        self._configuration = folder / "pgbouncer.ini"
        self._configuration.write_text(written)
        if os.geteuid() == 0:
            for path in (folder, self._configuration):
                os.chown(path, self._home.uid, self._home.gid)
        self._command = [program, str(self._configuration)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL that leads through it, with the schema of the one it was made for."""
        words = conninfo_to_dict(self._place.conninfo)
        login = f"{words['user']}:{words.get('password') or 'none'}"
        place = f"postgresql://{login}@127.0.0.1:{self.port}/{words['dbname']}?sslmode=disable"
        return f"{place}&schema={self._place.schema}"

    def start(self) -> None:
        """Start it; return once it lets somebody through."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._home.process_options(),
        )
        until(self.answers, "a PgBouncer that lets somebody through")

    def answers(self) -> bool:
        """Return whether a statement gets through."""
        try:
            with psycopg.connect(parse(self.url).conninfo, connect_timeout=5, autocommit=True) as conn:
                conn.execute("select 1", prepare=False)
                return True
        except psycopg.OperationalError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it at once: all its connections are cut."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None


@contextmanager
def pgbouncer(url: str, *, pool_size: int = 20) -> Iterator[PgBouncer]:
    """Run a PgBouncer in front of the server of ``url``; nothing of it is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="wf-pooler-"))
    folder.chmod(0o755)
    bouncer = None
    try:
        bouncer = PgBouncer(url, folder, pool_size=pool_size)
        bouncer.start()
        yield bouncer
    finally:
        if bouncer is not None:
            bouncer.stop()
        shutil.rmtree(folder, ignore_errors=True)
