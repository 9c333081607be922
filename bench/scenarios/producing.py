"""Whether waking workers costs their producers anything while workers are busy."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from scenarios.figures import Figure, Target, in_turns, ratio
from scenarios.ground import Ground, NotMeasured, Place
from scenarios.loads import NOOP, value
from simpleworkflow import embedded
from stage import SCHEMA, TYPE

LEAST = Target(least=0.85)
PRODUCERS = (8, 32)
SPARE_SECONDS = 60
INSERT = f"insert into {SCHEMA}.workflow_run (type, payload) values ('{TYPE}', '{{}}');\n"
WAKE = f"{SCHEMA}.wake(text[])"


def producers(ground: Ground) -> Iterator[Figure]:
    """One INSERT per commit from 8 and 32 sessions, ÷ the same where the function that wakes workers does nothing."""
    program = _pgbench()
    with ground.place() as place, tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(INSERT)
        script.flush()
        original = value(place.conn, "select pg_get_functiondef(%s::regprocedure)", WAKE)
        without = re.sub(r"(?s)\$(\w*)\$.*\$\1\$", "$$begin end$$", original)
        left: list[float] = []

        def measure(count: int, wake: str) -> float:
            # Filled with wake-ups in both cases: else a worker that had emptied the last backlog would find this one by
            # polling, seconds later, and leave its part of the machine to the producers until then.
            place.conn.execute(original.encode())
            _fill(place)
            place.conn.execute(wake.encode())
            inserts = _inserts(program, place.url, script.name, count, ground.sizes.producer_seconds)
            left.append(_backlog(place))
            return inserts

        for count in PRODUCERS:
            cases = {
                "with": lambda n=count: measure(n, original),
                "without": lambda n=count: measure(n, without),
            }
            values = in_turns(ground.sizes.rounds, cases)
            yield ratio(
                f"{count} producers, workers busy ÷ without wake-up", values["with"], values["without"], LEAST
            )
            yield Figure(f"{count} producers", "inserts/s", values["with"])
            yield Figure(f"{count} producers without wake-up", "inserts/s", values["without"])
    yield Figure("backlog left each time (0: the worker was not busy)", "runs", left)


def _fill(place: Place) -> None:
    """Bring the backlog to its size, so that the worker stays busy."""
    missing = place.ground.sizes.backlog - _backlog(place)
    place.ground.checkpoint()
    if missing > 0:
        NOOP.submit(place.conn, missing)


def _backlog(place: Place) -> int:
    claimable = "status = 'pending' and deleted_at is null and not is_suspect"
    return int(value(place.conn, f"select count(*) from {SCHEMA}.workflow_run where {claimable}"))


def _inserts(program: str, url: str, script: str, count: int, seconds: float) -> float:
    command = [program, "--no-vacuum", "--protocol=prepared", f"--client={count}", "--jobs=2"]
    ended = subprocess.run(
        [*command, f"--time={max(1, round(seconds))}", f"--file={script}", url],
        capture_output=True,
        text=True,
        timeout=seconds + SPARE_SECONDS,
        check=False,
    )
    found = re.search(r"tps = ([0-9.]+)", ended.stdout)
    if ended.returncode != 0 or found is None:
        raise NotMeasured(f"pgbench: {(ended.stderr.splitlines() or ['it said nothing'])[-1]}")
    return float(found[1])


def _pgbench() -> str:
    """Return the program that inserts: it costs next to nothing beside the server."""
    beside = embedded.find_binaries() / "pgbench"
    found = str(beside) if beside.exists() else shutil.which("pgbench")
    if found is None:
        raise NotMeasured("there is no pgbench, neither beside the embedded server's programs nor on PATH")
    return found
