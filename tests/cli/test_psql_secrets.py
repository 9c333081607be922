"""What ``wf psql`` hands to psql is not on a command line: a real psql decrypts its key with a real passphrase."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.programs import Answer, command_line

PASSPHRASE = "Marked-passphrase"


class Door:
    """A server that asks for TLS as PostgreSQL does, notes who came with a client's key, and hangs up."""

    def __init__(self, folder: Path) -> None:
        self.command_lines: list[str] = []
        self.has_key = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "cert.pem", folder / "plain.pem")
        self._context.load_verify_locations(folder / "cert.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            with conn:
                conn.settimeout(10)
                try:
                    self._greet(conn)
                except OSError:
                    continue

    def _greet(self, conn: socket.socket) -> None:
        conn.recv(8)  # SSLRequest
        self.command_lines += [
            command_line(int(one.name)) for one in Path("/proc").glob("[0-9]*") if is_psql(one)
        ]
        conn.sendall(b"S")
        with self._context.wrap_socket(conn, server_side=True) as secured:
            if secured.getpeercert():
                self.has_key.set()


def is_psql(process: Path) -> bool:
    try:
        return (process / "comm").read_text().strip() == "psql"
    except OSError:
        return False


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    subject = ["-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=door"]
    files = ["-out", tmp_path / "cert.pem", "-keyout", tmp_path / "plain.pem"]
    subprocess.run(["openssl", "req", *subject, "-nodes", *files], check=True, capture_output=True)
    key = [
        "-in",
        tmp_path / "plain.pem",
        "-out",
        tmp_path / "key.pem",
        "-aes256",
        "-passout",
        f"pass:{PASSPHRASE}",
    ]
    subprocess.run(["openssl", "rsa", *key], check=True, capture_output=True)
    (tmp_path / "key.pem").chmod(0o600)
    found = Door(tmp_path)
    yield found
    found.close()


def url_of(door: Door, folder: Path, passphrase: str) -> str:
    keys = f"sslcert={folder}/cert.pem&sslkey={folder}/key.pem&sslpassword={passphrase}"
    return f"postgresql://ann:Marked-pass@127.0.0.1:{door.port}/app?sslmode=require&connect_timeout=10&{keys}"


@pytest.mark.fault("Security", "the passphrase of a key, handed to psql", "P11")
def test_the_passphrase_reaches_psql_and_stands_on_no_command_line(
    program: Callable[..., Answer], door: Door, tmp_path: Path
) -> None:
    right = program("psql", "-c", "select 1", DATABASE_URL=url_of(door, tmp_path, PASSPHRASE))
    came_with_key = door.has_key.is_set()
    door.has_key.clear()
    wrong = program("psql", "-c", "select 1", DATABASE_URL=url_of(door, tmp_path, "Marked-wrong"))

    assert came_with_key
    assert not door.has_key.is_set()
    assert "could not load private key" in wrong.err
    assert door.command_lines
    assert "Marked" not in "".join([*door.command_lines, right.out, right.err, wrong.out, wrong.err])


def test_a_passphrase_beside_a_service_is_refused_with_the_remedy(program: Callable[..., Answer]) -> None:
    answer = program("psql", DATABASE_URL="service=mine sslpassword=Marked-passphrase")

    assert answer.code == 1
    assert "sslpassword cannot be given to psql beside service='mine'" in answer.err
    assert "Marked" not in answer.err
