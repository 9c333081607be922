"""What an attempt's end means for its run."""

from __future__ import annotations

import asyncio

import pytest

from simpleworkflow.errors import LeaseLost, PayloadMismatch, RetryAfter, RunCancelled
from simpleworkflow.model import RETRY_DELAY_SECONDS_MAX
from simpleworkflow.outcome import (
    Cancelled,
    Failed,
    Lost,
    Retried,
    Succeeded,
    decide_failure,
    decide_result,
)
from simpleworkflow.retry import RetryPolicy


class FatalError(Exception):
    pass


class HostileError(Exception):
    def __str__(self) -> str:
        raise SystemExit("from __str__")


def decide(error: BaseException, *, attempt: int = 1, **policy):
    return decide_failure(error, attempt=attempt, retry=RetryPolicy(**policy))


def test_a_result_is_stored_as_json():
    assert decide_result({"a": (1, None)}) == Succeeded('{"a": [1, null]}')


def test_no_result_is_no_json():
    assert decide_result(None) == Succeeded(None)


def test_a_result_that_cannot_be_stored_fails_without_retry():
    outcome = decide_result({"a": {1, 2}})

    assert outcome == Failed(
        "the result cannot be stored: result.a: expected a JSON value, got a set (make it a sorted list)"
    )


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(1),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        HostileError(),
    ],
)
def test_whatever_a_handler_raises_is_retried_by_its_policy(error):
    outcome = decide(error, attempt=2, backoff=[1, 7])

    assert isinstance(outcome, Retried)
    assert outcome.delay_seconds == 7
    assert outcome.error.startswith(type(error).__name__)


def test_without_a_back_off_the_delay_is_left_to_the_database():
    assert decide(ValueError("x")) == Retried("ValueError: x", None)


def test_retry_after_says_its_own_delay():
    assert decide(RetryAfter(5, "busy"), backoff=60) == Retried("RetryAfter: busy", 5)


def test_retry_after_is_clamped_to_a_year():
    assert decide(RetryAfter(1e300, "later")) == Retried("RetryAfter: later", RETRY_DELAY_SECONDS_MAX)


def test_a_payload_that_does_not_fit_fails_without_retry():
    assert decide(PayloadMismatch("payload.a: no")) == Failed("PayloadMismatch: payload.a: no")


def test_what_the_policy_never_retries_fails_at_once():
    assert decide(FatalError("no"), never=(FatalError,)) == Failed("FatalError: no")


def test_never_may_name_retry_after():
    assert isinstance(decide(RetryAfter(1), never=(RetryAfter,)), Failed)


@pytest.mark.parametrize(("error", "outcome"), [(RunCancelled(), Cancelled()), (LeaseLost("id"), Lost())])
def test_a_run_that_was_taken_away_has_nothing_to_write(error, outcome):
    assert decide(error) == outcome
    assert decide(ExceptionGroup("tasks", [error, ExceptionGroup("inner", [error])])) == outcome


def test_a_group_with_another_error_in_it_is_retried():
    error = ExceptionGroup("tasks", [RunCancelled(), ValueError("x")])

    assert isinstance(decide(error), Retried)


def test_groups_nested_beyond_any_recursion_are_retried():
    error: Exception = ValueError("x")
    for _ in range(5000):
        error = ExceptionGroup("g", [error])

    outcome = decide(error)

    assert isinstance(outcome, Retried)
    assert len(outcome.error.encode()) <= 65_536


def test_a_broken_back_off_is_said_beside_the_error():
    outcome = decide(ValueError("x"), backoff=lambda _: 1 / 0)

    assert outcome == Retried(
        "ValueError: x\n(the back-off function raised ZeroDivisionError; the default rule applies)", None
    )
