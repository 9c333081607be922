"""The exit codes; which of our errors means which is said by the errors themselves."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What ``wf`` tells the shell; documented in ``wf --help``."""

    OK = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    SCHEMA = 4
    NOT_FOUND = 5
    UNKNOWN = 6
    BUG = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
    PIPE_CLOSED = 141  # 128 + SIGPIPE


EXIT_CODES_HELP = """\b
Exit codes:
  0    done
  1    the answer is no: violations found, something needs attention, a change
       refused, a run that was waited for failed or was cancelled, output
       that cannot be written
  2    the command, an argument, a setting or a worker module cannot be used
  3    the database cannot be reached or started
  4    the schema is missing, older or newer: see wf migrate
  5    there is no such run
  6    the answer was lost: nobody knows whether the change was recorded
  70   a bug in wf: --debug shows the traceback
  130  interrupted; 141 when the reader of the output has gone
"""
