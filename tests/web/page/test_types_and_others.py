"""Now, Types, Workers, Operations, Health: what they tell, and what is put right from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from builders import Database, a_run, a_type, cancel, connect, status_of, submit
from conftest import Server, a_schema
from simpleworkflow.web.keys import digest_of, make_key
from web.page.conftest import serving, withhold

expect.set_options(timeout=20_000)
Open = Callable[..., Page]


def test_now_says_that_a_type_fails_and_that_nobody_handles_another(
    open_page: Open, database: Database
) -> None:
    failing, forgotten = a_type("failing"), a_type("forgotten")
    a_run(database, type=failing, status="failed")
    submit(database, forgotten)

    page = open_page()

    concerns = page.get_by_role("list", name="what needs you")
    expect(concerns).to_contain_text(f"{failing}: 1 of 1 that ended")
    expect(concerns).to_contain_text(f"{forgotten}: no worker has ever handled it")
    expect(page.locator(".tile", has_text="failing")).to_be_visible()


def test_a_type_is_paused_with_its_reason_and_resumed(open_page: Open, database: Database) -> None:
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


def test_a_prefix_that_is_paused_is_shown_though_no_type_is_covered_and_resumed(
    open_page: Open, database: Database
) -> None:
    database.execute("select pause('retired.%', 'no longer sold')")

    now = open_page()
    expect(now.get_by_role("list", name="what needs you")).to_contain_text(
        "retired.% is paused: no longer sold"
    )
    page = open_page("types", width=390)
    paused = page.get_by_role("list", name="paused patterns")
    expect(paused).to_contain_text("retired.% is paused: no longer sold")
    paused.get_by_role("button", name="resume retired.%").click()
    page.get_by_role("button", name="Resume", exact=True).click()

    expect(paused).to_have_count(0)
    assert database.execute("select from list_pauses()").rowcount == 0


def test_what_is_due_later_and_handled_by_nobody_is_no_alarm_yet(open_page: Open, database: Database) -> None:
    later, due = a_type("later"), a_type("due")
    database.execute("select from submit(%s, '{}'::jsonb, p_delay_seconds => 3600)", [later])
    submit(database, due)

    concerns = open_page().get_by_role("list", name="what needs you").locator("li")

    expect(concerns.filter(has_text=due)).to_have_class("is-error")
    expect(concerns.filter(has_text=later)).to_have_class("is-notice")


def test_now_says_nothing_until_all_is_known_and_alarms_nobody_until_a_run_is_due(
    open_page: Open, server: Server
) -> None:
    with a_schema(server) as url, connect(url) as conn, serving(url) as address:
        page = open_page("schedules", at=address)
        kept = withhold(page, "**/health")
        page.goto(address)
        expect(page.locator(".tile")).to_have_count(6)
        expect(page.locator("main")).to_contain_text("No types yet.")
        expect(page.locator(".concerns")).to_have_count(0)
        kept[0].fulfill(json={"findings": []})
        expect(page.get_by_role("status").filter(has_text="All is well")).to_be_visible()

        concern = page.get_by_role("list", name="what needs you").locator("li", has_text="No worker is")
        conn.execute("select from submit('later.v1', '{}'::jsonb, p_delay_seconds => 3600)")
        expect(concern).to_have_class("is-notice")
        conn.execute("select pause('held.%', 'not yet')")
        submit(conn, "held.v1")
        expect(page.locator(".tile", has_text="oldest due")).to_contain_text("only paused ones")
        expect(concern).to_have_class("is-notice")
        submit(conn, "due.v1")
        expect(concern).to_have_class("is-error")


def test_now_shows_the_types_that_move_where_there_are_too_many(open_page: Open, server: Server) -> None:
    with a_schema(server) as url, connect(url) as conn, serving(url) as address:
        for index in range(12):
            a_run(conn, type=f"a-{index:02}.v1", status="cancelled")
        submit(conn, "z-due.v1")

        page = open_page(at=address)

        expect(page.locator("tbody tr")).to_have_count(12)
        expect(page.locator("tbody tr", has_text="z-due.v1")).to_be_visible()
        expect(page.get_by_role("link", name="all 13 types")).to_be_visible()


@pytest.mark.usefixtures("worker")
def test_a_worker_and_what_it_runs_are_shown(open_page: Open, database: Database) -> None:
    run_id = submit(database, "shop.slow.v1")

    page = open_page("workers")

    expect(page.locator("tbody tr", has_text="running")).to_contain_text("shop.slow.v1")
    expect(page.locator(f'a[href$="/runs/{run_id}"]')).to_be_visible()
    assert cancel(database, run_id)  # the worker would wait for it when it stops


def test_a_run_that_nobody_handles_says_why(open_page: Open, database: Database) -> None:
    page = open_page(f"runs/{submit(database)}")

    expect(page.get_by_label("why")).to_contain_text("worker")


def test_all_that_match_are_cancelled_as_an_operation(open_page: Open, database: Database) -> None:
    type_ = a_type()
    runs = [submit(database, type_) for _ in range(5)]
    page = open_page(f"runs?pattern={type_}&status=pending")

    page.get_by_role("button", name="Cancel all…").click()
    page.get_by_label("Reason").fill("wrong prices")
    page.get_by_role("button", name="Cancel 5 runs").click()

    expect(page.locator(".operation")).to_contain_text("finished")
    expect(page.locator(".operation")).to_contain_text("5 changed")
    assert {status_of(database, run_id) for run_id in runs} == {"cancelled"}


def test_all_that_match_are_reopened_with_as_many_attempts_as_asked(
    open_page: Open, database: Database
) -> None:
    type_ = a_type()
    runs = [a_run(database, type=type_, status="failed") for _ in range(2)]
    page = open_page(f"runs?pattern={type_}&status=failed")

    page.get_by_role("button", name="Reopen all…").click()
    page.get_by_label("New attempts").fill("7")
    page.get_by_label("Reason").fill("the printer is repaired")
    page.get_by_role("button", name="Reopen 2 runs").click()

    expect(page.locator(".operation")).to_contain_text("finished")
    given = database.execute("select max_attempts from workflow_run where id = any(%s::uuid[])", [runs])
    assert given.fetchall() == [(1 + 7,)] * 2


def test_an_operation_is_stopped_from_its_page(open_page: Open, database: Database) -> None:
    type_ = a_type()
    run_id = submit(database, type_)
    with database.transaction():  # somebody carries it out, and is not done yet
        (operation,) = database.execute(
            "select id from operate('cancel', array[%s], 'wrong prices')", [type_]
        )
        database.execute("set local workflow.transition = 'operation'")
        database.execute(
            "update workflow_operation set carried_by = 'somebody', carried_until = now() + interval '1 hour'"
            " where id = %s",
            operation,
        )
    page = open_page(f"operations/{operation[0]}", width=390, scheme="dark")
    card = page.locator(".operation")
    expect(card).to_contain_text("running")

    card.get_by_role("button", name="Stop").click()

    expect(card).to_contain_text("stopped by")
    expect(card.get_by_role("button", name="Stop")).to_have_count(0)
    assert status_of(database, run_id) == "pending"


def test_schedules_are_shown(open_page: Open, database: Database) -> None:
    page = open_page("schedules")
    expect(page.locator("main")).to_contain_text("No schedules.")

    type_ = a_type()
    database.execute(
        "insert into workflow_schedule (type, schedule, timezone, enabled)"
        " values (%s, '0 3 * * *', 'Europe/Zurich', false)",
        [type_],
    )

    row = page.locator("tbody tr", has_text=type_)
    expect(row).to_contain_text("0 3 * * *")
    expect(row).to_contain_text("Europe/Zurich")
    expect(row).to_contain_text("off")
    expect(page.locator(".says").first).to_contain_text("nothing carries them out yet")


def test_a_reader_logs_in_with_a_key_and_sees_no_button_that_changes(open_page: Open, server: Server) -> None:
    key = make_key()
    with a_schema(server) as url, connect(url) as conn:
        conn.execute("select add_key('somebody', 'reader', %s)", [digest_of(key)])
        conn.execute("select pause('retired.%', 'no longer sold')")
        run_id = submit(conn)
        with serving(url) as address:
            page = open_page(f"runs/{run_id}", at=address)
            page.get_by_label("API key").fill("wf_" + "0" * 43)
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("alert")).to_be_visible()

            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Log in").click()

            expect(page.locator(".run-state")).to_contain_text("pending")
            expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
            assert key not in page.evaluate(
                "document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
            )
            page.goto(f"{address}/types")
            expect(page.get_by_role("list", name="paused patterns")).to_contain_text("retired.%")
            expect(page.get_by_role("button", name="Resume")).to_have_count(0)
            expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_an_operator_changes_in_the_name_of_the_key_and_is_asked_again_after_logging_out(
    open_page: Open, server: Server
) -> None:
    key = make_key()
    with a_schema(server) as url, connect(url) as conn:
        conn.execute("select add_key('night-shift', 'operator', %s)", [digest_of(key)])
        run_id = submit(conn)
        with serving(url) as address:
            page = open_page(f"runs/{run_id}", at=address)
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Log in").click()

            page.get_by_role("button", name="Cancel…").click()
            page.get_by_role("button", name="Cancel this run").click()
            expect(page.locator(".events")).to_contain_text("night-shift")
            page.reload()
            expect(page.locator(".run-state")).to_contain_text("cancelled")
            page.get_by_role("button", name="log out").click()

            expect(page.get_by_label("API key")).to_be_visible()
            page.reload()
            expect(page.get_by_label("API key")).to_be_visible()


def test_without_a_type_the_question_is_of_every_type(open_page: Open, database: Database) -> None:
    submit(database)
    page = open_page("runs?status=pending")

    page.get_by_role("button", name="Cancel all…").click()

    expect(page.get_by_role("dialog")).to_contain_text("every type")
    page.keyboard.press("Escape")


def test_health_says_what_the_doctor_finds(open_page: Open) -> None:
    page = open_page("health")

    expect(page.locator(".findings li").first).to_be_visible()
