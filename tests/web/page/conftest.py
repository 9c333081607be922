"""The dashboard in a real browser, against a real ``wf server`` and a real worker on a real database."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders import Database, connect
from conftest import Server, a_schema

pytest.importorskip("simpleworkflow.web.app", reason="needs what `wf server` needs: pip install --group dev")
pytest.importorskip("playwright", reason="the browser tests need Playwright: pip install --group dev")
from playwright.sync_api import Browser, Page, Route, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WF = str(Path(sys.executable).parent / "wf")
WAIT_MILLISECONDS = 20_000

HANDLERS = """
import time
from simpleworkflow import Worker

worker = Worker()

@worker.handler("shop.well.v1")
def well(run):
    return {"ran": True}

@worker.handler("shop.broken.v1", max_attempts=1)
def broken(run):
    raise ValueError("the printer is on fire")

@worker.handler("shop.slow.v1")
def slow(run):
    while not run.is_cancelled():
        time.sleep(0.02)
"""

# What is recorded of each page, before its first script: what the policy refused, and whether foreign script ran.
OBSERVER = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (e) =>
  window.__violations.push(e.violatedDirective + " " + e.sourceFile));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that is gone after the module: Playwright's loop must not outlive it."""
    if CHROMIUM is None:
        pytest.skip("the browser tests need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[str]:
    """The URL of the database that the server of this module shows."""
    with a_schema(server) as url:
        yield url


@pytest.fixture(scope="module")
def database(url: str) -> Iterator[Database]:
    """A connection to it."""
    with connect(url) as conn:
        yield conn


@contextmanager
def serving(url: str, port: int = 0) -> Iterator[str]:
    """Serve the page for as long as the block; yield its address."""
    environment = {**os.environ, "DATABASE_URL": url}
    program = subprocess.Popen(
        [WF, "server", "--port", str(port)], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert program.stderr is not None
        lines = []
        for line in program.stderr:
            lines.append(line)
            if "http://" in line:
                yield line.split()[-1].rstrip("/")
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        program.terminate()
        program.communicate(timeout=20)


@pytest.fixture(scope="module")
def address(url: str) -> Iterator[str]:
    """The address of ``wf server``."""
    with serving(url) as address:
        yield address


@pytest.fixture(scope="module")
def worker(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker that handles ``shop.*``."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(HANDLERS, encoding="utf-8")
    program = subprocess.Popen(
        [WF, "worker", "shop:worker"],
        env={**os.environ, "DATABASE_URL": url},
        cwd=folder,
        stderr=subprocess.DEVNULL,
    )
    yield
    program.terminate()
    program.wait(20)


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Open a page of the dashboard; at the end none of them ran foreign script or broke the policy."""
    opened: list[tuple[Any, Page, list[str]]] = []

    def open_one(path: str = "", *, width: int = 1280, scheme: str = "light", at: str = address) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MILLISECONDS)
        context.add_init_script(OBSERVER)
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        opened.append((context, page, errors))
        page.goto(f"{at}/{path}")
        page.wait_for_selector("main h1")
        return page

    yield open_one
    for context, page, errors in opened:
        assert errors == []
        assert page.evaluate("window.__violations") == []
        assert page.evaluate("window.__ran") is None
        context.close()


def withhold(page: Page, pattern: str) -> list[Route]:
    """Let no request to what matches ``pattern`` be answered; return those that were made, as they come."""
    made: list[Route] = []

    def keep(
        route: Route,
    ) -> None:  # Playwright sets an attribute on its handlers: a bound `append` takes none
        made.append(route)

    page.route(pattern, keep)
    return made
