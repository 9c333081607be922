"""Start the server and its keeper as processes of their own, and read what they say in the log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from simpleworkflow.embedded import keeper, locks
from simpleworkflow.embedded.home import Home, ProcessOptions

LOG_BYTES_MAX = 10_000_000


def ensure_keeper(home: Home) -> None:
    """Start a keeper if none lives; the caller holds the start lock."""
    fd = locks.try_exclusive(home.lock("keeper"))
    if fd is None:
        return
    locks.create(home.lock("server"))  # the keeper opens what is there
    command = [sys.executable, "-I", "-S", keeper.__file__, home.folder, home.uid, home.gid, fd]
    with locks.handed_over(fd):
        _start_detached([str(part) for part in command], home, home.own_process_options(), keeps=fd)


def start_server(home: Home, command: Sequence[str], *, lock: int) -> None:
    """Start the server, which inherits the lock, as do all processes that it makes."""
    _start_detached(command, home, home.process_options(), keeps=lock)


def _start_detached(command: Sequence[str], home: Home, options: ProcessOptions, *, keeps: int) -> None:
    """Start a program that is nobody's child.

    It is then not the caller's to wait for (a program that waits for *any* child must not meet ours),
    leaves no zombie, and is not hit by the terminal's Ctrl-C.
    """
    with _open_log(home) as log:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            **options,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(keeps,),
            timeout=30,
            check=True,
        )


def trimmed_log_size(home: Home) -> int:
    """Empty a log that has grown beyond its bound; return its size."""
    with _open_log(home) as log:
        if os.fstat(log).st_size > LOG_BYTES_MAX:
            os.ftruncate(log, 0)
        return os.fstat(log).st_size


def log_from(home: Home, start: int) -> str:
    """Return what was said since the log had this size, without times and process ids."""
    with home.log.open("rb") as log:
        log.seek(start)
        said = log.read().decode("utf-8", "replace")
    return re.sub(r"^.* \[\d+\] (?=[A-Z]+: )", "", said, flags=re.MULTILINE)


def last_words(said: str) -> str:
    """Return the last lines as one: which setting was wrong stands before that the file has errors."""
    lines = [re.sub(r"\s+", " ", line).strip() for line in said.splitlines()]
    return "; ".join([line for line in lines if line][-3:]) or "it said nothing"


@contextmanager
def _open_log(home: Home) -> Iterator[int]:
    fd = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        locks.give_to_owner_of_folder(fd, home.folder)
        yield fd
    finally:
        os.close(fd)
