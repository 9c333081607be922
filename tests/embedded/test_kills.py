"""kill -9 of any of the processes: the next start works, and what was committed is there."""

from __future__ import annotations

import os
import signal
import threading

import psycopg
import pytest

from embedded.processes import Program, eventually, is_running, kill, stop_now
from simpleworkflow.embedded import start


def commit(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("drop table if exists kept; create table kept as select 42 as answer")


def kept(url: str) -> object:
    with psycopg.connect(url) as connection:
        return connection.execute("select answer from kept").fetchone()


def test_the_server_stops_when_its_only_user_was_killed(run_program, processes):
    user = run_program()
    assert user.answer

    user.kill()

    assert eventually(lambda: not processes("server") and not processes("keeper"), seconds=5)


def test_the_server_outlives_a_killed_starter_for_its_other_users(run_program, processes):
    starter = run_program()
    assert starter.answer
    other = run_program()
    commit(other.url)

    starter.kill()

    assert not eventually(lambda: not processes("postmaster"), seconds=1.8)
    assert kept(other.url) == (42,)


@pytest.mark.parametrize("victims", ["postmaster", "server"])
def test_after_a_kill_of_the_server_the_next_start_brings_it_back(folder, run_program, processes, victims):
    user = run_program()
    commit(user.url)

    kill(processes(victims))

    with start(folder) as again:
        assert again.started_here
        assert again.url == user.url
        assert kept(again.url) == (42,)
        assert len(processes("keeper")) == 1


def test_after_a_kill_of_the_postmaster_the_start_waits_for_a_backend_that_lives_on(folder, processes):
    with start(folder) as server, psycopg.connect(server.superuser_url) as busy:
        (backend,) = busy.execute("select pg_backend_pid()").fetchone()
        os.kill(backend, signal.SIGSTOP)  # as one that computes: it does not look whether its parent lives
        kill(processes("postmaster"))

        wake = threading.Timer(0.5, os.kill, (backend, signal.SIGCONT))
        wake.start()
        with start(folder) as again:
            backend_was_gone = not is_running(backend)
        wake.join()
        busy.close()

    assert backend_was_gone
    assert again.started_here


def test_after_a_kill_of_the_keeper_the_next_start_brings_one_and_the_server_still_stops(
    folder, run_program, processes
):
    user = run_program()
    assert user.answer
    kill(processes("keeper"))
    assert eventually(lambda: not processes("keeper"))

    with start(folder) as joined:
        assert not joined.started_here
        assert len(processes("keeper")) == 1
    user.end()

    assert eventually(lambda: not processes("server"), seconds=5)


def test_after_a_kill_of_everything_the_next_start_finds_what_was_committed(folder, run_program, processes):
    user = run_program()
    commit(user.url)

    kill(processes("keeper") + processes("server"))
    user.kill()

    with start(folder) as again:
        assert again.started_here
        assert kept(again.url) == (42,)


def test_a_kill_in_the_middle_of_initdb_leaves_no_half_cluster(new_folder):
    folder = new_folder
    user = Program(folder)
    assert eventually(lambda: list(folder.glob("initdb-*/data/PG_VERSION")), pause=0.001)

    user.kill()

    with start(folder) as server:
        psycopg.connect(server.url).close()
        assert list(folder.glob("initdb-*")) == []


def test_a_server_is_stopped_whose_starter_was_killed_before_it_was_ready(folder, run_program, processes):
    user = run_program()
    assert eventually(lambda: processes("postmaster"), pause=0.001)

    user.kill()

    assert eventually(lambda: not processes("server") and not processes("keeper"), seconds=5)


def test_a_server_that_is_killed_while_it_starts_is_started_once_more(folder, run_program, processes):
    user = run_program()
    assert eventually(lambda: processes("postmaster"), pause=0.001)

    kill(processes("postmaster"))

    with start(folder) as server:
        assert server.url == user.url
        psycopg.connect(server.url).close()


def test_a_pid_file_whose_number_is_another_programs_now_is_no_obstacle(folder, run_program, processes):
    user = run_program()
    commit(user.url)
    kill(processes("keeper") + processes("server"))
    user.kill()
    pid_file = folder / "data" / "postmaster.pid"
    pid_file.write_text("\n".join([str(os.getpid()), *pid_file.read_text().splitlines()[1:]]))

    with start(folder) as again:
        assert kept(again.url) == (42,)


def test_lost_passwords_are_replaced_and_the_data_stays(folder):
    with start(folder) as before:
        commit(before.url)
        assert stop_now(folder)
    (folder / "server.json").unlink()

    with start(folder) as after:
        assert after.url != before.url
        assert kept(after.url) == (42,)
