"""``wf top`` in a real terminal: it fits, shows what there is, and steers what is selected, after asking."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from builders import a_held_run, a_run, connect, finish, status_of
from simpleworkflow import Client
from simpleworkflow.cli.top import look
from simpleworkflow.cli.top_screen import Picture, render
from waits import until

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e boom"


class Terminal:
    """``wf top`` behind a pseudo-terminal; what it wrote, without the codes, is ``text``."""

    def __init__(self, url: str, *options: str, rows: int = 24, columns: int = 80) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(DATABASE_URL=url, TERM="xterm-256color")
            os.execv(sys.executable, [sys.executable, "-m", "simpleworkflow.cli", "top", *options])
        self.resize(rows, columns)
        self.written = b""
        self.code: int | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                some = os.read(self.fd, 65536)
            except OSError:
                return
            if not some:
                return
            self.written += some

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def text(self) -> str:
        return self.text_from(0)

    def text_from(self, begin: int) -> str:
        """Return what it wrote from there on, without the codes."""
        written = self.written[begin:]
        return re.sub(rb"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])", b"", written).decode(errors="replace")

    def shows(self, what: str) -> None:
        """Wait until it shows ``what`` in something written from now on."""
        begin = len(self.written)
        until(lambda: what in self.text_from(begin), f"{what!r}; it said {self.text[-3000:]!r}")

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def end(self) -> int:
        """Return the exit code; it has been told to end."""

        def has_ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            return bool(pid)

        if self.code is None:
            until(has_ended, "its end")
            self._reader.join(5)
        assert self.code is not None
        return self.code

    def close(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.end()
        os.close(self.fd)


@pytest.fixture
def terminal(database_url: str) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*options: str, **size: int) -> Terminal:
        opened.append(Terminal(database_url, "--interval", "0.3", *options, **size))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def busy(database_url: str):
    """A run of each kind, one of them with an error that would like to steer the terminal."""
    with connect(database_url) as db:
        db.waits = a_run(db, type="shop.order.v1")
        held = a_held_run(db, type="shop.broken.v1")
        finish(db, held, status="failed", error=HOSTILE)
        db.failed = held.id
        db.running = a_held_run(db, type="shop.slow.v1", worker="host:1:abc").id
        yield db


def test_it_shows_types_running_runs_and_failures_and_ends_at_q(terminal, busy):
    one = terminal()

    for what in ("shop.order.v1", busy.running[-12:], "host:1:abc", busy.failed[-12:], "boom"):
        one.shows(what)
    one.press("q")

    assert one.end() == 0
    assert b"\x1b]0;" not in one.written
    assert b"\x1b[?1049l" in one.written  # the screen that was there before is back


def test_the_selected_run_is_cancelled_only_after_yes(terminal, busy):
    one = terminal()
    one.shows(busy.running[-12:])

    one.press("\tc")
    one.shows(f"cancel run {busy.running}?")
    one.press("n")
    one.shows("nothing was changed")
    assert status_of(busy, busy.running) == "leased"

    one.press("cy")
    until(lambda: status_of(busy, busy.running) == "cancelled", "its end")
    one.shows("is cancelled")


def test_a_failed_run_is_reopened_and_a_type_paused_and_resumed(terminal, busy, database_url):
    one = terminal()
    one.shows(busy.failed[-12:])

    one.press("\t\tr")
    one.shows(f"reopen run {busy.failed}?")
    one.press("y")
    until(lambda: status_of(busy, busy.failed) == "pending", "another attempt")

    one.press("\t")
    with Client(database_url) as client:
        one.press("p")
        one.shows("pause ")
        one.press("y")
        until(lambda: len(client.pauses()) == 1, "the pause")
        one.shows("(paused)")
        one.press("p")
        one.shows("resume ")
        one.press("y")
        until(lambda: client.pauses() == [], "its end")


def test_it_filters_and_says_what_is_no_pattern(terminal, busy):
    one = terminal()
    one.shows("shop.order.v1")

    one.press("/a b\r")
    one.shows("expected a type")
    one.press("/shop.slow.%\r")
    one.shows("shop.slow.%")
    one.press("q")

    assert one.end() == 0
    assert "shop.order.v1" not in one.text[one.text.rindex("wf top") :]


def test_it_fits_the_window_when_that_changes(terminal, busy):
    one = terminal()
    one.shows("q quit")

    one.resize(10, 40)

    one.shows("wf top")
    one.press("q")
    assert one.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(terminal, busy, number):
    one = terminal()
    one.shows("q quit")

    os.kill(one.pid, number)

    assert one.end() in (130, -number)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 5)])
def test_a_frame_is_as_high_and_at_most_as_wide_as_the_window(busy, database_url, width, height):
    with Client(database_url) as client:
        for _ in range(30):
            a_run(busy, status="failed")
        picture = Picture("postgresql://somewhere", "%", look(client, "%"))
    console = Console(width=width, height=height, color_system=None)

    with console.capture() as captured:
        console.print(render(picture, width, height), end="")

    lines = captured.get().rstrip("\n").split("\n")
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_one_frame_is_printed_where_there_is_no_terminal(wf, busy):
    once = wf("top", "--once")
    document = wf("top", "--json").document
    refused = wf("top")

    assert busy.running in once.out
    assert "\x1b" not in once.out
    assert [run["id"] for run in document["running"]] == [busy.running]
    assert document["stats"]["runs"]["pending"] == 1
    assert {one["type"] for one in document["types"]} >= {"shop.order.v1", "shop.slow.v1"}
    assert (refused.code, "--once" in refused.err) == (2, True)
