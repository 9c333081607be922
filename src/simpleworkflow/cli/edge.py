"""The edge between the commands and the shell: every error becomes one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from simpleworkflow.cli.exits import ExitCode
from simpleworkflow.cli.program import PipeClosed, program
from simpleworkflow.cli.session import State
from simpleworkflow.cli.text import one_line
from simpleworkflow.errors import DatabaseUnavailable, WorkflowError

_LINE_CHARACTERS_MAX = 800


def run_program(arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit code; raise nothing."""
    _open_missing_streams()
    state = State()
    try:
        answer = program.main(arguments, prog_name="wf", standalone_mode=False, obj=state)
        code = answer if isinstance(answer, int) else ExitCode.OK
        sys.stdout.flush()
    except PipeClosed:
        code = ExitCode.PIPE_CLOSED
    except BaseException as error:  # noqa: BLE001 - the edge: nobody above could say it better
        code = _report(error, with_traceback=state.debug)
    return _leave(code)


def _report(error: BaseException, *, with_traceback: bool) -> int:
    if with_traceback:
        with suppress(OSError):
            traceback.print_exception(error)
    code, message = _explain(error)
    if message:
        with suppress(OSError):
            click.echo(message, err=True)
    return code


def _explain(error: BaseException) -> tuple[int, str | None]:  # noqa: PLR0911 - one for each kind
    """Return the exit code and the line for people, None where nothing need be said."""
    match error:
        case BrokenPipeError():
            return ExitCode.PIPE_CLOSED, None
        case click.exceptions.NoArgsIsHelpError():
            return ExitCode.USAGE, error.format_message()
        case click.UsageError():
            where = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
            return ExitCode.USAGE, _line(_lower_first(error.format_message().rstrip(".")) + where)
        case click.ClickException():
            return error.exit_code, _line(error.format_message())
        case click.Abort() | KeyboardInterrupt():
            return ExitCode.INTERRUPTED, None
        case SystemExit(code=int(code)):
            return code, None
        case DatabaseUnavailable(is_unknown=True):
            return ExitCode.UNKNOWN, _line(str(error))
        case DatabaseUnavailable():
            return ExitCode.UNREACHABLE, _line(f"{error}; `wf config` shows which database is meant")
        case WorkflowError():
            return error.exit_code, _line(str(error))
        case OSError():
            return ExitCode.NO, _line(_os_error_text(error))
        case _:
            return _explain_foreign(error)


def _explain_foreign(error: BaseException) -> tuple[int, str]:
    """Explain what neither we nor the operating system raised: the driver's errors, and bugs."""
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate is not None:
        first_line = (str(error) or type(error).__name__).split("\n", 1)[0]
        return ExitCode.NO, _line(f"the database refused it: {first_line} (SQLSTATE {sqlstate})")
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ExitCode.BUG, _line(f"unexpected {what}; set WF_TRACEBACK=1 to see where, and report it")


def _os_error_text(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename is not None else reason


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _line(message: str) -> str:
    text = one_line(message)
    if len(text) > _LINE_CHARACTERS_MAX:  # click repeats an argument whole; what to do stands at the end
        text = f"{text[: _LINE_CHARACTERS_MAX - 200]} … {text[-200:]}"
    return f"wf: error: {text}"


def _open_missing_streams() -> None:
    """Give closed standard streams /dev/null: the next file opened would take their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, "r" if number == 0 else "w"))
    for stream in (sys.stdout, sys.stderr):
        # A terminal in another encoding shows \\u2026 rather than nothing at all.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int) -> int:
    """Empty the streams here: at exit Python would complain in its own words about one that is gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or ExitCode.NO
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    return int(code)
