"""The examples print what their README says, and its lines work as typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.programs import WF, Spoken
from simpleworkflow import Client

ROOT = Path(__file__).parents[2]
README = (ROOT / "examples" / "README.md").read_text()


def section(name: str) -> str:
    """Return what the README says about one example."""
    return re.split(r"^## ", README.partition(f"## {name}\n")[2], flags=re.MULTILINE)[0]


def typed_lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f'wf psql -c "{word}')]


def promised_output(text: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [line for language, block in blocks if not language for line in block.splitlines()]


def type_in(line: str, environment: dict[str, str]) -> None:
    path = f"{Path(WF).parent}{os.pathsep}{environment['PATH']}"
    subprocess.run(["/bin/sh", "-c", line], env=environment | {"PATH": path}, capture_output=True, check=True)


@pytest.mark.parametrize("name", ["basic_worker.py", "billing_worker.py", "notification_worker.py"])
def test_an_example_prints_what_its_readme_promises(name, environment, database_url):
    environment |= {"DATABASE_URL": database_url}
    command = [sys.executable, f"examples/python/{name}"]
    with Client(database_url=database_url) as client, Spoken(command, environment, cwd=ROOT) as worker:
        worker.wait_for("Starting")
        for line in typed_lines(section(name), "INSERT"):
            type_in(line, environment)
            assert client.wait(client.list(limit=1).runs[0].id, timeout=30).status == "succeeded"
        code = worker.end(signal.SIGTERM)

    assert worker.lines == promised_output(section(name))
    assert code == 0


def test_the_video_example_can_be_cancelled_in_the_middle(environment, database_url):
    environment |= {"DATABASE_URL": database_url}
    text = section("video_processor.py")
    complete, slow = typed_lines(text, "INSERT")
    (cancel,) = typed_lines(text, "UPDATE")

    with Spoken([sys.executable, "examples/python/video_processor.py"], environment, cwd=ROOT) as worker:
        type_in(complete.replace("]}", '], \\"seconds\\": 0.05}'), environment)
        worker.wait_for("Video processing completed for vid123")
        type_in(slow.replace("10}", "2}"), environment)
        worker.wait_for("Transcoding video vid456...")
        type_in(cancel, environment)
        worker.wait_for("Video processing cancelled for vid456")
        worker.end(signal.SIGTERM)

    assert worker.lines == promised_output(text)
