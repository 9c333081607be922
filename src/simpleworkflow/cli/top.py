"""``wf top``: what runs, what waits and what failed, live in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from simpleworkflow.cli.output import console, json_option, print_json, run_document
from simpleworkflow.cli.session import database_option, open_client, open_database
from simpleworkflow.errors import DatabaseUnavailable, WorkflowError

if TYPE_CHECKING:
    from uuid import UUID

    from simpleworkflow.cli.top_keys import Keyboard
    from simpleworkflow.cli.top_screen import Picture, Row, Seen
    from simpleworkflow.client import Client

RUNNING_MAX, FAILED_MAX, WINDOW_SECONDS = 200, 50, 60


@click.command(epilog="Example: wf top --pattern 'billing.%'")
@click.option(
    "--pattern", metavar="PATTERN", default="%", help="Only a type, or a prefix such as 'billing.%'."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option("--once", is_flag=True, help="Print what there is to see now, and end.")
@json_option
@database_option
def top(*, pattern: str, interval: float, once: bool, as_json: bool) -> None:
    """Watch types, running runs and failures; cancel, reopen, pause with a key.

    Tab goes from one table to the next, the arrows select a row. c cancels the selected run, r reopens it, p pauses or
    resumes the selected type; each asks before. / filters by a pattern, q ends it.
    """
    from simpleworkflow.cli.top_screen import Picture, render

    if not once and not as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "wf top needs a terminal; --once prints one frame", click.get_current_context()
        )
    where = open_database().shown
    with open_client() as client:
        picture = Picture(where, pattern, look(client, pattern))
        if as_json:
            print_json(_document(picture.seen))
        elif once:
            screen = console()
            screen.width = screen.width if screen.is_terminal else 120
            screen.print(render(picture, screen.width, None), end="")
        else:
            from simpleworkflow.cli.top_keys import Keyboard

            with Keyboard() as keyboard:
                Top(client, picture, keyboard, interval).run()


def look(client: Client, pattern: str) -> Seen:
    """Return what there is to see now."""
    from simpleworkflow.cli.top_screen import Seen
    from simpleworkflow.model import matches

    stats = client.stats(WINDOW_SECONDS)
    types = [one for one in client.types(WINDOW_SECONDS) if pattern == "%" or matches(pattern, one.type)]
    running = client.list(pattern=pattern, status="leased", limit=RUNNING_MAX).runs
    failed = client.list(pattern=pattern, status="failed", limit=FAILED_MAX).runs
    operations = [one for one in client.operations(limit=3) if one.is_running]
    return Seen(stats, types, sorted(running, key=lambda run: run.updated_at), failed, operations)


def _document(seen: Seen) -> dict[str, Any]:
    runs = ("running", "failed")
    return {
        name: [run_document(run) for run in value] if name in runs else _plain(value)
        for name, value in _plain_fields(seen).items()
    }


def _plain_fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {name: _plain(one) for name, one in _plain_fields(value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return dict(value) if hasattr(value, "items") else value


class Top:
    """The loop: a look each interval, a key at once, a frame after either and when the window changes."""

    def __init__(self, client: Client, picture: Picture, keyboard: Keyboard, interval: float) -> None:
        self._client = client
        self._picture = picture
        self._keyboard = keyboard
        self._interval = interval
        self._typed: str | None = None  # the pattern that is being typed
        self._asked: Callable[[], str] | None = None  # what happens at y
        self._screen = console()

    def run(self) -> None:
        """Show frames until q."""
        from rich.live import Live

        from simpleworkflow.cli.top_screen import render

        next_look, shown_size = monotonic() + self._interval, None
        with Live(console=self._screen, screen=True, auto_refresh=False, transient=True) as live:
            while True:
                size = self._screen.size
                live.update(render(self._picture, size.width, size.height), refresh=True)
                shown_size = size
                key = None
                while key is None and monotonic() < next_look and self._screen.size == shown_size:
                    key = self._keyboard.read(min(0.1, max(0.0, next_look - monotonic())))
                if key is not None and not self._press(key):
                    return
                if monotonic() >= next_look or key == "enter":
                    self._look()
                    next_look = monotonic() + self._interval

    def _look(self) -> None:
        try:
            self._picture.show(look(self._client, self._picture.pattern))
        except DatabaseUnavailable as error:
            self._picture.trouble = f"the database is away; trying again: {error}"
        except WorkflowError as error:
            self._picture.trouble = str(error)

    # ── keys ───────────────────────────────────────────────────────────────────────────────────────

    def _press(self, key: str) -> bool:
        """Do what a key means; return whether to go on."""
        if self._typed is not None:
            self._type(key)
        elif self._asked is not None:
            asked, self._asked = self._asked, None
            self._picture.say(self._done(asked) if key in ("y", "Y") else "nothing was changed")
            self._look()
        elif key in ("q", "Q"):
            return False
        else:
            self._command(key)
        return True

    def _type(self, key: str) -> None:
        typed = self._typed or ""
        if key == "escape":
            self._typed = None
            self._picture.say("")
            return
        if key == "enter":
            self._typed = None
            self._filter(typed or "%")
            return
        self._typed = typed[:-1] if key == "backspace" else typed + (key if len(key) == 1 else "")
        self._picture.say(f"pattern: {self._typed}_  (Enter: filter, Esc: leave it)")

    def _filter(self, pattern: str) -> None:
        before, self._picture.pattern = self._picture.pattern, pattern
        try:
            self._picture.show(look(self._client, pattern))
            self._picture.say("")
        except WorkflowError as error:
            self._picture.pattern = before
            self._picture.say(str(error))

    def _command(self, key: str) -> None:
        self._picture.say("")
        row = self._picture.selected()
        match key:
            case "tab":
                self._picture.next_table()
            case "up" | "k":
                self._picture.move(-1)
            case "down" | "j":
                self._picture.move(1)
            case "/":
                self._typed = ""
                self._type("")
            case "c" if row and (run_id := row.run_id):
                self._ask(f"cancel run {run_id}", partial(self._cancel, run_id))
            case "r" if row and (run_id := row.run_id):
                self._ask(f"reopen run {run_id}", partial(self._reopen, run_id))
            case "p" if row and row.is_paused:
                self._ask(f"resume {row.is_paused}", partial(self._resume, row))
            case "p" if row:
                self._ask(f"pause {row.type}", partial(self._pause, row))

    def _ask(self, what: str, change: Callable[[], str]) -> None:
        self._asked = change
        self._picture.say(f"{what}? y: yes, any other key: no")

    def _done(self, change: Callable[[], str]) -> str:
        try:
            return change()
        except WorkflowError as error:
            return str(error)

    def _cancel(self, run_id: UUID) -> str:
        changed = self._client.cancel(run_id, reason="wf top")
        return f"run {run_id} {'is cancelled' if changed else 'had ended; nothing changed'}"

    def _reopen(self, run_id: UUID) -> str:
        changed = self._client.reopen(run_id, reason="wf top")
        return f"run {run_id} {'is reopened' if changed else 'has not ended; nothing changed'}"

    def _pause(self, row: Row) -> str:
        self._client.pause(row.type, "wf top")
        return f"{row.type} is paused"

    def _resume(self, row: Row) -> str:
        self._client.resume(row.is_paused)
        return f"{row.is_paused} is resumed"
