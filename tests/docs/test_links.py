"""The pages of the documentation lead to one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.pages import PAGES, ROOT, anchors, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs/index.md"
    reached: set[Path] = set()
    left = [index]
    while left:
        page = left.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            left += [
                (page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link
            ]

    assert set((ROOT / "docs").rglob("*.md")) - reached == set()
