"""``wf demo``: everything at once, for somebody who has never seen it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import files
from pathlib import Path

import click

import simpleworkflow
from simpleworkflow.cli.session import database_option, open_client, open_database

EXAMPLES = ("basic_worker.py", "billing_worker.py", "video_processor.py", "notification_worker.py")


@click.command(epilog="Example: wf demo; or DATABASE_URL=postgresql://… wf demo")
@database_option
def demo() -> None:
    """Watch real runs recorded, claimed, executed, retried, cancelled and recovered: about 20 seconds.

    Four example workers run as real processes on a real PostgreSQL, the embedded one unless DATABASE_URL
    names another.  Nothing is left running; the runs stay, for you to look at.
    """
    from simpleworkflow.cli.demo_screen import Screen
    from simpleworkflow.cli.demo_stage import Stage
    from simpleworkflow.cli.demo_story import tell
    from simpleworkflow.cli.demo_workers import Workers
    from simpleworkflow.database import connect
    from simpleworkflow.migrate import migrate

    examples = find_examples()
    with ExitStack() as stack:
        stack.enter_context(_ended_by_signals())
        screen = Screen()
        database = open_database()
        with connect(database.conninfo) as connection:
            migrate(connection, database.schema, report=screen.say)
        client = stack.enter_context(open_client())
        workers = stack.enter_context(Workers(examples, database.portable, screen))
        tell(stack.enter_context(Stage(client, database, workers, screen)))


def find_examples() -> Path:
    """Return the folder of the example programs: that of the checkout, else where the wheel has put them.

    Raises:
        ClickException: they are nowhere.
    """
    checkout = Path(simpleworkflow.__file__).parents[2] / "examples" / "python"
    shipped = [file for file in files("simpleworkflow") or () if file.name in EXAMPLES]
    installed = [Path(str(file.locate())).resolve().parent for file in shipped]
    for folder in (checkout, *installed):
        if all((folder / name).is_file() for name in EXAMPLES):
            return folder
    raise click.ClickException("the example programs are not installed; run `make demo` in a checkout")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo as Ctrl-C does: with everything cleaned up."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
