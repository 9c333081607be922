"""The folder of an embedded server: where it is, whose it is, and the account that can live in it."""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from simpleworkflow.errors import EmbeddedPostgresError

NAME = ".simpleworkflow"
MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "manage.py", ".git")
# For root alone, whose own folders the server's account cannot enter.
SYSTEM_DATA = Path("/var/lib/simpleworkflow")
# Accounts that systems come with; PostgreSQL refuses to run as root.
ACCOUNTS = ("postgres", "_postgres", "nobody")
POINTER = "moved-to"


class ProcessOptions(TypedDict, total=False):
    """What ``subprocess`` needs to start a program as the server's account."""

    user: int
    group: int
    extra_groups: list[int]
    cwd: str
    env: dict[str, str]
    umask: int
    start_new_session: bool


@dataclass(frozen=True)
class Home:
    """The folder with the locks, the passwords, the log and the data; and whose account the server has."""

    folder: Path
    uid: int
    gid: int

    @property
    def data(self) -> Path:
        """PostgreSQL's own folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "postgres.log"

    def lock(self, name: str) -> Path:
        """The lock file of this name: start, users, server or keeper."""
        return self.folder / f"{name}.lock"

    def process_options(self) -> ProcessOptions:
        """Start a program as the server's account."""
        options = self.own_process_options()
        if os.geteuid() == 0:
            options |= ProcessOptions(user=self.uid, group=self.gid, extra_groups=[])
        return options

    def own_process_options(self) -> ProcessOptions:
        """Start a program as ourselves, out of reach of a terminal's Ctrl-C."""
        # A plain environment: PGOPTIONS and its kind must not reach a server or initdb, and the
        # messages that we read have to be English.
        return ProcessOptions(
            cwd="/", env={"PATH": os.defpath, "LC_ALL": "C"}, umask=0o077, start_new_session=True
        )


def default_folder(cwd: Path) -> Path:
    """Return the folder of the embedded server for somebody who works in ``cwd``.

    ``.simpleworkflow/postgres`` in the nearest folder, from ``cwd`` upwards, that has a
    ``.simpleworkflow`` or is a project (``pyproject.toml``, ``.git`` and their kind) and can be
    written; outside a project the user's own ``~/.local/share/simpleworkflow/postgres``.  Nothing is
    created.
    """
    cwd = cwd.absolute()
    user_home = Path.home()
    for folder in (cwd, *cwd.parents):
        if folder == user_home:
            break
        if _is_project(folder, cwd) and os.access(folder, os.W_OK):
            return folder / NAME / "postgres"
    return user_home / ".local" / "share" / "simpleworkflow" / "postgres"


def _is_project(folder: Path, cwd: Path) -> bool:
    """Markers above ``cwd`` count only if its owner, and nobody else, can have put them there."""
    if folder != cwd:
        status = folder.stat()
        if status.st_uid != cwd.stat().st_uid or status.st_mode & stat.S_IWOTH:
            return False
    return any((folder / marker).exists() for marker in (NAME, *MARKERS))


def settle(folder: Path) -> Home:
    """Create the folder if needed and return the home of its server.

    As root, a server that cannot reach the folder gets one below ``/var/lib/simpleworkflow``; a file
    ``moved-to`` in the folder says where.  It is followed also when the project is moved or copied:
    copies then share one server, safely, by its locks.

    Raises:
        EmbeddedPostgresError: the folder belongs to somebody else, or there is no account for the server.
    """
    make_folders(folder)
    _refuse_strangers(folder)
    _write_new(folder / ".gitignore", "*\n")
    pointer = folder / POINTER
    if pointer.exists():
        return _moved_home(pointer)
    home = _home(folder)
    if os.geteuid() != 0 or home.data.exists() or can_enter(home, folder):
        return home
    moved = SYSTEM_DATA / _name_below_system(folder)
    make_folders(moved)
    _write_new(moved / "project", f"{folder}\n")
    _write_new(pointer, f"{moved}\n")
    return _moved_home(pointer)


def _moved_home(pointer: Path) -> Home:
    moved = Path(pointer.read_text(encoding="utf-8").strip())
    # Root reads this in folders of others: it may name a folder of ours and nothing else.
    if moved.parent != SYSTEM_DATA or not moved.is_dir():
        raise EmbeddedPostgresError(f"{str(pointer)!r} names no folder in {str(SYSTEM_DATA)!r}; remove it")
    _refuse_strangers(moved)
    return _home(moved)


def _write_new(path: Path, text: str) -> None:
    """Write a file unless it exists; never through a link, for root may be in somebody else's folder."""
    with suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(text)


def make_folders(path: Path) -> None:
    """Create a folder and its parents: ours alone, but root's can be crossed by the server's account."""
    mode = 0o711 if os.geteuid() == 0 else 0o700
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)  # against the umask


def can_enter(home: Home, folder: Path) -> bool:
    """Return whether the server's account can really enter, access lists and mounts included."""
    answer = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", folder],
        **home.process_options(),
        capture_output=True,
        timeout=10,
        check=False,
    )
    return answer.returncode == 0


def _refuse_strangers(folder: Path) -> None:
    if not folder.is_dir():
        raise EmbeddedPostgresError(f"the path {str(folder)!r} is not a folder; move the file away")
    owner = folder.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise EmbeddedPostgresError(
            f"the folder {str(folder)!r} belongs to {_account_name(owner)};"
            " work as that user, or set DATABASE_URL"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise EmbeddedPostgresError(f"the folder {str(folder)!r} cannot be written; mend its permissions")


def _home(folder: Path) -> Home:
    if os.geteuid() != 0:
        return Home(folder, os.geteuid(), os.getegid())
    data = folder / "data"
    if data.exists():
        return Home(folder, data.stat().st_uid, data.stat().st_gid)
    account = _account_for_new_data(folder)
    return Home(folder, account.pw_uid, account.pw_gid)


def _account_for_new_data(folder: Path) -> pwd.struct_passwd:
    owner = folder.stat().st_uid
    if owner != 0:
        # In a user's folder (sudo, a container's mount) the server is the user's, as is the data.
        with suppress(KeyError):
            return pwd.getpwuid(owner)
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and there is no account 'postgres' or 'nobody' to run it as;"
        " work as a normal user, or set DATABASE_URL"
    )


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _name_below_system(folder: Path) -> str:
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    # .../shop/.simpleworkflow/postgres: the project's name is what a human looks for.
    project = folder.parent.parent.name if folder.parent.name == NAME else folder.name
    return f"{project or 'project'}-{digest}"
