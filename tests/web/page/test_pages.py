"""Every page: at both widths, in both themes, with the worst rows that the tables can hold."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from builders import Database, a_held_run, cancel, finish, progress, retry, submit
from house.sources import ROOT
from web.page.conftest import serving

expect.set_options(timeout=20_000)
Open = Callable[..., Page]
PAGES = ["", "runs", "types", "workers", "schedules", "operations", "health"]
STATIC = ROOT / "src/simpleworkflow/web/static"

SCRIPTS = [
    "<script>window.__ran = 1</script>",
    "<img src=x onerror='window.__ran = 1'>",
    '"><svg onload=window.__ran=1>',
    "javascript:window.__ran=1",
    "{{constructor.constructor('window.__ran=1')()}}",
]
HOSTILE = [
    *SCRIPTS,
    "w" * 3000,
    "\u202eright to left\u202c \u2066 שלום עולם مرحبا",
    "\\u0000 \x01\x1b[31m \x7f",
    "Z\u0351\u036b\u0343" * 200,
    "👩‍👩‍👧‍👦" * 100,
    "line\n" * 500,
]


@pytest.fixture(scope="module")
def hostile(database: Database) -> list[str]:
    """Runs whose every text is as bad as the tables allow."""
    runs = []
    for index, text in enumerate(HOSTILE):
        type_ = f"hostile-{index}{'-a' * 90 if index == 5 else ''}.v1"
        nested: object = text
        for _ in range(40):
            nested = [nested]
        payload = {text: text, "deep": nested, "__proto__": text, "n": 10**300, "password": text}
        held = a_held_run(
            database,
            type=type_,
            payload=payload,
            worker=short(text, 390),
            idempotency_key=f"{index}{short(text, 390)}",
        )
        progress(database, held, {"percent": 10**30, "message": text[:900]})
        if index % 3 == 0:
            finish(database, held, result={text: [text]})
        elif index % 3 == 1:
            retry(database, held, error=text)
            cancel(database, held.id, reason=text[:1000])
        else:
            finish(database, held, status="failed", error=text)
        runs.append(held.id)
    submit(database, "hostile-plain", payload=None)
    return runs


def short(text: str, size: int) -> str:
    """Return the beginning of a text, of at most so many bytes."""
    return text.encode()[:size].decode(errors="ignore")


def fits(page: Page, width: int) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth") <= width)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_hostile_row_breaks_a_list(open_page: Open, hostile: list[str], width: int, scheme: str) -> None:
    page = open_page("runs?pattern=hostile-%25", width=width, scheme=scheme)
    root = page.url.split("/runs")[0]
    expect(page.locator("tbody tr")).to_have_count(len(HOSTILE) + 1)
    assert fits(page, width)
    for path in PAGES:
        page.goto(f"{root}/{path}")
        expect(page.locator("main h1")).to_be_visible()
        expect(page.locator(".loading")).to_have_count(0)
        assert fits(page, width), path


def test_no_hostile_row_breaks_its_own_page(open_page: Open, hostile: list[str]) -> None:
    page = open_page(f"runs/{hostile[0]}")
    root = page.url.split("/runs")[0]
    for run_id in hostile:
        page.goto(f"{root}/runs/{run_id}")
        expect(page.locator(".events li").first).to_be_visible()
        page.evaluate("document.querySelectorAll('summary').forEach((one) => one.click())")
        page.evaluate(
            "document.querySelectorAll('.json-tools [aria-pressed=false]').forEach((one) => one.click())"
        )
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert fits(page, width), run_id
        assert page.evaluate("window.__violations") == []
        assert page.evaluate("window.__ran") is None


def test_a_page_says_what_it_is_and_has_one_heading(open_page: Open, address: str) -> None:
    page = open_page()
    for path in PAGES:
        page.goto(f"{address}/{path}")
        expect(page.locator("h1")).to_have_count(1)
        expect(page.locator("main .says").first).not_to_be_empty()
        expect(page.locator("nav [aria-current=page]")).to_have_count(1)


def test_the_theme_follows_the_system_until_one_is_chosen(open_page: Open) -> None:
    page = open_page(scheme="dark")
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")

    page.get_by_role("button", name="colours").click()
    expect(root).to_have_attribute("data-theme", "light")
    page.reload()

    expect(root).to_have_attribute("data-theme", "light")


def test_every_page_is_reached_on_a_phone(open_page: Open) -> None:
    page = open_page(width=390)

    for name in ("Runs", "Types", "Workers"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator("h1")).to_have_text(name)
    for name in ("Schedules", "Operations", "Health"):
        page.get_by_role("button", name="More").click()
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator("h1")).to_have_text(name)


def test_a_server_that_goes_away_is_said_and_its_return_is_seen(open_page: Open, url: str) -> None:
    with serving(url) as address:
        port = int(address.rsplit(":", 1)[1])
        page = open_page("runs", at=address)
        expect(page.locator(".live")).to_contain_text("live")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(page.locator(".live")).to_contain_text("disconnected")

    with serving(url, port):
        expect(page.locator(".live")).to_contain_text("live")
        expect(page.get_by_role("alert")).to_have_count(0)


def test_nothing_is_loaded_from_elsewhere(open_page: Open, address: str) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.reload()
    page.wait_for_selector("main h1")

    assert [one for one in asked if not one.startswith(address)] == []
    assert "http" not in "".join(
        line for line in (STATIC / "index.html").read_text(encoding="utf-8").splitlines() if "src" in line
    )


def test_the_bundle_is_what_the_sources_build_to(tmp_path: Path) -> None:
    if shutil.which("node") is None or not (ROOT / "dashboard/node_modules").is_dir():
        pytest.skip("needs Node and its packages: make dashboard")

    subprocess.run(["node", "build.mjs", tmp_path], cwd=ROOT / "dashboard", check=True, timeout=60)

    committed = {path.name: path.read_bytes() for path in STATIC.iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == committed
