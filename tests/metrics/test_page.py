"""``docs/operating/metrics.md`` has every metric, as the code has it."""

from __future__ import annotations

from docs.pages import ROOT
from simpleworkflow.metrics.names import NAMES

PAGE = ROOT / "docs/operating/metrics.md"


def test_the_page_has_the_table_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert [row for row in _rows() if row not in text.splitlines()] == []
    assert text.count("\n| `simpleworkflow_") == len(NAMES)


def test_names_follow_the_conventions_of_prometheus() -> None:
    wrong = [
        name
        for name, metric in NAMES.items()
        if name.endswith("_total") != (metric.kind == "counter") or not name.startswith("simpleworkflow_")
    ]

    assert wrong == []


def _rows() -> list[str]:
    return [
        f"| `{name}` | {metric.kind} | {' '.join(f'`{label}`' for label in metric.labels)} |"
        f" {', '.join(sorted(metric.where, reverse=True))} | {metric.meaning} |"
        for name, metric in NAMES.items()
    ]


if __name__ == "__main__":  # prints the table, for who changes it
    print("\n".join(_rows()))
