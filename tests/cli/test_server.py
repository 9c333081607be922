"""``wf server``: it says where it is, refuses what it cannot do in one line, and stops within seconds."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cli.programs import WF
from simpleworkflow.web.serving import listen


@contextmanager
def a_server(
    environment: dict[str, str], database_url: str, *options: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the URL of a running ``wf server`` and its process; it is gone afterwards."""
    process = subprocess.Popen(
        [WF, "server", "--port", "0", *options],
        env=environment | {"DATABASE_URL": database_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"serving (http://\S+)/", said)):
            line = process.stderr.readline()
            assert line, f"the server has ended: {said}"
            said += line
        yield found[1], process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_the_server_answers_where_it_says_and_stops_at_sigterm(
    environment: dict[str, str], database_url: str
) -> None:
    with a_server(environment, database_url) as (url, process):
        with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{url}/api/v1/runs", timeout=30) as answer:
            assert json.load(answer)["runs"] == []

        process.send_signal(signal.SIGTERM)

        assert process.wait(20) in (0, -signal.SIGTERM)


def test_an_answer_does_not_wait_for_the_receipt_of_its_head() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_port_that_is_taken_is_said_in_one_line(environment: dict[str, str], database_url: str) -> None:
    with a_server(environment, database_url) as (url, _):
        port = url.rpartition(":")[2]

        second = subprocess.run(
            [WF, "server", "--port", port],
            env=environment | {"DATABASE_URL": database_url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert second.returncode == 2
    assert second.stderr == f"wf: error: cannot listen on '127.0.0.1', port {port}: address already in use\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_beyond_this_machine_it_does_not_serve_without_keys(wf, host: str) -> None:
    answer = wf("server", "--host", host)

    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "--host: " in answer.err
