"""``deploy/``: what it names exists, and the tools that will read it accept it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from docs.pages import ROOT
from simpleworkflow.cli.program import program
from simpleworkflow.metrics.names import NAMES

DEPLOY = ROOT / "deploy"
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
RUNBOOK = ROOT / "docs/operating/runbook"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
CHART = DEPLOY / "helm/simpleworkflow"
COMPOSE = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana/simpleworkflow.json").read_text(encoding="utf-8"))
# What Prometheus itself knows.
LABELS_OF_ALL = {"instance", "job", "le"}


def a_tool(name: str) -> str:
    """Return where a tool is; `.ci/run` puts those that are not the system's into ``.tools``."""
    found = shutil.which(name, path=f"{ROOT / '.tools/bin'}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not here")
    return found


def accepted(*command: str, **options: Any) -> str:
    """Run a tool; return what it says, and fail where it refuses."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def unknown_in(expression: str) -> set[str]:
    """Return the metrics of ours, and their labels, that an expression names and nobody exports."""
    wrong = set()
    for name, selected in re.findall(r"(simpleworkflow_\w+)(?:\{([^}]*)\})?", expression):
        metric = NAMES.get(name) or NAMES.get(re.sub(r"_(bucket|sum|count)$", "", name))
        is_part = name not in NAMES
        if metric is None or is_part != (metric.kind == "histogram"):
            wrong.add(name)
        else:
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected))
            wrong |= {f"{name}{{{label}}}" for label in labels - set(metric.labels) - LABELS_OF_ALL}
    return wrong


# ── Prometheus and Grafana ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_names_what_is_exported_and_has_its_page(alert: dict[str, Any]) -> None:
    page = ROOT / alert["annotations"]["runbook"]
    text = page.read_text(encoding="utf-8")

    assert unknown_in(alert["expr"]) == set()
    assert page.parent == RUNBOOK
    assert (
        f"`{alert['alert']}` ({alert['labels']['severity']}): `{alert['expr']}`, for {alert['for']}." in text
    )
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What it means", "What to look at", "What to do"]
    assert f"runbook/{page.name}" in (RUNBOOK.parent / "runbook.md").read_text(encoding="utf-8")


def test_every_page_of_the_runbook_has_its_alert() -> None:
    assert {page.name for page in RUNBOOK.glob("*.md")} == {
        Path(alert["annotations"]["runbook"]).name for alert in ALERTS
    }


def test_promtool_accepts_the_rules_and_the_configuration(tmp_path: Path) -> None:
    promtool = a_tool("promtool")

    assert f"{len(ALERTS)} rules found" in accepted(
        promtool, "check", "rules", str(DEPLOY / "prometheus/alerts.yml")
    )
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(DEPLOY / "prometheus" / name, tmp_path)
    (tmp_path / "server.key").write_text("wf_a_key", encoding="utf-8")  # which the user makes
    accepted(promtool, "check", "config", str(tmp_path / "prometheus.yml"))


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    promtool = a_tool("promtool")
    for name in ("alerts.yml",):
        shutil.copy(DEPLOY / "prometheus" / name, tmp_path)
    shutil.copy(Path(__file__).with_name("alerts_test.yml"), tmp_path)

    accepted(promtool, "test", "rules", "alerts_test.yml", cwd=tmp_path)


def test_the_dashboard_names_what_is_exported_in_panels_that_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    expressions += [
        one["query"]["query"] for one in DASHBOARD["templating"]["list"] if isinstance(one["query"], dict)
    ]

    assert {wrong for expression in expressions for wrong in unknown_in(expression)} == set()
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [
        (one["title"], other["title"])
        for one, other in combinations(panels, 2)
        if _overlap(one["gridPos"], other["gridPos"])
    ] == []


def test_promtool_accepts_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    promtool = a_tool("promtool")
    rules = [
        {
            "record": f"panel:{number}",
            "expr": target["expr"].replace("$__rate_interval", "5m").replace("$type", ".*"),
        }
        for number, target in enumerate(
            target for panel in DASHBOARD["panels"] for target in panel["targets"]
        )
    ]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))

    accepted(promtool, "check", "rules", str(tmp_path / "panels.yml"))


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


# ── processes ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = a_tool("systemd-analyze")
    wf = Path(sys.executable).with_name("wf")  # the one of the unit is on the reader's machine
    copied = tmp_path / unit.name
    copied.write_text(unit.read_text(encoding="utf-8").replace("/srv/shop/.venv/bin/wf", str(wf)))

    said = accepted(analyze, "verify", str(copied))

    assert unit.name not in said, said


def test_every_command_of_deploy_exists_with_its_options() -> None:
    commands = list(_commands())

    assert {command[0] for command in commands} >= {"worker", "migrate"}
    assert [problem for command in commands for problem in _problems(command)] == []


def test_containers_run_as_nobody_special_and_hear_sigterm_themselves() -> None:
    lines = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8").splitlines()
    last_stage = lines[[n for n, line in enumerate(lines) if line.startswith("FROM")][-1] :]

    assert [line for line in last_stage if line.startswith("USER")] == ["USER 10001"]
    assert 'ENTRYPOINT ["wf"]' in last_stage
    for name, service in COMPOSE["services"].items():
        assert "secret" not in json.dumps(service), name
    assert COMPOSE["services"]["worker"]["stop_grace_period"] == "40s"


def test_compose_migrates_before_anything_works() -> None:
    services = COMPOSE["services"]

    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name in ("worker", "server"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("values", [[], ["server.enabled=false", "migrate.enabled=false"]])
def test_helm_accepts_the_chart(values: list[str]) -> None:
    helm = a_tool("helm")
    options = [word for value in values for word in ("--set", value)]

    accepted(helm, "lint", "--strict", str(CHART), *options)
    objects = [
        one for one in yaml.safe_load_all(accepted(helm, "template", "shop", str(CHART), *options)) if one
    ]

    kinds = sorted(one["kind"] for one in objects)
    assert kinds == (["Deployment"] if values else ["Deployment", "Deployment", "Job", "Service"])
    worker = next(one for one in objects if one["metadata"]["name"] == "shop-worker")["spec"]["template"][
        "spec"
    ]
    assert worker["securityContext"]["runAsNonRoot"] is True
    assert worker["terminationGracePeriodSeconds"] > 35
    assert not _problems([str(word) for word in worker["containers"][0]["args"]])


def _commands() -> Iterator[list[str]]:
    for unit in UNITS:
        for line in re.findall(r"^ExecStart=\S+/wf (.+)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
            yield shlex.split(line)
    for service in COMPOSE["services"].values():
        if "command" in service:
            yield service["command"]
    for template in ("worker.yaml", "server.yaml"):
        text = re.sub(r"\{\{[^}]*\}\}", "1", (CHART / "templates" / template).read_text(encoding="utf-8"))
        yield ["worker" if "worker" in template else "server", *re.findall(r"(--[a-z-]+)=", text)]


def _problems(command: list[str]) -> list[str]:
    found = program.get_command(click.Context(program), command[0])
    if (
        found is None
    ):  # `wf server` comes with the extra's package; where it is there, its options are looked at
        return [] if command[0] == "server" else [f"wf {command[0]}"]
    known = {opt for param in found.params for opt in param.opts}
    options = [word.partition("=")[0] for word in command[1:] if word.startswith("--")]
    return [f"wf {command[0]} {option}" for option in options if option not in known]
