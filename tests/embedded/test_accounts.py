"""PostgreSQL refuses to run as root: which account it gets, and what happens where that cannot go."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

import simpleworkflow
from embedded.processes import Program, eventually, kill_all, programs_of
from simpleworkflow.embedded import binaries, find_binaries, home, readable, start
from simpleworkflow.errors import EmbeddedPostgresError

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can be in two accounts; all other tests are the normal user's case"
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def owner_of(path: Path) -> str:
    return pwd.getpwuid(path.stat().st_uid).pw_name


@pytest.fixture
def as_nobody() -> dict[str, object]:
    """Options that make a Program nobody's: an interpreter that this account may run, and the package."""
    sources = {Path(module.__file__).parents[1] for module in (simpleworkflow, psycopg)}
    options = {
        "user": "nobody",
        "group": pwd.getpwnam("nobody").pw_gid,
        "extra_groups": [],
        "cwd": "/",
        "env": {"PYTHONPATH": os.pathsep.join(map(str, sources)), "PATH": os.environ["PATH"]},
    }
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", "import simpleworkflow.embedded"], **options, check=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return {**options, "python": python}
    pytest.skip("no interpreter with this package that the account 'nobody' may run")


def test_a_normal_user_runs_the_server_as_himself(new_folder, as_nobody):
    os.chown(new_folder.parents[1], as_nobody["group"], as_nobody["group"])
    shutil.chown(new_folder.parents[1], "nobody")

    user = Program(new_folder, **as_nobody)
    psycopg.connect(user.url).close()
    owners = {owner_of(path) for path in new_folder.iterdir()}
    mode = mode_of(new_folder)
    user.end()

    assert owners == {"nobody"}
    assert mode == 0o700
    assert eventually(lambda: not programs_of(new_folder, "server"))


def test_root_in_a_users_folder_leaves_everything_the_users(new_folder, as_nobody):
    shutil.chown(new_folder.parents[1], "nobody")
    new_folder.mkdir(parents=True)
    shutil.chown(new_folder.parent, "nobody")
    shutil.chown(new_folder, "nobody")

    with start(new_folder) as server:
        owners = {
            owner_of(path) for path in (server.data, new_folder / "users.lock", new_folder / "server.json")
        }
        joined = Program(new_folder, **as_nobody)
        url = joined.url
        joined.end()

    assert owners == {"nobody"}
    assert url == server.url


def test_a_normal_user_is_refused_in_the_folder_of_root(folder, as_nobody):
    refused = Program(folder, **as_nobody)

    message = str(refused.answer["error"])
    refused.end()

    assert "belongs to root" in message


def test_a_normal_user_is_refused_where_he_cannot_write(new_folder, as_nobody):
    refused = Program(new_folder, **as_nobody)

    message = str(refused.answer["error"])
    refused.end()

    assert "Permission denied" in message


def test_roots_server_has_an_unprivileged_account_and_the_data_is_its_own(folder):
    with start(folder) as server:
        (postmaster,) = programs_of(folder, "postmaster")
        account = subprocess.run(
            ["ps", "-o", "user=", "-p", str(postmaster)], capture_output=True, text=True, check=True
        ).stdout.strip()

        assert account == owner_of(server.data) != "root"
        assert mode_of(server.data) == 0o700
        assert owner_of(server.folder) == "root"


@pytest.fixture
def closed_project(monkeypatch):
    """A project below a folder of mode 0700, as root's home is; and system folders of the test's own."""
    base = Path(tempfile.mkdtemp(prefix="wf-test-"))
    base.chmod(0o755)
    monkeypatch.setattr(home, "SYSTEM_DATA", base / "lib")
    monkeypatch.setattr(readable, "SYSTEM_CACHE", base / "cache")
    (base / "cache").mkdir(mode=0o755)
    project = base / "root" / "shop"
    project.mkdir(parents=True)
    (base / "root").chmod(0o700)
    yield project
    for folder in [project, *(base / "lib").glob("*")]:
        assert kill_all(folder)
    shutil.rmtree(base)


def test_a_project_that_the_account_cannot_enter_has_its_data_elsewhere_and_says_where(closed_project):
    folder = closed_project / ".simpleworkflow" / "postgres"

    with start(folder) as server:
        psycopg.connect(server.url).close()
        with start(folder) as again:
            assert again.url == server.url

    assert (folder / "moved-to").read_text().strip() == str(server.folder)
    assert server.folder.parent == home.SYSTEM_DATA
    assert server.folder.name.startswith("shop-")
    assert (server.folder / "project").read_text().strip() == str(folder)
    assert mode_of(closed_project.parent) == 0o700


def test_a_pointer_to_a_folder_that_is_not_ours_is_not_followed(closed_project):
    folder = closed_project / ".simpleworkflow" / "postgres"
    folder.mkdir(parents=True)
    (folder / "moved-to").write_text("/etc\n")

    with pytest.raises(EmbeddedPostgresError, match="names no folder"):
        start(folder)


def test_programs_that_the_account_cannot_run_are_copied_to_where_it_can(closed_project, folder, monkeypatch):
    original = find_binaries().parent
    hidden = closed_project / "venv"
    hidden.mkdir()
    for part in ("bin", "lib", "share"):
        shutil.copytree(original / part, hidden / part, symlinks=True)
    monkeypatch.setattr(binaries, "candidates", lambda: iter([hidden / "bin"]))

    with start(folder) as server:
        psycopg.connect(server.url).close()
        (postmaster,) = programs_of(folder, "postmaster")
        command = subprocess.run(
            ["ps", "-ww", "-o", "args=", "-p", str(postmaster)], capture_output=True, text=True, check=True
        ).stdout

    assert command.startswith(f"{readable.SYSTEM_CACHE}/postgres-")
    assert mode_of(closed_project.parent) == 0o700
    assert not list(readable.SYSTEM_CACHE.glob("copy-*"))


def test_a_cache_folder_that_others_can_write_is_not_trusted(closed_project, folder, monkeypatch):
    hidden = closed_project / "bin"
    hidden.mkdir()
    for name in ("postgres", "initdb"):
        (hidden / name).write_text(
            f"#!/bin/sh\necho 'postgres (PostgreSQL) {(folder / 'data/PG_VERSION').read_text().strip()}.1'\n"
        )
        (hidden / name).chmod(0o755)
    monkeypatch.setattr(binaries, "candidates", lambda: iter([hidden]))
    readable.SYSTEM_CACHE.chmod(0o777)

    with pytest.raises(EmbeddedPostgresError, match="writable by nobody else"):
        start(folder)
