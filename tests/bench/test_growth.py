"""The growth benchmark measures: every scenario, at sizes so small that its figures mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from house.sources import ROOT

if TYPE_CHECKING:
    from conftest import Server

SECONDS_MAX = 120
SMALL = {
    "rounds": 1,
    "runs": 200,
    "others": 300,
    "finished": 300,
    "flow": 500,
    "memory-runs": 200,
    "warm-up-runs": 200,
    "submit-runs": 300,
    "idle-seconds": 1,
    "settle-seconds": 0.1,
    "producer-seconds": 1,
    "backlog": 500,
    "minutes": 0.05,
    "beside": 1,
    "beside-seconds": 0.1,
}
SCENARIOS = {
    "pending": ["300 pending of another prefix ÷ empty"],
    "tomorrow": ["300 of better priority due tomorrow ÷ empty"],
    "types20": ["20 types ÷ one type"],
    "priorities": ["1,000 priorities of one type ÷ one priority"],
    "snapshot": [
        "snapshot held, worker, 500 runs, last tenth ÷ first",
        "snapshot held, bare functions, 500 runs, last tenth ÷ first",
    ],
    "finished": ["300 finished ÷ empty", "wf run list", "wf run show"],
    "operate": [
        "drain beside 5 open dashboards ÷ alone",
        "GET /runs/PENDING/why, p95",
        "from a commit to the stream's event, p95",
    ],
    "idle": ["ten idle workers"],
    "memory": ["worker's growth over 200 runs", "peak above the start, 300 in one submit_many"],
    "producers": [
        "8 producers, workers busy ÷ without wake-up",
        "32 producers, workers busy ÷ without wake-up",
    ],
    "handlers": ["sync ÷ async", "cpu=True ÷ async"],
    "steady": ["last tenth ÷ second of 0.05 minutes"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_gives_its_figures(server: Server, tmp_path: Path, name: str) -> None:
    ended = growth(server, "--only", name, "--json", str(tmp_path / "figures.json"))

    measured = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert (ended.returncode, measured["not_measured"]) == (0, {}), ended.stderr
    figures = {one["name"]: one for one in measured["figures"]}
    assert [name for name in SCENARIOS[name] if not figures[name]["values"]] == []
    assert {one["scenario"] for one in measured["figures"]} == {name}
    assert SCENARIOS[name][0] in ended.stdout


def test_a_scenario_that_does_not_exist_is_one_line_that_names_those_that_do(server: Server) -> None:
    ended = growth(server, "--only", "pending,nothing")

    said = ended.stderr.splitlines()[-1]
    named = said.partition("expected ")[2].partition(", got 'nothing'")[0]
    assert ended.returncode == 2
    # 200 types are 20 types, and `types` is both.
    assert set(named.split(", ")) == {*SCENARIOS, "types200", "types"}


def growth(server: Server, *options: str) -> subprocess.CompletedProcess[str]:
    if server.superuser_url is None:
        pytest.skip("needs a superuser: DATABASE_URL names none; set DATABASE_SUPERUSER_URL")
    sizes = [word for name, size in SMALL.items() for word in (f"--{name}", str(size))]
    return subprocess.run(
        [sys.executable, str(ROOT / "bench/growth.py"), "--database-url", server.url, *sizes, *options],
        env=os.environ | {"DATABASE_SUPERUSER_URL": server.superuser_url},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
