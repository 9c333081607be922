"""One server for the processes of a project, as long as any of them uses it."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess

import psycopg
import pytest

from embedded.processes import Program, eventually, programs_of, stop_now
from simpleworkflow.embedded import start


def test_the_first_start_gives_a_durable_server_and_a_role_that_is_no_superuser(new_folder):
    with start(new_folder) as server, psycopg.connect(server.url) as connection:
        role = connection.execute(
            "select current_user, rolsuper, rolcreaterole from pg_roles where rolname = current_user"
        ).fetchone()
        owner = connection.execute(
            "select pg_get_userbyid(datdba), pg_encoding_to_char(encoding) from pg_database"
            " where datname = current_database()"
        ).fetchone()
        settings = dict(
            connection.execute(
                "select name, setting from pg_settings where name in"
                " ('fsync', 'full_page_writes', 'synchronous_commit', 'listen_addresses')"
            ).fetchall()
        )

    assert server.started_here
    assert role == ("workflow", False, False)
    assert owner == ("workflow", "UTF8")
    assert settings == {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "127.0.0.1",
    }


def test_a_second_start_joins_the_server_of_another_process(folder, run_program):
    first = run_program()
    assert first.answer["started_here"]

    with start(folder) as second:
        pass

    assert not second.started_here
    assert second.url == first.url


def test_of_five_that_start_at_once_one_makes_and_starts_the_server(new_folder):
    programs = [Program(new_folder) for _ in range(5)]

    answers = [program.answer for program in programs]

    assert [answer["started_here"] for answer in answers].count(True) == 1
    assert len({answer["url"] for answer in answers}) == 1
    assert len(programs_of(new_folder, "postmaster")) == 1
    assert len(programs_of(new_folder, "keeper")) == 1
    for program in programs:
        program.end()


def test_the_server_stays_for_the_one_who_joined_and_stops_after_the_last(folder, run_program, processes):
    first, second = run_program(), run_program()
    assert first.url == second.url

    first.end()
    assert not eventually(lambda: not processes("postmaster"), seconds=1.8)
    psycopg.connect(second.url).close()
    second.end()

    assert eventually(lambda: not processes("server") and not processes("keeper"), seconds=5)


def test_what_was_committed_is_there_after_a_stop_and_the_url_is_the_same(folder, processes):
    with start(folder) as first, psycopg.connect(first.url) as connection:
        connection.execute("drop table if exists kept; create table kept as select 42 as answer")
    assert eventually(lambda: not processes("server") and not processes("keeper"))

    with start(folder) as second, psycopg.connect(second.url) as connection:
        kept = connection.execute("select answer from kept").fetchone()

    assert second.started_here
    assert second.url == first.url
    assert kept == (42,)


def test_a_program_that_a_user_starts_does_not_keep_the_server(run_program, processes):
    then = "import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\nsys.stdin.read()\n"
    user = run_program(then=then)
    assert user.answer
    outlives = int(user.line())

    user.kill()

    try:
        assert eventually(lambda: not processes("server"), seconds=5)
        os.kill(outlives, 0)
    finally:
        os.kill(outlives, signal.SIGKILL)


def test_a_forked_child_goes_on_using_the_server_when_its_parent_has_left(run_program, processes):
    # The parent closes and ends; the child, which inherited its standard input, stays until that ends.
    then = "import os\nif os.fork():\n    server.close()\n    os._exit(0)\nsys.stdin.read()\n"
    program = run_program(then=then)
    assert program.answer

    stopped_under_the_child = eventually(lambda: not processes("postmaster"), seconds=1.8)
    program.end()

    assert not stopped_under_the_child
    assert eventually(lambda: not processes("server"), seconds=5)


def test_ctrl_c_in_the_terminal_of_the_starter_spares_the_other_users(run_program, processes):
    starter = run_program(start_new_session=True, stderr=subprocess.DEVNULL)
    assert starter.answer["started_here"]
    other = run_program()
    assert other.answer

    os.killpg(starter.pid, signal.SIGINT)

    assert eventually(lambda: processes("postmaster") and processes("keeper"))
    assert psycopg.connect(other.url).execute("select 1").connection.close() is None


def test_the_passwords_are_readable_by_their_owner_alone_and_needed(folder):
    with start(folder) as server:
        mode = stat.S_IMODE((server.folder / "server.json").stat().st_mode)
        without_password = f"postgresql://workflow@127.0.0.1:{server.port}/workflow?sslmode=disable"

        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(without_password, passfile="/none")

    assert mode == 0o600
    assert server.url.split(":")[2].split("@")[0] not in repr(server)


def test_a_port_that_somebody_took_in_the_meantime_is_replaced(folder):
    with start(folder) as before:
        assert stop_now(folder)

    with socket.create_server(("127.0.0.1", before.port)), start(folder) as after:
        psycopg.connect(after.url).close()

    assert after.port != before.port


def test_closing_twice_is_fine(folder):
    server = start(folder)

    server.close()
    server.close()

    assert server.port
