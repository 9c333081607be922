"""The passwords and the port of a server, kept for their owner alone."""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from simpleworkflow.embedded.home import Home
from simpleworkflow.embedded.locks import give_to_owner_of_folder
from simpleworkflow.errors import EmbeddedPostgresError

# Below the range from which systems take the ports of outgoing connections, so that it stays ours.
PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Credentials:
    """What it takes to reach the server; kept in ``server.json``, which only its owner can read."""

    port: int
    workflow_password: str = field(repr=False)
    superuser_password: str = field(repr=False)

    def url(self, *, superuser: bool = False) -> str:
        """Return the URL in the form that every client takes."""
        user, database = ("postgres", "postgres") if superuser else ("workflow", "workflow")
        password = self.superuser_password if superuser else self.workflow_password
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}?sslmode=disable"


def load_credentials(home: Home) -> Credentials | None:
    """Return the credentials of this home, or None when there are none that can be read."""
    try:
        kept = json.loads(_credentials_path(home).read_text(encoding="utf-8"))
        return Credentials(
            port=int(kept["port"]),
            workflow_password=str(kept["workflow_password"]),
            superuser_password=str(kept["superuser_password"]),
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def save_credentials(home: Home, credentials: Credentials) -> None:
    """Write the credentials for their owner alone; a crash leaves the old ones or the new ones."""
    fd, name = tempfile.mkstemp(dir=home.folder, prefix="server.json.")  # mode 0600
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        give_to_owner_of_folder(fd, home.folder)
        json.dump(asdict(credentials), file)
        file.flush()
        os.fsync(fd)
    Path(name).replace(_credentials_path(home))
    sync_folder(home.folder)


def with_free_port(home: Home, credentials: Credentials, *, avoid: set[int]) -> Credentials:
    """Return credentials with a port that is free now: the remembered one if possible, and saved."""
    if credentials.port not in avoid and _is_free(credentials.port):
        return credentials
    for _ in range(200):
        port = secrets.choice(PORTS)
        if port not in avoid and _is_free(port):
            credentials = replace(credentials, port=port)
            save_credentials(home, credentials)
            return credentials
    raise EmbeddedPostgresError("127.0.0.1 has no free port from 20000 to 31999; set DATABASE_URL")


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder survive a loss of power."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _credentials_path(home: Home) -> Path:
    return home.folder / "server.json"


def _is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
