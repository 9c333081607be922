"""A PostgreSQL of its own, which may be stopped, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import psycopg

from simpleworkflow import embedded
from simpleworkflow.dburl import DEFAULT_SCHEMA, parse
from simpleworkflow.migrate import migrate
from worker.stage import is_running

STOP_SECONDS = 20


class OwnServer:
    """An embedded server in a temporary folder; ``busy`` is held by the fault that stops it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wf-chaos-"))
        self._folder.chmod(0o755)
        self._server = embedded.start(self._folder / "postgres")
        self.busy = threading.Lock()
        self.port = self._server.port
        with psycopg.connect(self._server.superuser_url, autocommit=True) as conn:
            conn.execute("alter system set fsync = off")  # processes are killed here, never the machine
            conn.execute("select pg_reload_conf()")
        with psycopg.connect(self._server.url, autocommit=True) as conn:
            migrate(conn, DEFAULT_SCHEMA)
        self.url = parse(self._server.url).conninfo

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self._server.folder / "postgres.log").read_text(errors="replace")

    @property
    def secrets(self) -> list[str]:
        """What may stand in no log."""
        urls = (self._server.url, self._server.superuser_url)
        return [str(psycopg.conninfo.conninfo_to_dict(url)["password"]) for url in urls]

    def connect(self, *, seconds: float = 10, is_superuser: bool = False) -> psycopg.Connection:
        """Return an autocommit connection, not through any proxy; tried again while the server starts."""
        url = self._superuser_url() if is_superuser else self.url
        until = monotonic() + seconds
        while True:
            try:
                return psycopg.connect(parse(url).portable, autocommit=True, connect_timeout=5)
            except psycopg.OperationalError:
                if monotonic() > until:
                    raise
                sleep(0.1)

    def stop_and_start(self, number: int, *, pause_seconds: float = 0) -> None:
        """Send the postmaster a signal, wait until it is gone, and start another on the same port."""
        self._stop(number)
        sleep(pause_seconds)
        former, self._server = self._server, embedded.start(self._server.folder)
        former.close()
        assert self._server.port == self.port, "the server came back on another port"

    def close(self) -> None:
        """Stop it and remove its folder."""
        with suppress(ProcessLookupError, FileNotFoundError):
            self._stop(signal.SIGQUIT)
        self._server.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _stop(self, number: int) -> None:
        pid = self._postmaster()
        os.kill(pid, number)
        until = monotonic() + STOP_SECONDS
        while is_running(pid) and monotonic() < until:
            sleep(0.01)

    def _postmaster(self) -> int:
        return int((self._server.data / "postmaster.pid").read_text().splitlines()[0])

    def _superuser_url(self) -> str:
        dbname = psycopg.conninfo.conninfo_to_dict(self._server.url)["dbname"]
        conninfo = psycopg.conninfo.make_conninfo(self._server.superuser_url, dbname=dbname)
        return parse(conninfo).conninfo
