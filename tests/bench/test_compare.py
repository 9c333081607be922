"""The benchmark runs: ours and the floor at a few hundred runs.  What it finds is for no test to judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Server

ROOT = Path(__file__).resolve().parents[2]
MEASURED = {"submit", "bulk", "drain_one", "drain_two", "wal", "memory_first", "memory_second"}


def test_the_benchmark_measures_ours_and_the_floor_and_writes_its_page(
    server: Server, tmp_path: Path
) -> None:
    if server.superuser_url is None:
        pytest.skip("needs a role that may create databases: set DATABASE_SUPERUSER_URL")
    figures, page = tmp_path / "bench.json", tmp_path / "benchmark.md"

    ended = _compare(
        *("--quick", "--only", "ours,floor", "--runs", "300", "--json", str(figures)),
        *("--markdown", str(page), "--database-url", server.superuser_url),
    )

    assert ended.returncode == 0, ended.stderr
    result = json.loads(figures.read_text())
    assert result["not_measured"] == {}
    assert {*result["systems"]["floor"]["figures"]} >= MEASURED
    assert {*result["systems"]["ours"]["figures"]} >= MEASURED | {"latency_p50", "latency_p99"}
    assert "| SQL floor, 2 connections |" in page.read_text()
    assert page.with_suffix(".svg").read_text().startswith("<svg ")
    assert server.superuser_url not in figures.read_text() + page.read_text()


def test_an_unknown_system_is_refused_in_one_line() -> None:
    ended = _compare("--only", "nobody")

    assert ended.returncode == 1
    assert ended.stderr.startswith("bench: expected names of ours, ours-batch, floor")
    assert ended.stderr.count("\n") == 1


def _compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "compare.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
