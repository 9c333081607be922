"""The keeper: a small process of its own that stops the server when its last user has gone.

Run by path with nothing but the standard library (``python -I -S keeper.py folder uid gid fd``), so
that it needs 10 MB and not the whole package.  It holds the lock ``keeper.lock`` by the inherited
descriptor ``fd``; whoever finds that lock free starts another keeper.
"""

import fcntl
import os
import signal
import sys
import time

# Commands in a row (`wf submit` three times) should find the server of the one before.
LINGER_SECONDS = 1.0
FAST_SECONDS = 60.0
IMMEDIATE_SECONDS = 10.0


def main(folder: str, uid: int, gid: int, keeper: int) -> None:
    """Wait until nobody uses the server of this folder, and stop it."""
    # Opened now: they stay good when somebody removes the folder.
    users, start, server = (
        os.open(os.path.join(folder, name), os.O_RDWR) for name in ("users.lock", "start.lock", "server.lock")
    )
    while True:
        fcntl.flock(users, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(LINGER_SECONDS)
        # In the order of a start, which takes start.lock before it joins the users.
        fcntl.flock(start, fcntl.LOCK_EX)
        if is_free(users):
            break
        fcntl.flock(start, fcntl.LOCK_UN)
    stop_server(folder, server, uid, gid)
    # Before start.lock is freed by our end: the next start must see that it needs a keeper.
    os.close(keeper)


def is_free(fd: int) -> bool:
    """Return whether nobody else holds this lock; if so it is held from now on."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def stop_server(folder: str, server: int, uid: int, gid: int) -> None:
    """Ask for a fast shutdown; after a minute for an immediate one, which crash recovery makes good."""
    for signal_number, seconds in ((signal.SIGINT, FAST_SECONDS), (signal.SIGQUIT, IMMEDIATE_SECONDS)):
        deadline = time.monotonic() + seconds
        asked = 0
        while not is_free(server) and time.monotonic() < deadline:
            pid = postmaster(folder)
            if pid not in (0, asked):
                send(signal_number, pid, uid, gid)
                asked = pid
            time.sleep(0.02)


def postmaster(folder: str) -> int:
    """Return the server's process id, or 0 while it has not written it."""
    try:
        with open(os.path.join(folder, "data", "postmaster.pid"), encoding="utf-8") as lines:
            return int(lines.readline())
    except (OSError, ValueError):
        return 0


def send(signal_number: int, pid: int, uid: int, gid: int) -> None:
    """Send a signal as the server's account, so that root never signals what a file of others names."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.kill(pid, signal_number)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
