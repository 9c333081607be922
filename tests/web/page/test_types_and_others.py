"""Now, Types, Workers, Operations, Health: what they tell, and what is put right from them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from builders import Database, a_run, a_type, cancel, status_of, submit

expect.set_options(timeout=20_000)
Open = Callable[..., Page]


@pytest.fixture
def route(address: str) -> Callable[[str], None]:
    """Skip where the server has no such route yet."""
    with urllib.request.urlopen(f"{address}/openapi.json") as answer:
        paths = json.load(answer)["paths"]

    def needs(path: str) -> None:
        if not any(one.endswith(path) for one in paths):
            pytest.skip(f"the server has no route {path} yet")

    return needs


def test_now_says_that_a_type_fails_and_that_nobody_handles_another(
    open_page: Open, database: Database, route: Callable[[str], None]
) -> None:
    route("/stats")
    route("/types")
    failing, forgotten = a_type("failing"), a_type("forgotten")
    a_run(database, type=failing, status="failed")
    submit(database, forgotten)

    page = open_page()

    concerns = page.get_by_role("list", name="what needs you")
    expect(concerns).to_contain_text(f"{failing}: 1 of 1 that ended")
    expect(concerns).to_contain_text(f"{forgotten}: no worker has ever handled it")
    expect(page.locator(".tile", has_text="failing")).to_be_visible()


def test_a_type_is_paused_with_its_reason_and_resumed(
    open_page: Open, database: Database, route: Callable[[str], None]
) -> None:
    route("/types")
    type_ = a_type()
    run_id = submit(database, type_)
    page = open_page("types")

    page.get_by_role("button", name=f"pause {type_}").click()
    page.get_by_label("Reason").fill("the printer is on fire")
    page.get_by_role("button", name="Pause", exact=True).click()
    row = page.locator("tbody tr", has_text=type_)
    expect(row).to_contain_text("paused")
    paused = database.execute(
        "select is_enabled from workflow_registry where workflow_name = %s", [type_]
    ).fetchone()
    assert paused == (False,)
    assert status_of(database, run_id) == "pending"
    row.get_by_role("button", name="resume").click()
    page.get_by_role("button", name="Resume", exact=True).click()

    expect(row).not_to_contain_text("paused")


@pytest.mark.usefixtures("worker")
def test_a_worker_and_what_it_runs_are_shown(
    open_page: Open, database: Database, route: Callable[[str], None]
) -> None:
    route("/workers")
    run_id = submit(database, "shop.slow.v1")

    page = open_page("workers")

    expect(page.locator("tbody tr", has_text="running")).to_contain_text("shop.slow.v1")
    expect(page.locator(f'a[href$="/runs/{run_id}"]')).to_be_visible()
    assert cancel(database, run_id)  # the worker would wait for it when it stops


def test_a_run_that_nobody_handles_says_why(
    open_page: Open, database: Database, route: Callable[[str], None]
) -> None:
    route("/runs/{id}/why")

    page = open_page(f"runs/{submit(database)}")

    expect(page.get_by_label("why")).to_contain_text("worker")


def test_all_that_match_are_cancelled_as_an_operation(
    open_page: Open, database: Database, route: Callable[[str], None]
) -> None:
    route("/operations")
    type_ = a_type()
    runs = [submit(database, type_) for _ in range(5)]
    page = open_page(f"runs?pattern={type_}&status=pending")

    page.get_by_role("button", name="Cancel all…").click()
    page.get_by_label("Reason").fill("wrong prices")
    page.get_by_role("button", name="Cancel 5 runs").click()

    expect(page.locator(".operation")).to_contain_text("finished")
    expect(page.locator(".operation")).to_contain_text("5 changed")
    assert {status_of(database, run_id) for run_id in runs} == {"cancelled"}


def test_without_a_type_the_question_is_of_every_type(open_page: Open, database: Database) -> None:
    submit(database)
    page = open_page("runs?status=pending")

    page.get_by_role("button", name="Cancel all…").click()

    expect(page.get_by_role("dialog")).to_contain_text("every type")
    page.keyboard.press("Escape")


def test_health_says_what_the_doctor_finds(open_page: Open, route: Callable[[str], None]) -> None:
    route("/health")

    page = open_page("health")

    expect(page.locator(".findings li").first).to_be_visible()
