"""The pages of the documentation, and the fenced blocks in them.

The convention: what a page shows is run.

- ```` ```python ```` whose first line is ``# name.py``: a program.  The programs of a page are written into one
  folder; those that define a worker are served by ``wf worker``, the others are run and must end well.
- ```` ```python ````: a piece of the page's session.  The pieces of a page are executed one after the other.
- ```` ```python fragment ````: compiled, not executed.
- ```` ```sql ````: executed by psql, block after block, in a schema of the page's own.  ``<id>`` is a pending run.
- ```` ```sql refused WF001 ````: the same, but it must fail with that SQLSTATE.
- ```` ```sql roles ````: executed by a superuser, with roles of the test's own.
- ```` ```console ````: each line that begins with ``$ wf`` or ``$ make`` names a command that exists, with the
  options shown; so does each line of ```` ```sh ````, and inline code that begins with ``wf`` or ``make``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*.md"),
    ]
)

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_PROGRAM = re.compile(r"# ([a-z_]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it begins, what its fence says, what it holds."""

    page: Path
    line: int
    language: str
    note: str
    text: str

    @property
    def where(self) -> str:
        """Return ``page:line`` of the first line of the text."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def program(self) -> str | None:
        """Return the file name of a program, None for anything else."""
        found = _PROGRAM.match(self.text)
        return found[1] if self.language == "python" and found else None


def name_of(page: Path) -> str:
    """Return how a page is called in the name of a test."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str | None = None) -> Sequence[Block]:
    """Return the fenced blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        info, _, note = match[2].strip().partition(" ")
        indent = match[1]
        body = "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))
        found.append(Block(page, text.count("\n", 0, match.start(3)) + 1, info, note.strip(), body))
    return [block for block in found if language in (None, block.language)]


def pages_with(language: str) -> list[Path]:
    """Return the pages that have a block of this language."""
    return [page for page in PAGES if blocks(page, language)]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    """Return what stands between backticks in the prose of a page."""
    return _INLINE.findall(prose(page))


def links(page: Path) -> list[str]:
    """Return the targets of the links in a page."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
