"""The commands of the documentation exist, with the options shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs.pages import PAGES, ROOT, blocks, inline_code, name_of
from simpleworkflow.cli.program import program

_ROOT_CONTEXT = click.Context(program)
_ENDS = {"|", "||", "&&", ">", ">>", "&", ";", "#"}
_MADE = {
    match[1]
    for match in re.finditer(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_exists_with_the_options_shown(page: Path) -> None:
    problems = [
        f"{' '.join(words)}: {problem}"
        for words in _commands(page)
        if (problem := _problem(words[0], words[1:]))
    ]

    assert problems == []


def test_the_reference_of_commands_leaves_none_out() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")

    missing = [
        f"{name} {option}"
        for name, command in _all_commands("wf", program)
        for option in ["", *(opt for param in command.params for opt in param.opts if opt.startswith("--"))]
        if f"`{name}`" not in text or option not in _section(text, name)
    ]

    assert missing == []


def _commands(page: Path) -> Iterator[list[str]]:
    lines = [
        line[2:] for block in blocks(page, "console") for line in block.text.splitlines() if line[:2] == "$ "
    ]
    lines += [line for block in blocks(page, "sh") for line in block.text.splitlines()]
    for line in [*lines, *inline_code(page)]:
        for words in _split(line):
            if words[0] in ("wf", "make"):
                yield words


def _split(line: str) -> Iterator[list[str]]:
    try:
        words = shlex.split(line.replace("\\|", "|"), comments=True)
    except ValueError:
        return
    command: list[str] = []
    for word in [*words, ";"]:
        if word in _ENDS:
            if command:
                yield command
            command = []
        elif command or not re.fullmatch(r"[A-Z_]+=.*", word):
            command.append(word)


def _problem(name: str, words: list[str]) -> str | None:
    if name == "make":
        targets = [word for word in words if "=" not in word]
        return next((f"no target {word}" for word in targets if word not in _MADE), None)
    command: click.Command = program
    names: set[str] = {"--help"}
    while True:
        names |= {opt for param in command.params for opt in (*param.opts, *param.secondary_opts)}
        if not isinstance(command, click.Group):
            break
        words = words[next((i for i, word in enumerate(words) if word[:1] != "-"), len(words)) :]
        if not words or words[0] in ("…", "..."):
            return None
        alternatives = [command.get_command(_ROOT_CONTEXT, one) for one in words[0].split("|")]
        if None in alternatives:
            return f"no command {words[0]}"
        command, words = alternatives[0] or command, words[1:]
    if command.context_settings.get("ignore_unknown_options"):
        return None
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((f"no option {option}" for option in options if option not in names), None)


def _all_commands(path: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(_ROOT_CONTEXT):
        command = group.get_command(_ROOT_CONTEXT, name)
        if isinstance(command, click.Group):
            yield from _all_commands(f"{path} {name}", command)
        elif command is not None:
            yield f"{path} {name}", command


def _section(text: str, name: str) -> str:
    """Return the part of the page under the heading that names this command."""
    found = re.search(rf"^## .*`{re.escape(name)}`.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return (found[0] if found else "") + "--database-url"  # of every command; said once
