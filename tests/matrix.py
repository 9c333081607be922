"""The fault matrix: which fault each test injects, which promise it holds, and what came of it.

A test says it with a mark, one case for each set of its parameters:

    @pytest.mark.fault("Death, pause, leases", "SIGKILL of the process that holds a run", "P7")

and its seed, where chance has a part, with ``record_property("seed", seed)``.  After each, `wf verify` is asked about
its schema.  ``make faults`` runs them all and writes docs/operating/fault-matrix.md.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from builders import ask, connect
from simpleworkflow import statements

SECTIONS = (
    "Death, pause, leases",
    "Shutdown, deploys, migrations",
    "Database and network",
    "Concurrency",
    "Bad input",
    "Security",
)
NOT_COVERED = Path(__file__).parent / "not-covered.md"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "fault(section, case, promise): the fault that is injected, and the promise that it tries"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-matrix", metavar="FILE", help="write what the fault tests showed to FILE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Attach to each fault test what the matrix says of it."""
    for item in items:
        if (mark := item.get_closest_marker("fault")) is not None:
            item.user_properties.append(("fault", case_of(item, *mark.args)))


def case_of(item: pytest.Item, section: str, case: str, promise: str) -> tuple[str, str, str]:
    """Return section, case and promise; the parameters of the test belong to the case."""
    if section not in SECTIONS:
        raise pytest.UsageError(f"{item.nodeid}: expected one of {SECTIONS}, got {section!r}")
    if not re.fullmatch(r"P\d+(, P\d+)*", promise):
        raise pytest.UsageError(f"{item.nodeid}: expected promises as P1, P2, got {promise!r}")
    parameters = re.search(r"\[(.*)\]$", item.name)
    return section, f"{case}: {parameters[1]}" if parameters else case, promise


@pytest.fixture(autouse=True)
def _invariants(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a fault, the tables hold what the promises say."""
    if request.node.get_closest_marker("fault") is None:
        yield
        return
    names = [name for name in ("database_url", "module_url") if name in request.fixturenames]
    urls = [request.getfixturevalue(name) for name in names]
    yield
    for url in urls:
        with connect(url) as db:
            assert ask(db, statements.verify(slack_seconds=60)) == []


# ── the page ───────────────────────────────────────────────────────────────────────────────────────


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the page that ``--fault-matrix`` names."""
    target = config.getoption("--fault-matrix")
    if not target:
        return
    reports = [
        report
        for outcome in ("passed", "failed", "error", "skipped")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
    ]
    Path(target).write_text(page(reports, datetime.datetime.now(datetime.UTC).date()))


def page(reports: Sequence[pytest.TestReport], date: datetime.date) -> str:
    """Return the matrix as Markdown."""
    rows: dict[str, list[str]] = {section: [] for section in SECTIONS}
    results = {"passed": 0, "failed": 0, "skipped": 0}
    for report in sorted(reports, key=lambda report: report.nodeid):
        properties = dict(report.user_properties)
        if "fault" not in properties:
            continue
        section, case, promise = properties["fault"]
        results[report.outcome] += 1
        test = re.sub(r"\[.*", "", report.nodeid.split("::")[-1])
        seed = properties.get("seed", "")
        cells = [case, promise, report.outcome, str(seed), f"`{test}`"]
        rows[section].append("| " + " | ".join(re.sub(r"[|\n]", "/", cell).strip() for cell in cells) + " |")
    counted = ", ".join(f"{number} {result}" for result, number in results.items())
    lines = [
        "# Fault matrix",
        "",
        "Each line is a fault that a test really injects: signals, cut and silent connections, restarts, hostile rows.",
        "After each, the invariants of [`wf verify`](../promises.md) are checked.  `make faults` writes this page;",
        "do not edit it.",
        "",
        f"Last run: {date}. {sum(results.values())} cases: {counted}.",
    ]
    for section, cells_of in rows.items():
        if cells_of:
            lines += ["", f"## {section}", "", "| fault | promise | result | seed | test |"]
            lines += ["|---|---|---|---|---|", *cells_of]
    return "\n".join([*lines, "", NOT_COVERED.read_text().strip()]) + "\n"
