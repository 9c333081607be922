"""Whether we stay as fast when work grows: each scenario gives ratios, beside the targets of issue 4.

    make bench-growth                               all but `steady`, at full size
    make bench-growth QUICK=1                       small sizes, two minutes
    make bench-growth ARGS="--only pending,types"   some of them
    make bench-growth ARGS="--only steady"          ten minutes at 70 % of the peak

Both figures of a ratio are measured in turns on one fully durable server.  A server named with --database-url needs
a superuser: DATABASE_SUPERUSER_URL, if that URL is not one's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg

from scenarios import GROUPS, LONG, SCENARIOS
from scenarios.figures import HEAD, line
from scenarios.ground import Ground, NotMeasured, ground
from scenarios.loads import value
from scenarios.sizes import Sizes
from simpleworkflow import WorkflowError

FAILURES = (NotMeasured, SystemExit, WorkflowError, psycopg.Error, OSError, subprocess.SubprocessError)


def main() -> int:
    """Measure and print one table; return 1 if something could not be measured."""
    parser = _parser()
    options = parser.parse_args()
    try:
        sizes = Sizes.read(vars(options), is_quick=options.quick)
        names = _chosen(options.only)
        if options.json and not options.json.parent.is_dir():
            raise ValueError(f"--json: there is no folder {str(options.json.parent)!r}")
    except ValueError as error:
        parser.error(str(error))
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # workers, server and databases are ended as well
    not_measured: dict[str, str] = {}
    documents: list[dict[str, Any]] = []
    try:
        with ground(sizes, options.database_url) as here:
            print(f"{_server(here)}, {os.cpu_count()} cores\n\n{HEAD}", flush=True)
            for name in names:
                documents += _measured(name, here, not_measured)
    except FAILURES as error:
        print(f"growth: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("growth: interrupted; what was measured until then stands above", file=sys.stderr)
        return 130
    finally:
        if options.json:
            _write(options.json, asdict(sizes), documents, not_measured)
    return 1 if not_measured else 0


def _measured(name: str, here: Ground, not_measured: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the figures of one scenario, printed as they come; what cannot be measured is said."""
    try:
        for figure in SCENARIOS[name](here):
            print(line(name, figure), flush=True)
            yield figure.document(name)
    except FAILURES as error:
        not_measured[name] = _one_line(error)
        print(f"{name:<11} not measured: {not_measured[name]}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join([*SCENARIOS, *GROUPS])}, with commas")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures for programs there")
    parser.add_argument("--database-url", help="default: an embedded server of its own, fully durable")
    Sizes.add_options(parser)
    return parser


def _chosen(only: str | None) -> list[str]:
    """Return the scenarios that were named, without a name all but the long ones.

    Raises:
        ValueError: there is no such scenario.
    """
    if only is None:
        return [name for name in SCENARIOS if name not in LONG]
    names = [name for word in only.split(",") for name in GROUPS.get(word.strip(), [word.strip()])]
    for name in names:
        if name not in SCENARIOS:
            raise ValueError(f"--only: expected {', '.join([*SCENARIOS, *GROUPS])}, got {name!r}")
    return names


def _server(here: Ground) -> str:
    """Return which server this is, and how durable."""
    with psycopg.connect(here.url) as conn:
        settings = [f"{name} {value(conn, f'show {name}')}" for name in ("fsync", "synchronous_commit")]
        return f"PostgreSQL {value(conn, 'show server_version')}, {', '.join(settings)}"


def _one_line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split("\n", 1)[0].split())


def _write(path: Path, sizes: dict[str, Any], figures: list[dict[str, Any]], missing: dict[str, str]) -> None:
    document = {"cores": os.cpu_count(), "sizes": sizes, "figures": figures, "not_measured": missing}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
