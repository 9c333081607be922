"""Locks on files: the kernel frees them however their holder dies, so none is ever stale."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simpleworkflow.errors import EmbeddedPostgresError

# A lock belongs to the open file, which fork copies.  These are held only for a moment, for a child
# that inherits them on purpose; a child that another thread forks in that moment must not keep them.
_to_hand_over: set[int] = set()


def _close_in_forked_child() -> None:
    for fd in _to_hand_over:
        with suppress(OSError):
            os.close(fd)
    _to_hand_over.clear()


os.register_at_fork(after_in_child=_close_in_forked_child)


def create(path: Path) -> None:
    """Make the lock's file if there is none."""
    os.close(_open(path))


def try_exclusive(path: Path) -> int | None:
    """Return a descriptor that holds the lock alone, or None when somebody else has it."""
    fd = _open(path)
    if _try(fd, fcntl.LOCK_EX):
        _to_hand_over.add(fd)
        return fd
    os.close(fd)
    return None


def is_held(path: Path) -> bool:
    """Return whether anybody holds the lock; only under the start lock, for the look itself takes it."""
    fd = try_exclusive(path)
    if fd is None:
        return True
    release(fd)
    return False


def hold_shared(path: Path, *, seconds: float) -> int:
    """Return a descriptor that shares the lock; programs started later do not inherit it.

    A forked child does, and so is a user as well until it closes the descriptor or ends.

    Raises:
        EmbeddedPostgresError: somebody has kept it exclusively for ``seconds``.
    """
    return _wait(path, fcntl.LOCK_SH, seconds)


@contextmanager
def exclusive(path: Path, *, seconds: float) -> Iterator[None]:
    """Hold the lock alone for the body.

    Raises:
        EmbeddedPostgresError: somebody else has kept it for ``seconds``.
    """
    fd = _wait(path, fcntl.LOCK_EX, seconds)
    try:
        yield
    finally:
        release(fd)


@contextmanager
def handed_over(fd: int) -> Iterator[None]:
    """Lend a held lock to the programs that the body starts; afterwards it is theirs alone."""
    try:
        yield
    finally:
        _to_hand_over.discard(fd)
        os.close(fd)


def release(fd: int) -> None:
    """Give the lock up, also for copies that a fork has made in the meantime."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    _to_hand_over.discard(fd)
    os.close(fd)


def _wait(path: Path, kind: int, seconds: float) -> int:
    fd = _open(path)
    deadline = time.monotonic() + seconds
    # Polled, not blocking: flock has no time-out, and a signal that ended it would have to be ours.
    while not _try(fd, kind):
        if time.monotonic() > deadline:
            os.close(fd)
            raise EmbeddedPostgresError(f"{str(path)!r} has been locked for {seconds:g} s; end who holds it")
        time.sleep(0.005)
    return fd


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    # Not inheritable, which is Python's default.  No links: as root we may be in somebody else's folder.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    give_to_owner_of_folder(fd, path.parent)
    return fd


def give_to_owner_of_folder(fd: int, folder: Path) -> None:
    """Let a file that root makes in a user's folder be the user's, who has to open it tomorrow."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != os.fstat(fd).st_uid:
        os.fchown(fd, owner.st_uid, owner.st_gid)
