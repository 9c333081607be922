"""What lies between a program and its database: poolers, clocks, keepalives; and what people see."""

from __future__ import annotations

import os
import pty
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from builders import connect, submit
from cli.programs import WF
from faults.servers import faketime_library
from simpleworkflow.cli import main
from simpleworkflow.dburl import parse

SECTION = "Database and network"


@pytest.fixture
def pooled_url(patient) -> Iterator[Callable[[str], str]]:
    """Start PgBouncer in a mode before the patient's database; return the URL through it."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("needs pgbouncer; install Debian's package pgbouncer")
    running = []

    def start(mode: str) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        folder = Path(tempfile.mkdtemp(prefix="wf-pooler-"))
        folder.chmod(0o755)
        server = conninfo_to_dict(parse(patient.url).conninfo)
        target = " ".join(
            f"{name}={server[key]}"
            for name, key in (("host", "host"), ("port", "port"), ("user", "user"), ("password", "password"))
        )
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{server['dbname']} = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"auth_type = any\npool_mode = {mode}\nunix_socket_dir =\nignore_startup_parameters = options\n"
        )
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        running.append(
            subprocess.Popen(
                [program, "-q", *as_user, str(folder / "pgbouncer.ini")],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        _wait_for_port(port)
        return (
            parse(make_conninfo("", host="127.0.0.1", port=port, user="app", dbname=str(server["dbname"])))
            .with_schema(patient.schema)
            .conninfo
            + f"?schema={patient.schema}"
        )

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


def _wait_for_port(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("PgBouncer did not start")


@pytest.mark.fault(SECTION, "wf doctor: a transaction pooler that the settings do not know of", "P7")
def test_a_transaction_pooler_is_found_and_the_setting_is_the_remedy(examine, pooled_url, monkeypatch):
    url = pooled_url("transaction")

    unknown = examine(url=url)
    monkeypatch.setenv("SIMPLEWORKFLOW_POOLER", "transaction")
    known = examine(url=url)

    assert unknown.code == 1
    assert unknown.one("pooler")["severity"] == "error"
    assert unknown.one("pooler")["remedy"] == "export SIMPLEWORKFLOW_POOLER=transaction"
    assert (known.code, known.bad) == (0, [])


def test_a_session_pooler_is_left_in_peace(examine, pooled_url):
    found = examine(url=pooled_url("session"))

    assert found.bad == []
    assert "seems to be in session mode" in found.one("pooler")["found"]


@pytest.mark.fault(SECTION, "wf doctor: the settings name a pooler that is not there", "P7")
def test_a_pooler_that_is_not_there_is_a_notice(examine, monkeypatch):
    monkeypatch.setenv("SIMPLEWORKFLOW_POOLER", "transaction")

    found = examine()

    assert found.code == 0
    assert found.one("pooler")["severity"] == "notice"
    assert found.one("pooler")["remedy"] == "unset SIMPLEWORKFLOW_POOLER"


@pytest.mark.fault(SECTION, "wf doctor: this machine's clock is a day off", "P12")
@pytest.mark.parametrize(("offset", "said"), [("+1d", "ahead of"), ("-1d", "behind")])
def test_a_clock_that_is_off_is_told_and_harmless(patient, environment, offset, said):
    library = faketime_library()
    if library is None:
        pytest.skip("needs libfaketime; install Debian's package faketime")

    ended = subprocess.run(
        [WF, "doctor", "--database-url", patient.url],
        env=os.environ | {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DISABLE_SHM": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(
        rf"notice +clock +this machine's clock is 86\d\d\d s {said} the database's", ended.stdout
    )
    assert ended.stdout.splitlines()[-1].endswith("checks: 1 notice")


@pytest.mark.fault(SECTION, "wf doctor: a client without keepalives", "P7")
@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ("keepalives=0", "keepalives=0 in the database URL"),
        ("keepalives_idle=7200", "is noticed after 7215 s"),
    ],
)
def test_a_client_that_would_not_notice_a_dead_server_is_told(examine, patient, parameters, said):
    found = examine(url=f"{patient.url}&{parameters}")

    assert found.code == 1
    assert said in found.one("client keepalives")["found"]


@pytest.mark.fault(SECTION, "wf doctor: the server is not there", "P11")
def test_a_server_that_is_not_there_is_one_line_and_exit_code_3(environment, capsys):
    code = main(["doctor", "--database-url", "postgresql://app:secret@127.0.0.1:1/none"])

    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "secret" not in err


# ── what people see ────────────────────────────────────────────────────────────────────────────────


def _on_terminal(arguments: list[str], columns: int) -> str:
    """Run ``wf`` on a terminal of that width; return what it shows."""
    main_end, terminal = pty.openpty()
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [WF, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=env | {"TERM": "xterm"}
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                piece = os.read(main_end, 65_536)
            except OSError:  # the terminal has gone with its last user
                break
            if not piece:
                break
            shown += piece
    os.close(main_end)
    return shown.decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(environment, patient, owner, columns):
    submit(owner, "nobody.handles.this.v1", delay=0)
    owner.execute("drop index workflow_run_aside")

    shown = _on_terminal(["doctor", "--long", "0", "--database-url", patient.url], columns)

    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert plain != shown
    assert "\x1b" not in plain
    assert max(len(line) for line in plain.splitlines()) <= columns
    assert "CREATE INDEX workflow_run_aside" in " ".join(plain.split())


def test_a_pipe_gets_no_colours_and_each_fact_in_one_line(environment, patient, owner, capsys):
    owner.execute("drop index workflow_run_aside")

    code = main(["doctor", "--database-url", patient.url])

    out, _ = capsys.readouterr()
    assert code == 1
    assert "\x1b" not in out
    lines = out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("error"))
    assert re.fullmatch(r"error +objects +index workflow_run_aside is missing", lines[at])
    assert re.fullmatch(r" +why: what it serves reads the whole table instead", lines[at + 1])
    assert re.fullmatch(r" +do:  CREATE INDEX workflow_run_aside ON .*", lines[at + 2])
    assert lines[-1].endswith("checks: 1 error")


def test_every_check_is_answered_and_none_writes(examine, patient, owner):
    with connect(patient.owner_url):
        before = owner.execute("select count(*) from workflow_event").fetchone()

        found = examine()

    assert not [one for one in found.findings if "could not be checked" in one["found"]]
    assert owner.execute("select count(*) from workflow_event").fetchone() == before


def test_the_page_lists_every_check(examine):
    page = (Path(__file__).resolve().parents[2] / "docs/operating/doctor.md").read_text()

    assert re.findall(r"^\| ([a-z ]+) \|", page, re.MULTILINE)[1:] == [
        one["check"] for one in examine().findings
    ]
