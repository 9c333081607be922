"""The programs of a system while they are measured: its producer, its workers, and the starts they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import processes
from systems import NotMeasuredError

ANSWER_SECONDS_MAX = 120
STOP_SECONDS_MAX = 3  # its database is dropped next


class Program:
    """A program of its own process group, whose last words are kept."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self.process = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )

    def signal(self, number: int) -> None:
        """Signal every process that descends from the program, whatever group it has made itself."""
        for pid in processes.tree([self.process.pid]) if self.process.poll() is None else ():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def ask(self, line: str) -> float:
        """Send one line; return the number that the program answers."""
        assert self.process.stdin
        assert self.process.stdout
        late = threading.Timer(ANSWER_SECONDS_MAX, self.signal, [signal.SIGKILL])
        late.start()
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
            return float(self.process.stdout.readline())
        except (ValueError, OSError):
            raise NotMeasuredError(f"{line.split(maxsplit=1)[0]}: {self.last_words()}") from None
        finally:
            late.cancel()

    def run(self) -> None:
        """Wait for the end of a program that ends by itself."""
        try:
            self.process.communicate(timeout=ANSWER_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise NotMeasuredError(f"setup: not within {ANSWER_SECONDS_MAX} s") from None
        if self.process.returncode:
            raise NotMeasuredError(f"setup: {self.last_words()}")

    def last_words(self) -> str:
        """Return the last line that the program wrote to its standard error."""
        self._said.seek(0)
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:200] if lines else "ended without a word"

    def stop(self) -> None:
        """End the program: politely, else at once; and what it may have left of its group."""
        children = processes.tree([self.process.pid]) if self.process.poll() is None else set()
        if children:
            with suppress(ProcessLookupError):
                self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS_MAX)
        for pid in children:
            # A number may be another's by now: only what still stands in the session that was made for it.
            with suppress(ProcessLookupError):
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._said):
            if pipe:
                with suppress(OSError):
                    pipe.close()


class Workers:
    """The workers of one system, held and released together."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self.pids = [one.process.pid for one in programs]

    def hold(self) -> None:
        """Stop their execution where it is."""
        for one in self._programs:
            one.signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let them go on."""
        for one in self._programs:
            one.signal(signal.SIGCONT)

    def check(self) -> None:
        """Raise if one of them has ended."""
        for one in self._programs:
            if one.process.poll() is not None:
                raise NotMeasuredError(f"worker: {one.last_words()}")

    def cpu_seconds(self) -> float:
        """Return the CPU time of all their processes."""
        return processes.cpu_seconds(self.pids)

    def memory_mb(self) -> float:
        """Return the memory of all their processes."""
        return processes.memory_mb(self.pids)

    def stop(self) -> None:
        """End them."""
        self.release()
        for one in self._programs:
            with suppress(ProcessLookupError):
                one.process.terminate()
        for one in self._programs:
            one.stop()


class Starts:
    """The file to which handlers append ``tag seconds pid``."""

    def __init__(self, path: Path) -> None:
        path.touch()
        path.chmod(0o666)
        self.path = path
        self._read = path.open("rb")
        self._rest = b""
        self.pids: set[int] = set()

    def new(self) -> Iterator[tuple[int, float]]:
        """Yield the tags and moments since the last look."""
        *lines, self._rest = (self._rest + self._read.read()).split(b"\n")
        for line in lines:
            tag, seconds, pid = line.split()
            self.pids.add(int(pid))
            yield int(tag), float(seconds)

    def wait_for(self, tag: int, seconds: float) -> float:
        """Return the moment at which the handler of a job started."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for found, moment in self.new():
                if found == tag:
                    return moment
            time.sleep(0.0005)
        raise NotMeasuredError(f"a job into an idle worker did not start within {seconds:.0f} s")

    def close(self) -> None:
        """Close the file."""
        self._read.close()
