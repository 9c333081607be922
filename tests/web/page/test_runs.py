"""Runs and one run: seen, filtered, cancelled, reopened, run again; with the mouse and without."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from builders import Database, a_held_run, a_run, a_type, finish, progress, status_of, submit
from waits import until
from web.page.conftest import withhold

expect.set_options(timeout=20_000)
Open = Callable[..., Page]


def test_a_new_run_appears_by_itself(open_page: Open, database: Database) -> None:
    type_ = a_type()
    page = open_page(f"runs?pattern={type_}")
    expect(page.get_by_text("No run matches.")).to_be_visible()

    run_id = submit(database, type_)

    expect(page.locator(f'a[href$="/runs/{run_id}"]')).to_be_visible()


def test_filters_are_in_the_address_and_narrow_the_list(open_page: Open, database: Database) -> None:
    prefix = a_type("filters").removesuffix(".v1")
    pending = submit(database, f"{prefix}.one.v1")
    a_run(database, type=f"{prefix}.two.v1", status="failed")
    page = open_page("runs")

    page.get_by_label("type or prefix%").fill(f"{prefix}.%")
    page.get_by_label("type or prefix%").press("Enter")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("button", name="pending", exact=True).click()

    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody tr")).to_contain_text(pending[-8:])
    assert "status=pending" in page.url
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)


def test_runs_are_found_by_a_path_in_their_payload(open_page: Open, database: Database) -> None:
    type_ = a_type()
    wanted = submit(database, type_, {"customer": {"id": 42}})
    other = submit(database, type_, {"customer": {"id": 43}})
    page = open_page(f"runs?pattern={type_}")

    page.get_by_label("payload").fill("customer.id=42")
    page.keyboard.press("Enter")

    expect(page.locator(f'a[href$="{other}"]')).to_have_count(0)
    expect(page.locator(f'tbody a[href$="{wanted}"]').first).to_be_visible()
    expect(page).to_have_url(re.compile("payload=customer.id"))
    expect(page.get_by_role("button", name="Cancel all…")).to_be_disabled()


def test_a_run_is_cancelled_with_its_reason(open_page: Open, database: Database) -> None:
    run_id = submit(database)
    page = open_page(f"runs/{run_id}")

    page.get_by_role("button", name="Cancel…").click()
    page.get_by_label("Reason").fill("the customer called")
    page.get_by_role("button", name="Cancel this run").click()

    expect(page.locator(".run-state")).to_contain_text("cancelled")
    expect(page.locator(".events")).to_contain_text("the customer called")
    assert status_of(database, run_id) == "cancelled"


def test_a_run_is_found_and_cancelled_by_keyboard_alone(open_page: Open, database: Database) -> None:
    type_ = a_type()
    run_id = submit(database, type_)
    page = open_page()

    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type(type_)
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator(".run-state")).to_contain_text("pending")
    page.keyboard.press("c")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")

    expect(page.locator(".run-state")).to_contain_text("cancelled")
    assert status_of(database, run_id) == "cancelled"


def test_some_of_the_list_are_selected_and_cancelled(open_page: Open, database: Database) -> None:
    type_ = a_type()
    runs = [submit(database, type_) for _ in range(3)]
    page = open_page(f"runs?pattern={type_}")

    for run_id in runs[:2]:
        page.get_by_label(f"select {run_id}").check()
    page.get_by_role("button", name="Cancel 2…").click()
    page.get_by_role("button", name="Cancel 2 runs").click()

    expect(page.get_by_text("2 runs cancelled")).to_be_visible()
    assert [status_of(database, run_id) for run_id in runs] == ["cancelled", "cancelled", "pending"]


def test_a_failed_run_shows_its_error_and_is_reopened(open_page: Open, database: Database) -> None:
    held = a_held_run(database, max_attempts=1)
    finish(
        database, held, status="failed", error="Traceback:\n  somewhere\nValueError: the printer is on fire"
    )
    page = open_page(f"runs/{held.id}")
    expect(page.locator(".error-text")).to_contain_text("ValueError: the printer is on fire")

    page.get_by_role("button", name="Reopen…").click()
    page.get_by_label("New attempts").fill("2")
    page.get_by_role("button", name="Reopen this run").click()

    expect(page.locator(".run-state")).to_contain_text("pending")
    expect(page.locator(".events")).to_contain_text("up to 3 attempts")
    assert status_of(database, held.id) == "pending"


def test_a_run_is_run_again_with_another_payload_and_every_digit(open_page: Open, database: Database) -> None:
    run_id = a_run(database, status="cancelled", payload={"amount": 12345678901234567890})
    page = open_page(f"runs/{run_id}")
    page.get_by_role("button", name="Run again…").click()
    payload = page.get_by_label("Payload (JSON)")
    expect(payload).to_have_value(re.compile("12345678901234567890"))

    payload.fill('{"amount": 12345678901234567890, "again": }')
    page.get_by_role("button", name="Submit the new run").click()
    expect(page.get_by_role("dialog")).to_contain_text("is not JSON")
    payload.fill('{"amount": 12345678901234567890, "again": true}')
    page.get_by_role("button", name="Submit the new run").click()

    expect(page).not_to_have_url(re.compile(run_id))
    expect(page.locator(".run-state")).to_contain_text("pending")
    new_id = page.url.rsplit("/", 1)[1]
    row = database.execute("select payload::text from workflow_run where id = %s", [new_id]).fetchone()
    assert row is not None
    assert '"amount": 12345678901234567890' in row[0]


def test_big_numbers_keep_their_digits_and_secrets_are_covered(open_page: Open, database: Database) -> None:
    payload = {"n": 98765432109876543210, "api_token": "tok-visible", "deep": {"password": ["hunter2"]}}
    page = open_page(f"runs/{submit(database, payload=payload)}")

    shown = page.get_by_label("payload", exact=True)
    expect(shown).to_contain_text("98765432109876543210")
    expect(shown).not_to_contain_text("tok-visible")
    expect(shown).not_to_contain_text("hunter2")
    page.get_by_role("button", name="uncover 2 secrets").click()

    expect(shown).to_contain_text("tok-visible")
    expect(shown).to_contain_text("hunter2")


def test_a_long_payload_is_collapsed_until_asked_for(open_page: Open, database: Database) -> None:
    page = open_page(f"runs/{submit(database, payload={'lines': list(range(500))})}")
    shown = page.get_by_label("payload", exact=True)
    expect(shown).to_contain_text("lines")
    expect(shown).not_to_contain_text("499")

    page.get_by_role("button", name=re.compile("show all")).click()

    expect(shown).to_contain_text("499")


def test_a_payload_of_the_largest_size_is_shown_whole(open_page: Open, database: Database) -> None:
    payload = {"numbers": list(range(100_000)), "text": "x" * 200_000, "last": "the end"}
    page = open_page(f"runs/{submit(database, payload=payload)}", width=390)
    shown = page.get_by_label("payload", exact=True)

    page.get_by_role("button", name=re.compile("show all")).click()

    expect(shown).to_contain_text("99999")
    expect(shown).to_contain_text("the end")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_attempts_are_bars_and_progress_is_told(open_page: Open, database: Database) -> None:
    held = a_held_run(database)
    progress(database, held, {"percent": 40, "message": "forty files"})
    page = open_page(f"runs/{held.id}")

    expect(page.locator(".bars .bar")).to_have_count(1)
    expect(page.locator(".progress")).to_contain_text("forty files")


@pytest.mark.usefixtures("worker")
def test_a_worker_that_is_told_to_stop_ends_the_run_of_the_page(open_page: Open, database: Database) -> None:
    run_id = submit(database, "shop.slow.v1")
    page = open_page(f"runs/{run_id}")
    expect(page.locator(".run-state")).to_contain_text("leased")

    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel this run").click()

    expect(page.locator(".run-state")).to_contain_text("cancelled")
    until(lambda: status_of(database, run_id) == "cancelled", "the run is cancelled")


@pytest.mark.usefixtures("worker")
def test_results_and_errors_of_a_worker_are_shown(open_page: Open, database: Database) -> None:
    well, broken = submit(database, "shop.well.v1"), submit(database, "shop.broken.v1", max_attempts=1)

    expect(open_page(f"runs/{well}").get_by_label("result", exact=True)).to_contain_text("ran")
    expect(open_page(f"runs/{broken}").locator(".error-text")).to_contain_text("the printer is on fire")


def test_a_run_that_is_not_there_is_said_in_one_line(open_page: Open) -> None:
    page = open_page("runs/00000000-0000-7000-8000-000000000000")

    expect(page.get_by_role("alert").locator("strong")).to_have_text(
        "run 00000000-0000-7000-8000-000000000000 does not exist"
    )


def test_a_change_of_some_that_breaks_off_says_how_many_were_changed(
    open_page: Open, database: Database
) -> None:
    type_ = a_type()
    runs = [submit(database, type_) for _ in range(3)]
    page = open_page(f"runs?pattern={type_}")
    page.get_by_label("select all").check()
    asked: list[str] = []

    def break_off_the_second(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 2:
            route.fulfill(status=503, json={"error": {"code": "unavailable", "message": "out of order"}})
        else:
            route.continue_()

    page.route("**/cancel", break_off_the_second)

    page.get_by_role("button", name="Cancel 3…").click()
    page.get_by_role("button", name="Cancel 3 runs").click()

    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("alert")).to_contain_text("1 of 3 cancelled, then: out of order")
    assert sorted(status_of(database, run_id) for run_id in runs) == ["cancelled", "pending", "pending"]


def test_events_that_are_still_asked_for_are_not_said_to_be_missing(
    open_page: Open, database: Database
) -> None:
    held = a_held_run(database)
    page = open_page("runs")
    kept = withhold(page, "**/events?*")

    page.goto(f"{page.url.removesuffix('runs')}runs/{held.id}")

    expect(page.get_by_role("status").filter(has_text="loading its events")).to_have_count(1)
    expect(page.get_by_role("status").filter(has_text="loading its attempts")).to_have_count(1)
    expect(page.locator("main")).not_to_contain_text("No events.")
    expect(page.locator("main")).not_to_contain_text("None yet.")
    kept[0].continue_()
    expect(page.locator(".events li")).to_have_count(2)
    expect(page.locator(".bars .bar")).to_have_count(1)


def test_a_run_that_is_due_later_says_when_and_raises_no_alarm(open_page: Open, database: Database) -> None:
    row = database.execute(
        "select id from submit(%s, '{}'::jsonb, p_delay_seconds => 7100)", [a_type()]
    ).fetchone()
    assert row is not None

    page = open_page(f"runs/{row[0]}")

    expect(page.locator(".run-state")).to_contain_text("due in 118 min")
    expect(page.get_by_label("why")).to_contain_text("it is due in 1 h 58 min")
    expect(page.get_by_label("why")).not_to_have_class(re.compile("needs-you"))


# The page waits 30 s for an answer; the test, as long as it says.
# Three times as long as the page of a run takes to ask again: what else it asks is answered meanwhile.
WAITS_SHORTLY = (
    "{ const after = AbortSignal.timeout.bind(AbortSignal); AbortSignal.timeout = () => after(3000); }"
)


def test_one_question_without_an_answer_is_said_where_it_was_asked(
    open_page: Open, database: Database
) -> None:
    page = open_page("runs")
    page.context.add_init_script(WAITS_SHORTLY)
    withhold(page, "**/why")

    page.goto(f"{page.url.removesuffix('runs')}runs/{submit(database)}")

    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server has not answered this within 30 s.")
    expect(page.locator(".live")).to_contain_text("live")
    expect(page.locator(".disconnected")).to_have_count(0)


def test_a_change_without_an_answer_may_be_done_all_the_same(open_page: Open, database: Database) -> None:
    run_id = submit(database)
    page = open_page("runs")
    page.context.add_init_script(WAITS_SHORTLY)
    withhold(page, "**/cancel")
    page.goto(f"{page.url.removesuffix('runs')}runs/{run_id}")

    page.get_by_role("button", name="Cancel…").click()
    page.get_by_role("button", name="Cancel this run").click()

    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("It may be done all the same")


def test_a_server_that_is_silent_is_away(open_page: Open) -> None:
    page = open_page("runs")
    page.context.add_init_script(WAITS_SHORTLY)
    withhold(page, "**/api/v1/**")

    page.reload()

    expect(page.locator(".disconnected")).to_contain_text("The server does not answer")


def hidden(page: Page, value: bool) -> Any:
    return page.evaluate(
        "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        value,
    )


def test_nothing_is_asked_while_the_page_is_hidden(open_page: Open, database: Database) -> None:
    type_ = a_type()
    page = open_page(f"runs?pattern={type_}")
    expect(page.get_by_text("No run matches.")).to_be_visible()
    hidden(page, True)
    expect(page.locator(".live")).to_contain_text("paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    run_id = submit(database, type_)
    page.wait_for_timeout(2_500)  # longer than the pause between two questions
    assert asked == []
    hidden(page, False)

    expect(page.locator(f'a[href$="/runs/{run_id}"]')).to_be_visible()
