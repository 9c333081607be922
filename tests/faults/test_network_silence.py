"""Connections that fall silent: nothing is closed, nothing comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from builders import Database, a_type, column_of, events_of, status_of, submit
from faults.proxy import Proxy
from simpleworkflow import Worker, notifier
from simpleworkflow.notifier import PROBE_DEADLINE_SECONDS, PROBE_SECONDS
from simpleworkflow.worker import link
from worker.stage import WorkerThread, ended, eventually

NETWORK = "Database and network"
POLL_SECONDS = 0.6
AWAY, BACK = "the database is away", "the database is back"


class Begun:
    """When each attempt began, and when it was cancelled, by the monotonic clock of this machine."""

    def __init__(self) -> None:
        self.at: dict[str, list[float]] = {}
        self.cancelled: dict[str, float] = {}

    def seconds_after(self, run_id: str, since: float) -> float:
        eventually(lambda: run_id in self.at)
        return self.at[run_id][0] - since


@pytest.fixture
def start(proxy: Proxy) -> Iterator[Callable[..., Begun]]:
    """Start a worker of one type, through the proxy unless said otherwise; a payload may say how long to sleep."""
    with ExitStack() as stack:

        def start_one(type_: str, **options: Any) -> Begun:
            begun, name, is_warm = Begun(), options.pop("name", "first"), options.pop("is_warm", False)
            worker = Worker(
                **{"lease_seconds": 1.5, "poll_seconds": POLL_SECONDS, "database_url": proxy.url} | options
            )

            @worker.handler(type_)
            async def execute(run: Any) -> Any:
                begun.at.setdefault(str(run.id), []).append(monotonic())
                try:
                    await asyncio.sleep((run.payload or {}).get("seconds", 0))
                except asyncio.CancelledError:
                    begun.cancelled.setdefault(str(run.id), monotonic())
                    raise
                return [name, run.attempt]

            stack.enter_context(WorkerThread(worker))
            proxy.wait_for(r"\.exchange\(")
            if is_warm:
                proxy.wait_for(r"\.heartbeat\(")  # its heart, a process, takes longer to start
            return begun

        yield start_one


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe the sessions of the wake-ups more often than every fifteen seconds."""
    assert PROBE_SECONDS + PROBE_DEADLINE_SECONDS <= 30  # the promise
    monkeypatch.setattr(notifier, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(notifier, "PROBE_DEADLINE_SECONDS", 0.5)


# ── wake-ups ───────────────────────────────────────────────────────────────────────────────────────


def start_with_wake_ups(start: Callable[..., Begun], db: Database, proxy: Proxy, type_: str) -> Begun:
    """Start a worker, and wait until it is hungry and an insert wakes it."""
    begun = start(type_, poll_seconds=POLL_SECONDS)
    proxy.wait_for(r"pg_notify.* hungry|pg_notify\(")
    proxy.wait_for("listen ")
    return begun


@pytest.mark.fault(NETWORK, "the LISTEN session is half-open", "P7")
@pytest.mark.parametrize("how", ["server gone", "black hole", "to the client only"])
def test_a_listening_session_that_is_silent_costs_no_more_than_the_poll(
    how: str, proxy: Proxy, db: Database, start: Callable[..., Begun]
) -> None:
    type_ = a_type()
    begun = start_with_wake_ups(start, db, proxy, type_)
    if how == "server gone":
        assert proxy.lose_server(of="^listen") == 1
    else:
        proxy.black_hole("both" if how == "black hole" else "to_client", of="^listen")

    for _ in range(4):
        since = monotonic()
        run_id = submit(db, type_)
        assert begun.seconds_after(run_id, since) <= POLL_SECONDS + 0.25


@pytest.mark.fault(NETWORK, "the session that holds the wake-up lock is half-open", "P7")
@pytest.mark.parametrize("how", ["server gone", "client gone", "black hole"])
def test_a_lock_session_that_is_silent_costs_no_more_than_the_poll(
    how: str, proxy: Proxy, db: Database, start: Callable[..., Begun]
) -> None:
    type_ = a_type()
    begun = start_with_wake_ups(start, db, proxy, type_)
    if how == "black hole":
        proxy.black_hole(of=r"advisory_lock\(")
    else:
        assert (proxy.lose_server if how == "server gone" else proxy.lose_client)(of=r"advisory_lock\(") == 1

    for _ in range(4):
        since = monotonic()
        run_id = submit(db, type_)
        assert begun.seconds_after(run_id, since) <= POLL_SECONDS + 0.25
    assert all(
        "tcp_keepalives_idle" in " ".join(session.seen) for session in proxy.sessions(r"advisory_lock\(")
    )


@pytest.mark.fault(NETWORK, "a half-open session of the wake-ups is found, said once, and replaced", "P7")
@pytest.mark.parametrize("of", ["^listen", pytest.param(r"advisory_lock\(", id="advisory_lock")])
def test_a_silent_wake_up_session_is_found_and_said_once(
    of: str,
    proxy: Proxy,
    db: Database,
    start: Callable[..., Begun],
    quick_probes: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    type_ = a_type()
    begun = start_with_wake_ups(start, db, proxy, type_)
    proxy.black_hole(of=of)

    eventually(lambda: "wake-ups are lost" in caplog.text, seconds=5)
    eventually(
        lambda: len([sql for sql in proxy.seen if sql.startswith("set lock_timeout")]) > 1 or of == "^listen"
    )
    assert caplog.text.count("wake-ups are lost") == 1
    assert AWAY not in caplog.text
    proxy.heal()

    eventually(lambda: "wake-ups are back" in caplog.text, seconds=10)
    assert ended(db, submit(db, type_)) == "succeeded"
    assert begun.at


# ── leases ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.fault(NETWORK, "all sessions of one worker black-holed for three leases, then healed", "P2, P3")
def test_a_worker_that_was_cut_off_for_three_leases_reports_nothing_and_rejoins(
    proxy: Proxy, db: Database, database_url: str, start: Callable[..., Begun]
) -> None:
    type_ = a_type()
    begun = start(type_, is_warm=True)
    run_id = submit(db, type_, {"seconds": 2})
    eventually(lambda: run_id in begun.at)

    proxy.black_hole()
    silent_at = monotonic()
    start(type_, database_url=database_url, name="second")
    assert ended(db, run_id) == "succeeded"
    eventually(lambda: monotonic() > silent_at + 3 * 1.5, seconds=5)
    proxy.heal()

    assert begun.cancelled[run_id] < silent_at + 1.5  # its lease may have been extended just before
    assert column_of(db, run_id, "result") == ["second", 2]
    assert events_of(db, run_id) == ["created", "leased", "expired", "leased", "succeeded"]
    later = [submit(db, type_, {"seconds": 0.05}) for _ in range(3)]
    while not any(one in begun.at for one in later):  # it takes its part again
        later.append(submit(db, type_, {"seconds": 0.05}))
        ended(db, later[-1])
        assert len(later) < 200


@pytest.mark.fault(NETWORK, "only the heart's session is black-holed for three leases, then healed", "P2, P3")
def test_without_heartbeats_a_long_handler_is_stopped_in_time_and_short_ones_go_on(
    proxy: Proxy, db: Database, start: Callable[..., Begun]
) -> None:
    type_, short = a_type(), a_type()
    begun, others = start(type_, is_warm=True), start(short)
    run_id = submit(db, type_, {"seconds": 3}, max_attempts=1)
    eventually(lambda: run_id in begun.at)

    proxy.black_hole(of=r"\.heartbeat\(")
    silent_at = monotonic()
    ends = [ended(db, submit(db, short)) for _ in range(5)]
    assert ended(db, run_id) == "failed"
    eventually(lambda: monotonic() > silent_at + 3 * 1.5, seconds=5)
    proxy.heal()

    assert ends == ["succeeded"] * 5
    assert all(len(times) == 1 for times in others.at.values())
    assert begun.cancelled[run_id] < silent_at + 1.5
    assert events_of(db, run_id) == ["created", "leased", "expired"]
    again = submit(db, type_, {"seconds": 2}, max_attempts=1)
    assert ended(db, again) == "succeeded"


@pytest.mark.fault(NETWORK, "only the exchanges are black-holed for three leases, then healed", "P1, P3")
def test_without_exchanges_a_held_run_keeps_its_lease_and_is_finished_afterwards(
    proxy: Proxy, db: Database, start: Callable[..., Begun], caplog: pytest.LogCaptureFixture
) -> None:
    type_ = a_type()
    begun = start(type_, is_warm=True)
    run_id = submit(db, type_, {"seconds": 6})
    eventually(lambda: run_id in begun.at)

    proxy.black_hole(of=r"\.exchange\(")
    silent_at = monotonic()
    waiting = submit(db, type_)
    eventually(lambda: monotonic() > silent_at + 3 * 1.5, seconds=6)
    assert status_of(db, run_id) == "leased"
    proxy.heal()

    assert ended(db, run_id) == ended(db, waiting) == "succeeded"
    assert events_of(db, run_id) == ["created", "leased", "succeeded"]
    # Said once the answer is here: the run has ended a moment earlier.
    eventually(lambda: BACK in caplog.text)
    assert caplog.text.count(AWAY) == caplog.text.count(BACK) == 1


@pytest.mark.fault(NETWORK, "answers do not come back, for all sessions of a worker: one direction", "P1, P2")
@pytest.mark.parametrize("direction", ["to_client", "to_server"])
def test_a_worker_that_is_cut_off_in_one_direction_recovers(
    direction: Any, proxy: Proxy, db: Database, start: Callable[..., Begun], caplog: pytest.LogCaptureFixture
) -> None:
    type_ = a_type()
    start(type_)
    runs = [submit(db, type_, {"seconds": 0.2}) for _ in range(5)]

    proxy.black_hole(direction)
    eventually(lambda: AWAY in caplog.text, seconds=8)
    proxy.heal()

    assert [ended(db, run_id) for run_id in runs] == ["succeeded"] * 5
    assert caplog.text.count(AWAY) == 1


@pytest.mark.fault(NETWORK, "one of a worker's connections stays silent, the others work: no flapping", "P1")
def test_a_single_silent_connection_is_one_outage(
    proxy: Proxy,
    db: Database,
    start: Callable[..., Begun],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "BACKOFF_SECONDS_MAX", 0.2)
    type_ = a_type()
    start(type_)
    submit(db, type_)
    proxy.wait_for(r"\.next_upkeep\(")
    # Whatever the side link asks: an answer to a fold would end the outage.
    proxy.black_hole(of=r"\.(next_upkeep|fold|register_types|register_worker)\(")
    proxy.wait_for(r"\.next_upkeep\(", count=3, seconds=12)

    assert ended(db, submit(db, type_)) == "succeeded"
    assert caplog.text.count(AWAY) == 1
    assert BACK not in caplog.text
    proxy.heal()
    eventually(lambda: BACK in caplog.text, seconds=10)
