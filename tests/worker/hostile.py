"""Handlers that do to their process what no handler should; only their first attempt does."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from apps import ENVIRONMENT, note, worker

from simpleworkflow import LeaseLost


def fork_and_return(run: Any) -> None:
    if os.fork() == 0:
        note("fork", run)


def fork_and_speak(run: Any) -> None:
    if os.fork() == 0:
        try:
            run.heartbeat(30)
        except RuntimeError as error:
            note("fork-refused:" + str(error).replace(" ", "_"), run)
        return
    os.wait()


def fork_and_stay(run: Any) -> None:
    if os.fork() == 0:
        note("fork", run)
        time.sleep(3)
        os._exit(0)


def close_descriptors(run: Any) -> None:
    os.closerange(3, 1024)


def close_output(run: Any) -> None:
    os.close(1)
    os.close(2)


def change_place(run: Any) -> None:
    os.chdir("/")
    os.umask(0o777)


def ignore_signals(run: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def exhaust_memory(run: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def exhaust_descriptors(run: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        while True:
            os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def recur(run: Any) -> None:
    recur(run)


def overflow_the_stack(run: Any) -> None:
    ctypes.string_at(1)


def abort(run: Any) -> None:
    os.abort()


def begin_a_message() -> None:
    """Write half a message to the worker, on the only socket of a handler's own process."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    (channel,) = [link for link in links if os.path.exists(link) and "socket:" in os.readlink(link)]
    os.write(int(channel.rpartition("/")[2]), (1 << 20).to_bytes(4, "big") + b"half")


def die_amid_a_message(run: Any) -> None:
    begin_a_message()
    if os.fork() == 0:  # holds the channel open
        time.sleep(15)
        os._exit(0)
    os.abort()


def stop_amid_a_message(run: Any) -> None:
    begin_a_message()
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_the_loop(run: Any) -> None:
    asyncio.get_running_loop().stop()


def cancel_everybody(run: Any) -> None:
    for one in asyncio.all_tasks():
        one.cancel()


def start_threads(run: Any) -> None:
    for _ in range(50):
        threading.Thread(target=time.sleep, args=(1,)).start()
    raise SystemExit("and leaves them")


def leave_a_thread(run: Any) -> None:
    def speak() -> None:
        try:
            while True:
                run.heartbeat(5)
                run.progress(1)
        except LeaseLost:
            note("left-thread-refused", run)

    threading.Thread(target=speak).start()


def compute(run: Any) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        pass


def talk(run: Any) -> None:
    for percent in range(100):
        run.progress(percent)
        assert run.heartbeat(5) is True


DEEDS = {
    deed.__name__: deed
    for deed in (
        *(fork_and_return, fork_and_speak, fork_and_stay, close_descriptors, close_output, change_place),
        *(ignore_signals, exhaust_memory, exhaust_descriptors, recur, overflow_the_stack, abort),
        *(die_amid_a_message, stop_amid_a_message),
        *(stop_the_loop, cancel_everybody, start_threads, leave_a_thread),
        *(talk, compute),
    )
}


def misbehave(run: Any) -> int:
    note("hostile", run)
    if run.attempt == 1:
        DEEDS[run.payload](run)
    return run.attempt


async def misbehave_on_the_loop(run: Any) -> int:
    note("hostile", run)
    if run.attempt == 1:
        DEEDS[run.payload](run)
        await asyncio.sleep(0.01)  # back to the loop, whoever we are now
    return run.attempt


worker.register("hostile.thread.v1", misbehave, backoff=0.0)
worker.register("hostile.cpu.v1", misbehave, backoff=0.0, cpu=True)
worker.register("hostile.async.v1", misbehave_on_the_loop, backoff=0.0)


@worker.handler("hostile.wait.v1", backoff=0)
async def wait_long(run: Any) -> None:
    await run.heartbeat(run.payload)
    note("lengthened", run)
    await asyncio.sleep(60)


@worker.handler("hostile.hang.v1", timeout_seconds=0.1, max_attempts=1)
def hang(run: Any) -> None:
    note("hang", run)
    time.sleep(60)


if ENVIRONMENT.get("WITHOUT_PIDFD"):  # as on a system that has none
    del os.pidfd_open

if ENVIRONMENT.get("HANG_ONCE"):
    hung = Path(ENVIRONMENT["HANG_ONCE"])
    if not hung.exists():
        hung.touch()
        note("hangs")
        time.sleep(60)

if ENVIRONMENT.get("ONLY_ONCE"):  # a module that cannot be there in two processes at a time
    once = socket.socket(socket.AF_UNIX)
    once.bind("\0" + ENVIRONMENT["ONLY_ONCE"])
